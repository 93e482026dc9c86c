"""Who may ask the routes of the admin listener: whoever signed in, or sends an admin key."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from mintoken.context import (
    ACCOUNTS,
    CONFIG,
    CONTEXT,
    RATES,
    SECRET,
    STATE,
    Access,
    by_admin_listener,
    session_cookie,
)
from mintoken.errors import Code, MintokenError
from mintoken.people import Member
from mintoken.sessions import member_of_key, member_of_session

LOG = structlog.get_logger()
SAFE = ("GET", "HEAD", "OPTIONS")
PAGES, SIGN_IN = "/dashboard", "/dashboard/sign-in"
FOR_MEMBERS = ("/api", PAGES)


async def let_in(request: web.Request) -> web.Response | None:
    """Raise MintokenError unless the caller may ask this route; on other listeners than the admin
    one there is no such. Who has to sign in first is answered with the way there.
    """
    ctx = request[CONTEXT]
    of_members = ctx.access is Access.SIGN_IN or ctx.access.role is not None
    here = by_admin_listener(request)
    named = request.path.startswith(FOR_MEMBERS)  # As its 405 would tell that a path is there.
    if ctx.access is Access.CLOSED or ((of_members or named) and not here):
        raise MintokenError(Code.NOT_FOUND)
    if of_members:
        if request.app[STATE].refusing:
            raise MintokenError(Code.SERVER_SHUTTING_DOWN, headers={"x-should-retry": "true"})
        ctx.member = await _member(request)
        if ctx.member is None and ctx.access.role and request.path.startswith(PAGES):
            return web.Response(status=303, headers={"Location": SIGN_IN})
        _check_role(ctx.access, ctx.member)
    return None


def note(request: web.Request, response: web.StreamResponse) -> None:
    """Log what a member changed."""
    ctx = request[CONTEXT]
    if ctx.member is not None and request.method not in SAFE:
        resource = request.match_info.route.resource
        LOG.info(
            "administered",
            id=ctx.id,
            user=ctx.member.user_id,
            method=request.method,
            route=resource.canonical if resource else "",
            status=response.status,
        )


def _check_role(access: Access, member: Member | None) -> None:
    needed = access.role
    if needed is None:
        return
    if member is None:
        raise MintokenError(Code.NOT_SIGNED_IN)
    if not member.role.includes(needed):
        raise MintokenError(
            Code.FORBIDDEN, f"It takes the role {needed.value}, and yours is {member.role.value}."
        )


async def _member(request: web.Request) -> Member | None:
    """Who asks; None if nobody says so. A wrong key is counted against its address, and refused."""
    app, ctx = request.app, request[CONTEXT]
    given = request.headers.getall("Authorization", ())
    if len(given) > 1:
        raise MintokenError(
            Code.DUPLICATE_HEADER, "Send Authorization once.", param="Authorization"
        )
    if given:
        scheme, _, token = given[0].partition(" ")
        store = app[ACCOUNTS].store
        member = await member_of_key(store, app[SECRET], token.strip())
        if scheme.lower() != "bearer" or member is None:
            app[RATES].fail(request.remote or "")
            raise MintokenError(Code.NOT_SIGNED_IN, "This is no admin key that is in use.")
        return member
    # A key cannot be sent without its owner's doing, a cookie can.
    if request.method not in SAFE and is_cross_site(request.headers):
        raise MintokenError(Code.FORBIDDEN, "The request comes from a page of another site.")
    options = app[CONFIG].admin
    cookie = request.cookies.get(session_cookie(options))
    if cookie is None:
        return None
    member = await member_of_session(
        app[ACCOUNTS].store, app[SECRET], cookie, options, now_ms=ctx.started_at
    )
    if member is None:
        app[RATES].fail(request.remote or "")
    return member


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Does a browser say that a page of another origin makes this request?

    Browsers say it by Sec-Fetch-Site where the connection is safe (TLS, or this machine), and by
    Origin with every unsafe method otherwise. A program that is no browser says neither.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None:
        return site != "same-origin"
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
