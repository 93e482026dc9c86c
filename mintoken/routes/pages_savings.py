"""The page of savings: arms, intervals, money, and how it was computed."""

from dataclasses import asdict

from aiohttp import web

from mintoken import admin, documents, statement
from mintoken.context import ACCOUNTS, CLOCK, PRICES
from mintoken.pages import back_to, keys_of, page
from mintoken.routes.base import saved_by
from mintoken.savings import Status

SHARE = 10
"""Percent of the conversations that one click leaves as they are."""


async def savings(request: web.Request) -> web.Response:
    """`GET /dashboard/savings`."""
    app, keys, found = request.app, keys_of(request), await saved_by(request)
    stops = documents.stop_documents(app[ACCOUNTS].directory, keys)
    key_ref = keys[0].id if keys else "KEY"
    return await page(
        request,
        "savings.html",
        columns=statement.COLUMNS,
        rows=[statement.row(line) for line in (*found.lines, found.total)],
        arms=[asdict(one) for one in found.arms],
        sentences=[*statement.sentences(found, app[PRICES], key=key_ref, stops=stops)],
        unmeasured=found.total.status is Status.NOT_MEASURED and bool(keys),
    )


async def measure(request: web.Request) -> web.Response:
    """`POST /dashboard/savings/measure`: give every key in use a control arm that has none."""
    app, settings = request.app, admin.KeySettings(control=SHARE)
    for key in keys_of(request):
        if key.revoked_at is None and not key.control and not key.concise:
            await admin.update_key(app[ACCOUNTS].store, key.id, settings, now_ms=app[CLOCK]())
    await app[ACCOUNTS].refresh()
    return back_to("/dashboard/savings")
