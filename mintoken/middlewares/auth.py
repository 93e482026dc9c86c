"""Who is asking: by a Mintoken key and a provider key, or as a member of the dashboard."""

from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from mintoken.accounts import Owner
from mintoken.context import ACCOUNTS, CONTEXT, RATES, SECRET, STATE, Access
from mintoken.errors import Code, MintokenError
from mintoken.keys import hash_key, is_well_formed
from mintoken.middlewares.members import let_in, note
from mintoken.models import Decision, Intensity

INTENSITY = "X-Mintoken-Intensity"
PROVIDER_KEY = "X-Provider-Key"
PLAYGROUND = "playground"
"""Why a level runs that was asked for there."""


@web.middleware
async def auth(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who may ask this route."""
    if request[CONTEXT].access is Access.KEY:
        _check_caller(request)
        return await handler(request)
    if (elsewhere := await let_in(request)) is not None:
        return elsewhere
    if request[CONTEXT].access is Access.AS_KEY:
        _stand_in(request)
    response = await handler(request)
    note(request, response)
    return response


def _check_caller(request: web.Request) -> None:
    """Who asks the data plane, and with which provider key (contract §2, in the order of §4)."""
    ctx, app = request[CONTEXT], request.app
    if app[STATE].refusing:
        raise MintokenError(Code.SERVER_SHUTTING_DOWN, headers={"x-should-retry": "true"})
    _check_headers(request)
    ctx.asked = asked_level(request)
    try:
        ctx.owner = _owner(request, app, ctx.started_at)
    except MintokenError:
        app[RATES].fail(request.remote or "")
        raise
    ctx.provider_key = _provider_key(request)


def _stand_in(request: web.Request) -> None:
    """Let a member ask in the place of one of his account's keys, and as no part of its experiment:
    the conversations of trials are not those of the application.
    """
    ctx = request[CONTEXT]
    owner = request.app[ACCOUNTS].owner_of(request.match_info["id"])
    if owner is None or owner.key.account_id != ctx.asking.account_id:
        raise MintokenError(Code.NOT_FOUND)
    _check_headers(request)
    _check_in_use(owner, ctx.started_at)
    ctx.owner = owner._replace(key=replace(owner.key, control=0, concise=0))
    asked = asked_level(request)
    ctx.asked = Decision(asked.intensity, PLAYGROUND) if asked else None
    ctx.provider_key = _provider_key(request)


def _check_headers(request: web.Request) -> None:
    headers = request.headers
    for name in ("Authorization", PROVIDER_KEY, INTENSITY):
        if len(headers.getall(name, ())) > 1:
            raise MintokenError(Code.DUPLICATE_HEADER, f"Send {name} once.", param=name)


def asked_level(request: web.Request) -> Decision | None:
    """The level that the caller asks for: the header wins over `?intensity=`.

    Raises MintokenError `invalid_intensity`.
    """
    for reason, asked in (
        ("header", request.headers.get(INTENSITY)),
        ("query", request.rel_url.query.get("intensity") if request.query_string else None),
    ):
        if asked is not None:
            try:
                return Decision(Intensity(asked.strip().lower()), reason)
            except ValueError:
                raise MintokenError(Code.INVALID_INTENSITY, param="intensity") from None
    return None


def _owner(request: web.Request, app: web.Application, now_ms: int) -> Owner:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise MintokenError(Code.MISSING_API_KEY)
    owner = None
    if is_well_formed(token):
        owner = app[ACCOUNTS].find(hash_key(app[SECRET], token))
    if owner is None:
        raise MintokenError(Code.INVALID_API_KEY)
    _check_in_use(owner, now_ms)
    return owner


def _check_in_use(owner: Owner, now_ms: int) -> None:
    if owner.key.revoked_at is not None:
        raise MintokenError(Code.REVOKED_API_KEY)
    if owner.key.expires_at is not None and owner.key.expires_at <= now_ms:
        raise MintokenError(Code.EXPIRED_API_KEY)


def _provider_key(request: web.Request) -> str:
    key = request.headers.get(PROVIDER_KEY)
    if key is None:
        raise MintokenError(Code.MISSING_PROVIDER_KEY, param=PROVIDER_KEY)
    printable = key.isascii() and key.isprintable() and " " not in key
    if not printable or not 8 <= len(key) <= 512 or key.startswith("mt_"):
        raise MintokenError(Code.INVALID_PROVIDER_KEY, param=PROVIDER_KEY)
    return key
