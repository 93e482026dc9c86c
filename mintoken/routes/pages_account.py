"""The page of the account: its quota, and who may sign in to it."""

from aiohttp import web

from mintoken import admin, members
from mintoken.clock import utc_text
from mintoken.context import ACCOUNTS, CLOCK, CONTEXT, PASSWORDS
from mintoken.errors import NameTakenError
from mintoken.pages import account_of, back_to, page
from mintoken.passwords import SHORTEST, wrong_with
from mintoken.people import Role
from mintoken.routes import accounts
from mintoken.routes.base import form_of, whole_number


async def show(request: web.Request) -> web.Response:
    """`GET /dashboard/account`."""
    return await _page(request)


async def change_quota(request: web.Request) -> web.Response:
    """`POST /dashboard/account/quota`."""
    known, most = request.app[ACCOUNTS], admin.MONTHLY_TOKENS_LIMIT
    tokens = whole_number((await form_of(request)).get("monthly_tokens", ""), most=most)
    if tokens is None:
        return await _page(request, problem=f"The quota is a whole number from 0 to {most:,}.")
    await admin.update_account(known.store, account_of(request).id, monthly_tokens=tokens)
    await known.refresh()
    return back_to("/dashboard/account")


async def add_member(request: web.Request) -> web.Response:
    """`POST /dashboard/account/members`."""
    app, form = request.app, await form_of(request)
    password, role = form.get("password", ""), form.get("role", "")
    if problem := wrong_with(password):
        return await _page(request, problem=problem)
    if role not in [*Role]:
        return await _page(request, problem=f"The role is one of {', '.join(Role)}.")
    try:
        await members.create_user(
            app[ACCOUNTS].store,
            account_of(request).id,
            form.get("name", ""),
            Role(role),
            password_hash=await app[PASSWORDS].hash(password),
            now_ms=app[CLOCK](),
        )
    except (admin.RefusedError, NameTakenError) as error:
        return await _page(request, problem=str(error))
    return back_to("/dashboard/account")


async def remove_member(request: web.Request) -> web.Response:
    """`POST /dashboard/account/members/{id}/remove`: he is signed out at once."""
    try:
        await accounts.remove_member(request)
    except admin.RefusedError as error:
        return await _page(request, problem=str(error))
    return back_to("/dashboard/account")


async def _page(request: web.Request, *, problem: str = "") -> web.Response:
    asking, store = request[CONTEXT].asking, request.app[ACCOUNTS].store
    # Others are not told who may sign in, as by `/api/members`.
    is_owner = asking.role is Role.OWNER
    users = await store.users(account_id=asking.account_id) if is_owner else []
    return await page(
        request,
        "account.html",
        members=[
            {
                "id": user.id,
                "name": user.name,
                "role": user.role.value,
                "created_at": utc_text(user.created_at),
            }
            for user in users
        ],
        is_owner=is_owner,
        roles=[role.value for role in reversed(Role)],  # The least first.
        password_length=SHORTEST,
        problem=problem,
        status=400 if problem else 200,
    )
