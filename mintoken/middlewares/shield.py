"""The headers that keep browsers safe on the admin listener, on every one of its answers."""

from aiohttp import web

from mintoken.context import CONTEXT, Access, by_admin_listener

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

# Others steer browsers, as Strict-Transport-Security does, and a provider does not steer this host.
OF_PROVIDER = frozenset(
    "connection content-encoding content-length content-type date retry-after server "
    "transfer-encoding x-accel-buffering x-should-retry".split()
)


async def shield(request: web.Request, response: web.StreamResponse) -> None:
    """Add them where the answer has no such header of its own; an `on_response_prepare` signal.

    Of what a provider answers to a member, no other headers than OF_PROVIDER stay.
    """
    if not by_admin_listener(request):
        return
    headers, ctx = response.headers, request.get(CONTEXT)
    if ctx is not None and ctx.access is Access.AS_KEY:
        for name in list(headers):
            if name.lower() not in OF_PROVIDER and not name.lower().startswith("x-mintoken-"):
                headers.popall(name, None)
    for name, value in SHIELD.items():
        headers.setdefault(name, value)
