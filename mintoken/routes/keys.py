"""The keys of the member's account."""

from aiohttp import web

from mintoken import admin
from mintoken.context import ACCOUNTS, CONFIG, CONTEXT
from mintoken.errors import Code, MintokenError
from mintoken.models import Key
from mintoken.routes.base import current, given, taken
from mintoken.shapes import KeyChange, KeyCreate, KeyList, KeyRotation
from mintoken.shown import key_issued, key_shown


async def list_keys(request: web.Request) -> web.Response:
    """`GET /api/keys`."""
    ctx = request[CONTEXT]
    directory = await current(request)
    used = await request.app[ACCOUNTS].store.last_used(ctx.asking.account_id)
    return given(
        KeyList(
            data=[
                key_shown(key, now_ms=ctx.started_at, last_used_at=used.get(key.id))
                for key in directory.keys
                if key.account_id == ctx.asking.account_id
            ]
        )
    )


async def create_key(request: web.Request) -> web.Response:
    """`POST /api/keys`: a new key, shown this one time."""
    asked, ctx, app = await taken(request, KeyCreate), request[CONTEXT], request.app
    issued = await admin.create_key(
        app[ACCOUNTS].store,
        app[CONFIG].storage.data_dir,
        ctx.asking.account_id,
        asked.settings(),
        now_ms=ctx.started_at,
    )
    await app[ACCOUNTS].refresh()
    return given(key_issued(issued.key, issued.token, now_ms=ctx.started_at), status=201)


async def change_key(request: web.Request) -> web.Response:
    """`PATCH /api/keys/{id}`: what is given changes; a key that has ended does not."""
    asked, ctx, accounts = await taken(request, KeyChange), request[CONTEXT], request.app[ACCOUNTS]
    key = await own_key(request)
    changed = await admin.update_key(
        accounts.store, key.id, asked.settings(), now_ms=ctx.started_at
    )
    await accounts.refresh()
    return given(key_shown(changed, now_ms=ctx.started_at))


async def rotate_key(request: web.Request) -> web.Response:
    """`POST /api/keys/{id}/rotate`: a new key in its place, which still works for a while."""
    asked = await taken(request, KeyRotation) if request.body_exists else KeyRotation()
    ctx, app = request[CONTEXT], request.app
    key = await own_key(request)
    issued = await admin.rotate_key(
        app[ACCOUNTS].store,
        app[CONFIG].storage.data_dir,
        key.id,
        overlap_ms=asked.overlap_seconds * 1000,
        now_ms=ctx.started_at,
    )
    await app[ACCOUNTS].refresh()
    return given(key_issued(issued.key, issued.token, now_ms=ctx.started_at), status=201)


async def revoke_key(request: web.Request) -> web.Response:
    """`POST /api/keys/{id}/revoke`: it ends at once and for good."""
    ctx, accounts = request[CONTEXT], request.app[ACCOUNTS]
    key = await own_key(request)
    ended = await admin.revoke_key(accounts.store, key.id, now_ms=ctx.started_at)
    await accounts.refresh()
    return given(key_shown(ended, now_ms=ctx.started_at))


async def own_key(request: web.Request) -> Key:
    """The key of the path. Raises MintokenError `not_found` for another account's, too."""
    account_id, key_id = request[CONTEXT].asking.account_id, request.match_info["id"]
    for key in (await current(request)).keys:
        if key.id == key_id and key.account_id == account_id:
            return key
    raise MintokenError(Code.NOT_FOUND, "Your account has no key of this id.")
