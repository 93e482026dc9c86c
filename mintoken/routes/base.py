"""What the routes of the control plane and the pages share: bodies in, answers out."""

import asyncio
import re
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from mintoken.context import ACCOUNTS, CONTEXT, PRICES
from mintoken.errors import Code, MintokenError
from mintoken.models import Directory
from mintoken.routes.body import read_body
from mintoken.savings import Report, control_share, report

FORM = "application/x-www-form-urlencoded"
REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""A UUIDv7, which is how usage rows are named."""
MOST_FIELDS = 100
LARGEST_BODY = 256 * 1024
"""Bytes; the largest is a text to try the rules on."""

_T = TypeVar("_T", bound=msgspec.Struct)
_PLACE = re.compile(r" - at `\$\.?(.*?)`$")


async def taken(request: web.Request, shape: type[_T]) -> _T:
    """The body of a request, of this shape. Raises MintokenError that says where it is not."""
    body = b"".join(await read_body(request, at_most=LARGEST_BODY))
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _unusable(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MintokenError(Code.INVALID_JSON) from None


def _unusable(told: str) -> MintokenError:
    """What msgspec says, which quotes names of fields and never a value but that of an enum."""
    place = _PLACE.search(told)
    detail = re.sub(r"(Invalid enum value) .*?( - at |$)", r"\1\2", told, flags=re.DOTALL)
    named = re.search(r"field `(.*?)`", told)
    param = place[1] if place and place[1] else named[1] if named else None
    return MintokenError(Code.INVALID_FIELD, f"{detail}.", param=param)


async def form_of(request: web.Request) -> dict[str, str]:
    """The fields of a form, as a page sends them. Raises MintokenError as `read_body`."""
    body = b"".join(await read_body(request, media_type=FORM, at_most=LARGEST_BODY))
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise MintokenError(Code.INVALID_FIELD, "This is no form in UTF-8.") from None
    return dict(fields)


def whole_number(text: str, *, most: int) -> int | None:
    """The number in a field of a form; None if it is none from 0 to `most`."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,16}\s*", text) and int(text) <= most else None


async def current(request: web.Request) -> Directory:
    """All accounts, keys and rules as they are now, whoever changed them. Raises StorageError."""
    accounts = request.app[ACCOUNTS]
    await accounts.refresh()
    return accounts.directory


async def saved_by(request: web.Request) -> Report:
    """What the member's account saved. Raises StorageError."""
    accounts, account_id = request.app[ACCOUNTS], request[CONTEXT].asking.account_id
    samples = await accounts.store.samples(account_id=account_id)
    keys = [key for key in accounts.directory.keys if key.account_id == account_id]
    return await asyncio.to_thread(
        report, samples, request.app[PRICES], control_share=control_share(keys)
    )


def given(shape: msgspec.Struct, *, status: int = 200) -> web.Response:
    """This as the answer."""
    body = msgspec.json.encode(shape)
    return web.Response(body=body, status=status, content_type="application/json")
