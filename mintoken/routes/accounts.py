"""The member's own account, and who else may sign in to it."""

from aiohttp import web

from mintoken.admin import RefusedError, find_account, update_account
from mintoken.context import ACCOUNTS, CONTEXT, PASSWORDS
from mintoken.errors import Code, MintokenError
from mintoken.members import create_user
from mintoken.routes.base import current, given, taken
from mintoken.shapes import AccountChange, MemberCreate, MemberList
from mintoken.shown import account_shown, member_shown


async def show_account(request: web.Request) -> web.Response:
    """`GET /api/account`."""
    directory = await current(request)
    return given(account_shown(find_account(directory, request[CONTEXT].asking.account_id)))


async def change_account(request: web.Request) -> web.Response:
    """`PATCH /api/account`: its monthly quota."""
    asked, accounts = await taken(request, AccountChange), request.app[ACCOUNTS]
    changed = await update_account(
        accounts.store,
        request[CONTEXT].asking.account_id,
        monthly_tokens=asked.monthly_tokens,
    )
    await accounts.refresh()
    return given(account_shown(changed))


async def list_members(request: web.Request) -> web.Response:
    """`GET /api/members`."""
    account_id = request[CONTEXT].asking.account_id
    users = await request.app[ACCOUNTS].store.users(account_id=account_id)
    return given(MemberList(data=[*map(member_shown, users)]))


async def create_member(request: web.Request) -> web.Response:
    """`POST /api/members`: somebody who may sign in from now on."""
    asked, ctx = await taken(request, MemberCreate), request[CONTEXT]
    user = await create_user(
        request.app[ACCOUNTS].store,
        ctx.asking.account_id,
        asked.name,
        asked.role,
        password_hash=await request.app[PASSWORDS].hash(asked.password),
        now_ms=ctx.started_at,
    )
    return given(member_shown(user), status=201)


async def remove_member(request: web.Request) -> web.Response:
    """`DELETE /api/members/{id}`: he is signed out at once."""
    store = request.app[ACCOUNTS].store
    users = await store.users(account_id=request[CONTEXT].asking.account_id)
    found = [one for one in users if one.id == request.match_info["id"]]
    if not found:
        raise MintokenError(Code.NOT_FOUND, "Your account has no member of this id.")
    if not await store.remove_user(found[0].id, keep_an_owner=True):
        raise RefusedError("He is the account's last owner. Make another one first.")
    return web.Response(status=204)
