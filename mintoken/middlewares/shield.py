"""The headers that keep browsers safe on the admin listener, on every one of its answers."""

from aiohttp import web

from mintoken.context import by_admin_listener

SHIELD = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def shield(request: web.Request, response: web.StreamResponse) -> None:
    """Add them where the answer has no such header of its own; an `on_response_prepare` signal."""
    if by_admin_listener(request):
        for name, value in SHIELD.items():
            response.headers.setdefault(name, value)
