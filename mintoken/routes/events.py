"""`GET /api/events`: settled usage rows as server-sent events."""

import msgspec
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from mintoken.context import ACCOUNTS, CLOCK, CONFIG, CONTEXT, FEED, PRICES, STATE
from mintoken.errors import Code, MintokenError
from mintoken.sessions import is_still_in
from mintoken.usage_shown import request_shown

RETRY_MS = 1000
"""What a browser waits until it connects again."""


async def events(request: web.Request) -> web.StreamResponse:
    """Each event has its place as `id`; `Last-Event-ID`, or `?after=`, goes on behind one.

    Without them it begins now. It ends when this worker leaves: whoever connects again gets the
    next one, and goes on. It ends, too, before it tells anything to who may not ask any more.
    """
    app, ctx = request.app, request[CONTEXT]
    feed, account_id = app[FEED], ctx.asking.account_id
    # Not what the feed last saw: another worker may have given him what came after that.
    newest = await app[ACCOUNTS].store.newest_place()
    asked = _place(request)
    place = newest if asked is None else min(asked, newest)
    response = EventSourceResponse()
    await response.prepare(request)
    ctx.response = response
    async with response:
        await response.send("{}", event="begin", id=str(place), retry=RETRY_MS)
        while not app[STATE].leaving and response.is_connected():
            found = await feed.after(place, account_id)
            if found and not await _may_go_on(request):
                break
            for settled in found:
                names = app[ACCOUNTS].directory.key_names(account_id)
                shown = msgspec.json.encode(request_shown(settled.row, names, app[PRICES]))
                await response.send(shown.decode(), id=str(settled.place))
                place = settled.place
    return response


async def _may_go_on(request: web.Request) -> bool:
    app, member = request.app, request[CONTEXT].asking
    return await is_still_in(app[ACCOUNTS].store, member, app[CONFIG].admin, now_ms=app[CLOCK]())


def _place(request: web.Request) -> int | None:
    """Where the listener was. Raises MintokenError `invalid_field`."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise MintokenError(
            Code.INVALID_FIELD,
            "Last-Event-ID, or 'after', is the id of an event that was received.",
            param="after",
        )
    return int(text)
