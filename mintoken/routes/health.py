"""Is it alive, and may traffic be sent to it."""

from aiohttp import web

from mintoken.context import LEDGER, STATE, TOKENIZER


async def healthz(request: web.Request) -> web.Response:
    """200 while the process runs."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """200 when requests can be served, 503 with the reasons otherwise."""
    app = request.app
    reasons = [
        reason
        for reason, holds in (
            ("draining", app[STATE].draining),
            ("storage_unavailable", not app[LEDGER].healthy),
            ("tokenizer_unavailable", not app[TOKENIZER].ready),
        )
        if holds
    ]
    if reasons:
        return web.json_response({"status": "unavailable", "reasons": reasons}, status=503)
    return web.json_response({"status": "ready"})
