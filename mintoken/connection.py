"""The hardened connection: errors in JSON, nothing of a request in a log, and deadlines."""

import asyncio

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from mintoken import logs
from mintoken.config import Config
from mintoken.errors import Code, MintokenError
from mintoken.middlewares.errors import error_response

HEADER_LIMIT = 8190
"""Bytes of one header line."""
KEEP_ALIVE_S = 75.0


class Connection(web.RequestHandler):
    """One connection: errors in JSON, nothing of a request in a log, and deadlines."""

    __slots__ = ("_config", "_header_begun", "_header_timer", "_write_timer")

    def __init__(self, server: web.Server, config: Config) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=2.0,
            auto_decompress=False,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
        )
        self._config = config.server
        self._header_begun = False
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._header_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._header_begun = bool(data) and not self._messages and self._current_request is None
        if not self._header_begun:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._await_headers()

    def _await_headers(self) -> None:
        self._header_timer = self._loop.call_later(
            self._config.header_timeout, self._headers_overdue
        )

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_overdue(self) -> None:
        """Answer 408 to a request whose headers never came to their end; RFC 9110 §15.5.9."""
        self._header_timer = None
        if self.transport is not None:
            body = error_response(MintokenError(Code.REQUEST_TIMEOUT)).body
            assert isinstance(body, bytes)
            head = (
                "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                f"X-Mintoken-Error: {Code.REQUEST_TIMEOUT.code}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.force_close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self._loop.call_later(self._config.write_timeout, self._write_stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _write_stalled(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if self._current_request is None and not self._messages and not self._header_begun:
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, without echoing any of it; the connection is closed."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        match exc:
            case LineTooLong():
                code = Code.HEADER_TOO_LARGE
            case BadHttpMessage():
                code = Code.BAD_REQUEST
            case _:
                code = Code.BAD_REQUEST if status == 400 else Code.INTERNAL_ERROR
        if code is Code.INTERNAL_ERROR:
            self.log_exception(exc_info=exc)
        response = error_response(MintokenError(code))
        response.headers["X-Mintoken-Error"] = code.code
        response.headers["Server"] = "mintoken"
        response.force_close()
        return response

    def log_exception(self, *args: object, **kwargs: object) -> None:
        """Log where it failed; aiohttp's own text may quote headers."""
        error = kwargs.get("exc_info")
        where = logs.frames(error) if isinstance(error, BaseException) else ""
        structlog.get_logger().error("connection_error", error=where)
