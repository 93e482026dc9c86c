"""The playground: one prompt, asked without a level and with each, the answers side by side."""

from aiohttp import web

from mintoken.admin import state
from mintoken.context import CLOCK, PRICES
from mintoken.models import Intensity
from mintoken.pages import keys_of, page


async def playground(request: web.Request) -> web.Response:
    """`GET /dashboard/playground`: the page asks by `/api/keys/{id}/playground`."""
    now_ms, prices = request.app[CLOCK](), request.app[PRICES]
    return await page(
        request,
        "playground.html",
        keys=[key for key in keys_of(request) if state(key, now_ms=now_ms) == "active"],
        levels=[level.value for level in Intensity],
        models=sorted(prices),
    )
