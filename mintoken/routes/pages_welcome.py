"""The page behind the link of the very first start: it makes the first owner, once."""

from aiohttp import web

from mintoken.admin import RefusedError, usable_name
from mintoken.context import ACCOUNTS, CONTEXT, PASSWORDS, RATES, SECRET
from mintoken.errors import MintokenError
from mintoken.members import create_first_owner, is_invited
from mintoken.pages import back_to, page
from mintoken.passwords import SHORTEST, wrong_with
from mintoken.people import User
from mintoken.routes.base import form_of
from mintoken.routes.session import begin_session

OVER = "This link does not work any more, or never did."


async def show(request: web.Request) -> web.Response:
    """`GET /dashboard/welcome/{token}`: to look does not use it up."""
    return await _refusal(request) or await _page(request)


async def create(request: web.Request) -> web.Response:
    """`POST /dashboard/welcome/{token}`: the first owner is made, and signed in."""
    if (refusal := await _refusal(request)) is not None:
        return refusal
    form = await form_of(request)
    name, password = form.get("name", ""), form.get("password", "")
    if problem := wrong_with(password):
        return await _page(request, name, problem=problem)
    try:
        owner = await _owner(request, name, password)
    except RefusedError as error:
        return await _page(request, name, problem=str(error))
    if owner is None:
        return await _over(request)
    response = back_to("/dashboard")
    await begin_session(request, response, owner)
    return response


async def _refusal(request: web.Request) -> web.Response | None:
    """The answer unless the link works; who tries many is held up as at signing in."""
    app, token = request.app, request.match_info["token"]
    try:
        app[RATES].attempt(token, request.remote or "")
    except MintokenError as error:
        status = error.code.status
        return await page(request, "sign_in.html", problem=error.message, status=status)
    now_ms = request[CONTEXT].started_at
    good = await is_invited(app[ACCOUNTS].store, app[SECRET], token, now_ms=now_ms)
    return None if good else await _over(request)


async def _owner(request: web.Request, name: str, password: str) -> User | None:
    """The owner; of several who come by the link at once, only one. Raises RefusedError."""
    app = request.app
    return await create_first_owner(
        app[ACCOUNTS].store,
        app[SECRET],
        request.match_info["token"],
        usable_name(name),
        password_hash=await app[PASSWORDS].hash(password),
        now_ms=request[CONTEXT].started_at,
    )


async def _page(request: web.Request, name: str = "", *, problem: str = "") -> web.Response:
    return await page(
        request,
        "welcome.html",
        name=name,
        password_length=SHORTEST,
        problem=problem,
        status=400 if problem else 200,
    )


async def _over(request: web.Request) -> web.Response:
    return await page(request, "sign_in.html", problem=OVER, status=404)
