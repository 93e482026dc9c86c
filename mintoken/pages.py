"""What all pages of the dashboard share: their names, who looks, forms, and the way back."""

import asyncio
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web

from mintoken import admin
from mintoken.context import ACCOUNTS, CONTEXT
from mintoken.models import Account, Key
from mintoken.people import Role

PAGES = (
    ("/dashboard", "Overview"),
    ("/dashboard/keys", "Keys"),
    ("/dashboard/requests", "Requests"),
    ("/dashboard/playground", "Playground"),
    ("/dashboard/rules", "Rules"),
    ("/dashboard/savings", "Savings"),
    ("/dashboard/account", "Account"),
)
STATIC = Path(str(files("mintoken") / "static"))
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def set_up(app: web.Application) -> None:
    """Give the application its templates."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.PackageLoader("mintoken"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        filters={"count": "{:,}".format, "when": _when},
    )


def _when(utc: str) -> str:
    """A time for people, to the minute, out of ISO 8601."""
    return utc[:16].replace("T", " ")


async def page(
    request: web.Request, template: str, *, status: int = 200, problem: str = "", **values: object
) -> web.Response:
    """A page for whoever is signed in; `problem` says what was wrong with what he sent.

    It is made in a thread: a long table takes some ms, and a template's first use up to 40.
    """
    member = request[CONTEXT].member
    shared = {
        "pages": PAGES,
        "here": here(request.path),
        "member": member,
        "account": account_of(request) if member else None,
        "may_write": member is not None and member.role is not Role.VIEWER,
        "problem": problem,
    }
    text = await asyncio.to_thread(aiohttp_jinja2.render_string, template, request, shared | values)
    return web.Response(text=text, status=status, content_type="text/html")


def here(path: str) -> str:
    """The page of the navigation that a path belongs to."""
    return max((one for one, _ in PAGES if path.startswith(one)), key=len, default="")


def account_of(request: web.Request) -> Account:
    """The account of whoever is signed in."""
    directory = request.app[ACCOUNTS].directory
    return admin.find_account(directory, request[CONTEXT].asking.account_id)


def keys_of(request: web.Request) -> list[Key]:
    """The keys of the account, those in use first and among them the newest."""
    account_id = request[CONTEXT].asking.account_id
    keys = [key for key in request.app[ACCOUNTS].directory.keys if key.account_id == account_id]
    return sorted(keys, key=lambda key: (key.revoked_at is not None, -key.created_at))


def back_to(path: str) -> web.Response:
    """After a change: look at the page again, so that a reload does not repeat the change."""
    return web.Response(status=303, headers={"Location": path})


async def static(request: web.Request) -> web.Response:
    """`GET /dashboard/static/{name}`: the few files that pages use."""
    name = request.match_info["name"]
    body = _static_files().get(name)
    if body is None:
        raise web.HTTPNotFound
    return web.Response(body=body, content_type=_TYPES[Path(name).suffix], charset="utf-8")


@cache
def _static_files() -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _TYPES}
