"""The headers that every answer gets, stamped when its head is prepared."""

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from mintoken.context import CONFIG, CONTEXT, STATE


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Add Mintoken's response headers (contract §3); an `on_response_prepare` signal."""
    ctx = request.get(CONTEXT)
    if ctx is None:
        return
    headers = response.headers
    if headers.get("Server") == SERVER_SOFTWARE:
        headers["Server"] = "mintoken"
    headers["X-Mintoken-Request-Id"] = ctx.id
    headers["X-Mintoken-Duration-Ms"] = str(ctx.elapsed_ms())
    if ctx.decision is not None:
        headers["X-Mintoken-Intensity"] = ctx.decision.intensity
        headers["X-Mintoken-Reason"] = ctx.decision.reason
    if ctx.error is not None:
        headers["X-Mintoken-Error"] = ctx.error.code
    month = ctx.month
    if month is not None and month.limit:
        notice_at = request.app[CONFIG].quota.notice_at * month.limit
        if month.used >= notice_at or not month.admitted:
            headers["X-Mintoken-Tokens-Used"] = str(month.used)
            headers["X-Mintoken-Tokens-Limit"] = str(month.limit)
    if request.app[STATE].leaving:
        response.force_close()
        headers["Connection"] = "close"
