"""The outermost: the request gets its id, its clock and its route's access level."""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mintoken.context import ACCESS, CLOCK, CONTEXT, STATE, Access, RequestContext, request_id

LOG = structlog.get_logger()


@web.middleware
async def context(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its context, and log how it was answered unless the ledger's end does."""
    app, match = request.app, request.match_info
    now_ms = app[CLOCK]()
    access = Access.OPEN if match.http_exception else app[ACCESS].get(match.handler)
    ctx = RequestContext(request_id(now_ms), access or Access.CLOSED, now_ms)
    request[CONTEXT] = ctx
    state = app[STATE]
    state.in_flight += 1
    status = 0
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        state.in_flight -= 1
        state.buffered_bytes -= ctx.buffered_bytes
        if ctx.reservation is None and (ctx.access is Access.KEY or ctx.error):
            LOG.info(
                "request",
                id=ctx.id,
                key=ctx.owner.key.id if ctx.owner else None,
                status=status,
                code=ctx.error.code if ctx.error else None,
                ms=ctx.elapsed_ms(),
            )
