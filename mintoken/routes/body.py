"""The caller's request body: checked before it is read, bounded while it is."""

import asyncio
from dataclasses import dataclass, replace

from aiohttp import web
from aiohttp.http import HttpVersion11

from mintoken.config import ServerConfig
from mintoken.context import CONFIG, CONTEXT, STATE, RequestContext, ServerState
from mintoken.errors import Code, MintokenError

JSON = "application/json"


async def expect(request: web.Request) -> None:
    """Take `Expect: 100-continue` without answering yet: authentication comes first."""


async def read_body(
    request: web.Request, *, media_type: str = JSON, at_most: int | None = None
) -> list[bytes]:
    """The whole body of a request whose headers promise this type, in the pieces that it came in.

    `at_most` bytes, or `server.max_body_bytes` if that is less.

    Raises MintokenError `unsupported_media_type`, `unsupported_content_encoding`,
    `request_too_large`, `request_timeout` or `overloaded`.
    """
    app = request.app
    config = app[CONFIG]
    _check_headers(request, media_type)
    limits = config.server
    if at_most is not None:
        limits = replace(limits, max_body_bytes=min(at_most, limits.max_body_bytes))
    if (request.content_length or 0) > limits.max_body_bytes:
        raise _too_large(limits)
    # RFC 9110 §10.1.1: an expectation in HTTP/1.0 is ignored.
    expects = request.headers.get("Expect") and request.version == HttpVersion11
    if expects and request.body_exists:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    held = _Held(request[CONTEXT], app[STATE], limits)
    if request.content.is_eof():  # It came with its head, as small ones do.
        return [held.take(request.content.read_nowait())]
    try:
        async with asyncio.timeout(config.server.body_timeout):
            return [held.take(chunk) async for chunk in request.content.iter_any()]
    except TimeoutError:
        raise MintokenError(Code.REQUEST_TIMEOUT, headers={"Connection": "close"}) from None


def _check_headers(request: web.Request, media_type: str) -> None:
    given, _, parameters = request.headers.get("Content-Type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if given.strip().lower() != media_type or charset not in ("", "charset=utf-8"):
        raise MintokenError(Code.UNSUPPORTED_MEDIA_TYPE, f"Send 'Content-Type: {media_type}'.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise MintokenError(Code.UNSUPPORTED_CONTENT_ENCODING)


@dataclass(slots=True)
class _Held:
    """Keeps account of a body in memory."""

    ctx: RequestContext
    state: ServerState
    limits: ServerConfig

    def take(self, chunk: bytes) -> bytes:
        """The chunk, if there is room for it."""
        self.ctx.buffered_bytes += len(chunk)
        self.state.buffered_bytes += len(chunk)
        if self.ctx.buffered_bytes > self.limits.max_body_bytes:
            raise _too_large(self.limits)
        if self.state.buffered_bytes > self.limits.max_buffered_bytes:
            raise MintokenError(Code.OVERLOADED, headers={"x-should-retry": "true"})
        return chunk


def _too_large(limits: ServerConfig) -> MintokenError:
    return MintokenError(Code.REQUEST_TOO_LARGE, f"The limit is {limits.max_body_bytes} bytes.")
