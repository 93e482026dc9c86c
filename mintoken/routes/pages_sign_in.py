"""The page to sign in with, and the button to sign out."""

from aiohttp import web

from mintoken.context import CONTEXT
from mintoken.errors import MintokenError
from mintoken.pages import back_to, page
from mintoken.routes.base import form_of
from mintoken.routes.session import begin_session, end_session, user_of


async def show(request: web.Request) -> web.Response:
    """`GET /dashboard/sign-in`."""
    return back_to("/dashboard") if request[CONTEXT].member else await page(request, "sign_in.html")


async def sign_in(request: web.Request) -> web.Response:
    """`POST /dashboard/sign-in`."""
    form = await form_of(request)
    try:
        user = await user_of(request, form.get("name", "").strip(), form.get("password", ""))
    except MintokenError as error:
        status = error.code.status
        return await page(request, "sign_in.html", problem=error.message, status=status)
    response = back_to("/dashboard")
    await begin_session(request, response, user)
    return response


async def sign_out(request: web.Request) -> web.Response:
    """`POST /dashboard/sign-out`."""
    response = back_to("/dashboard/sign-in")
    await end_session(request, response)
    return response
