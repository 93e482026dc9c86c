"""Signing in and out, and who asks."""

import structlog
from aiohttp import web

from mintoken.admin import find_account
from mintoken.context import (
    ACCOUNTS,
    CONFIG,
    CONTEXT,
    PASSWORDS,
    RATES,
    SECRET,
    session_cookie,
)
from mintoken.errors import Code, MintokenError
from mintoken.people import Member, User
from mintoken.routes.base import current, given, taken
from mintoken.sessions import open_session
from mintoken.shapes import Me, PasswordChange, SignIn
from mintoken.shown import me

LOG = structlog.get_logger()


async def login(request: web.Request) -> web.Response:
    """`POST /api/login`: a good name and password open a session, always a new one."""
    asked = await taken(request, SignIn)
    user = await user_of(request, asked.name.strip(), asked.password)
    response = given(await _me(request, Member(user.id, user.name, user.role, user.account_id)))
    await begin_session(request, response, user)
    return response


async def logout(request: web.Request) -> web.Response:
    """`POST /api/logout`: the session is over, if there was one."""
    response = web.Response(status=204)
    await end_session(request, response)
    return response


async def who(request: web.Request) -> web.Response:
    """`GET /api/me`."""
    return given(await _me(request, request[CONTEXT].asking))


async def change_password(request: web.Request) -> web.Response:
    """`POST /api/me/password`: ends his sessions but this one, which gets a new id."""
    asked, ctx, app = await taken(request, PasswordChange), request[CONTEXT], request.app
    if not ctx.asking.session_id:
        raise MintokenError(Code.FORBIDDEN, "An admin key has no password.")
    user = await user_of(request, ctx.asking.name, asked.current_password)
    password_hash = await app[PASSWORDS].hash(asked.new_password)
    await app[ACCOUNTS].store.set_password(user.id, password_hash)
    response = web.Response(status=204)
    await begin_session(request, response, user)
    return response


async def user_of(request: web.Request, name: str, password: str) -> User:
    """The user of this name and password.

    Raises MintokenError `invalid_login`, after as much work if there is no such user, and
    `rate_limit_exceeded`.
    """
    app = request.app
    app[RATES].attempt(name, request.remote or "")
    found = await app[ACCOUNTS].store.users(name=name)
    user = found[0] if found else None
    good = await app[PASSWORDS].check(password, user.password_hash if user else None)
    if user is None or not good:
        raise MintokenError(Code.INVALID_LOGIN)
    return user


async def begin_session(request: web.Request, response: web.Response, user: User) -> None:
    """Open a session in place of the one that the browser may have, and hand it over."""
    app, ctx = request.app, request[CONTEXT]
    store, options = app[ACCOUNTS].store, app[CONFIG].admin
    if ctx.member is not None and ctx.member.session_id:
        await store.close_session(ctx.member.session_id)
    token = await open_session(store, app[SECRET], user, options, now_ms=ctx.started_at)
    response.set_cookie(
        session_cookie(options),
        token,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=options.tls,
    )
    LOG.info("signed_in", id=ctx.id, user=user.id)


async def end_session(request: web.Request, response: web.Response) -> None:
    """Close the session of this request, and have the browser forget it."""
    member, options = request[CONTEXT].member, request.app[CONFIG].admin
    if member is not None and member.session_id:
        await request.app[ACCOUNTS].store.close_session(member.session_id)
    response.del_cookie(
        session_cookie(options), path="/", httponly=True, samesite="Strict", secure=options.tls
    )


async def _me(request: web.Request, member: Member) -> Me:
    directory = await current(request)
    return me(member, find_account(directory, member.account_id))
