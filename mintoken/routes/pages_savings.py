"""The page of savings: arms, intervals, money, and how it was computed."""

import asyncio
from datetime import UTC, datetime

from aiohttp import web

from mintoken import admin, documents, statement
from mintoken.context import ACCOUNTS, CLOCK, CONTEXT, PRICES
from mintoken.pages import back_to, keys_of, page
from mintoken.savings import Status, report

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
    prices = app[PRICES]
    samples = await app[ACCOUNTS].store.samples(
        since_ms=since_ms, account_id=request[CONTEXT].asking.account_id
    )
    share = max((key.control for key in keys), default=0) / 100
    found = await asyncio.to_thread(report, samples, prices, control_share=share)
    sentences = [*statement.sentences(found, prices, key=keys[0].name if keys else "KEY")]
    sentences += [
        "It does not pay, so it is stopped since {since}: {key} on {model}.".format(**stop)
        for stop in documents.stop_documents(app[ACCOUNTS].directory, keys)
    ]
    return page(
        request,
        "savings.html",
        since=since,
        columns=statement.COLUMNS,
        rows=[statement.row(line) for line in (*found.lines, found.total)],
        sentences=sentences,
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
