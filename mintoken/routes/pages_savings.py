"""The page of savings: arms, intervals, money, and how it was computed."""

from datetime import UTC, datetime

from aiohttp import web

from mintoken import admin, documents, statement
from mintoken.context import ACCOUNTS, CLOCK, PRICES
from mintoken.pages import back_to, keys_of, page
from mintoken.routes.base import saved_by
from mintoken.savings import Status

SHARE = 10
"""Percent of the conversations that one click leaves as they are."""


async def savings(request: web.Request) -> web.Response:
    """`GET /dashboard/savings`, with `?since=2026-11-01` from that day on."""
    app, keys, since = request.app, keys_of(request), request.query.get("since", "")
    problem = ""
    try:
        since_ms = int(datetime.fromisoformat(since).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        since_ms, problem = 0, "Give the day like 2026-11-01." if since else ""
    found = await saved_by(request, since_ms=since_ms)
    stops = documents.stop_documents(app[ACCOUNTS].directory, keys)
    key_ref = keys[0].name if keys else "KEY"
    return page(
        request,
        "savings.html",
        since=since,
        columns=statement.COLUMNS,
        rows=[statement.row(line) for line in (*found.lines, found.total)],
        sentences=[*statement.sentences(found, app[PRICES], key=key_ref, stops=stops)],
        unmeasured=found.total.status is Status.NOT_MEASURED and bool(keys),
        problem=problem,
    )


async def measure(request: web.Request) -> web.Response:
    """`POST /dashboard/savings/measure`: give every key in use a control arm that has none."""
    app, settings = request.app, admin.KeySettings(control=SHARE)
    for key in keys_of(request):
        if key.revoked_at is None and not key.control and not key.concise:
            await admin.update_key(app[ACCOUNTS].store, key.id, settings, now_ms=app[CLOCK]())
    await app[ACCOUNTS].refresh()
    return back_to("/dashboard/savings")
