"""What was saved, measured against the control arm, for programs."""

import asyncio
from datetime import UTC, datetime

import orjson
from aiohttp import web

from mintoken import statement
from mintoken.context import ACCOUNTS, CONTEXT, PRICES
from mintoken.documents import stop_documents
from mintoken.errors import Code, MintokenError
from mintoken.savings import report


async def usage_savings(request: web.Request) -> web.Response:
    """`GET /api/savings`, with `?since=2026-11-01` from that time on (UTC)."""
    app, account_id = request.app, request[CONTEXT].asking.account_id
    since = request.query.get("since", "")
    directory, prices = app[ACCOUNTS].directory, app[PRICES]
    keys = [key for key in directory.keys if key.account_id == account_id]
    samples = await app[ACCOUNTS].store.samples(since_ms=_ms(since), account_id=account_id)
    share = max((key.control for key in keys), default=0) / 100
    found = await asyncio.to_thread(
        lambda: statement.document(report(samples, prices, control_share=share), prices)
    )
    found |= {"since": since or None, "stopped": stop_documents(directory, keys)}
    return web.Response(body=orjson.dumps(found), content_type="application/json")


def _ms(since: str) -> int:
    if not since:
        return 0
    try:
        time = datetime.fromisoformat(since)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        return max(0, int(time.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise MintokenError(
            Code.INVALID_PARAMETER, "since: Use ISO 8601 in UTC, as 2026-11-26.", param="since"
        ) from None
