"""The hardened connection: errors in JSON, nothing of a request in a log, and deadlines."""

import asyncio
import re
import resource
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.http import HttpRequestParser, HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.http_parser import HttpRequestParserPy
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from mintoken import logs
from mintoken.config import Config
from mintoken.errors import Code, ConfigError, MintokenError
from mintoken.middlewares.errors import error_response
from mintoken.middlewares.shield import SHIELD

HEADER_LIMIT = 8190
"""Bytes of one header line."""
KEEP_ALIVE_S = 75.0
LINGER_S = 1.0
"""Seconds in which a caller can read why its connection was refused."""
SPARE_FILES = 64
"""Open files that are not connections: database, locks, logs, pipes."""
C_PARSER = HttpRequestParser is not HttpRequestParserPy
_HOST = re.compile(r"[A-Za-z0-9._~%-]+(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")


def require_c_parser() -> None:
    """Raise ConfigError if aiohttp parses HTTP in Python, which is slow and less tested."""
    if not C_PARSER:
        raise ConfigError(
            [
                "aiohttp runs without its parser in C. Install its binary wheel "
                "(pip install --force-reinstall --only-binary aiohttp aiohttp), and unset "
                "AIOHTTP_NO_EXTENSIONS."
            ]
        )


@dataclass(slots=True)
class Crowd:
    """How many connections this process takes, and whether it has to refuse some just now."""

    limit: int
    refuses: bool = False

    def admits(self, present: int) -> bool:
        """May the last of so many stay? Logs when that changes, not each time."""
        fits = present <= self.limit
        if not fits and not self.refuses:
            self.refuses = True
            structlog.get_logger().warning("too_many_connections", allowed=self.limit)
        elif self.refuses and present <= self.limit * 0.9:
            self.refuses = False
            structlog.get_logger().info("connections_admitted", allowed=self.limit)
        return fits


def crowd_of(config: Config) -> Crowd:
    """As many as `max_connections`, if this process may open two files for each.

    Raises ConfigError if it may not open enough for a single one.
    """
    wanted = config.server.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(wanted, (files - SPARE_FILES) // 2)
    if limit < 1:
        raise ConfigError([f"The limit of open files is {files}; raise it (ulimit -n) to 1024."])
    if limit < wanted:
        structlog.get_logger().warning(
            "few_open_files", files=files, connections=limit, max_connections=wanted
        )
    return Crowd(limit)


def refusal(message: RawRequestMessage) -> Code | None:
    """Why a head that aiohttp's parser lets pass is refused, None if it is not.

    Nobody may be able to read a request in two ways: no versions but HTTP/1, no targets that name a
    host or hold a fragment, no hosts that are none (RFC 9112 §3.2), no codings beside chunked
    (§6.1). Expectations are met or refused before any route is looked for.
    """
    headers = message.headers
    if (
        message.version not in (HttpVersion10, HttpVersion11)
        or not message.path.startswith("/")
        or "#" in message.path
        or _HOST.fullmatch(headers.get("Host", "x")) is None
        or headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked"
    ):
        return Code.BAD_REQUEST
    if headers.get("Expect", "100-continue").lower() != "100-continue":
        return Code.EXPECTATION_FAILED
    return None


class Connection(web.RequestHandler):
    """One connection: errors in JSON, nothing of a request in a log, and deadlines."""

    __slots__ = (
        "_body", "_config", "_crowd", "_header_begun", "_header_timer", "_wire", "_write_timer",
        "is_admin",
    )  # fmt: skip

    def __init__(
        self, server: web.Server, config: Config, crowd: Crowd, *, is_admin: bool = False
    ) -> None:
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
        self.is_admin = is_admin
        """Did it come by the admin listener?"""
        self._config = config.server
        self._crowd = crowd
        self._body = EMPTY_PAYLOAD
        self._header_begun = False
        self._wire: asyncio.Transport | None = None
        """The transport until it is really gone; aiohttp forgets it when it asks it to close."""
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = self.transport
        assert self._manager is not None
        if self._crowd.admits(len(self._manager.connections)):
            self._await_headers()
        else:
            self._say(Code.OVERLOADED)
            self._force_close = True
            self._header_timer = self._loop.call_later(LINGER_S, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._header_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        known, in_a_body = len(self._messages), not self._body.is_eof()
        super().data_received(data)
        for place in range(known, len(self._messages)):
            message, self._body = self._messages[place]
            if not isinstance(message, _ErrInfo) and (code := refusal(message)):
                self._messages[place] = _ErrInfo(400, MintokenError(code), ""), EMPTY_PAYLOAD
        # The rest of a body, whose request was answered before it came, is no new request.
        waiting = not self._messages and self._current_request is None
        self._header_begun = bool(data) and waiting and not in_a_body
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
        self._say(Code.REQUEST_TIMEOUT)
        self.force_close()

    def _say(self, code: Code) -> None:
        """Write an error without a request that it would answer."""
        if self.transport is None:
            return
        response = error_response(MintokenError(code))
        assert isinstance(response.body, bytes)
        lines = [f"HTTP/1.1 {code.status} {response.reason}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        lines += [f"Content-Length: {len(response.body)}", "Connection: close"]
        lines += [f"X-Mintoken-Error: {code.code}"]
        if self.is_admin:
            lines += [f"{name}: {value}" for name, value in SHIELD.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + response.body)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        if self._reading_paused:  # As in upstream._Connection.
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self._loop.call_later(self._config.write_timeout, self._write_stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _write_stalled(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    async def start(self) -> None:
        """Serve the requests of this connection, as aiohttp does; then let it go."""
        try:
            await super().start()
        finally:
            self._let_go()

    def force_close(self) -> None:
        """Close once what was written is read."""
        super().force_close()
        self._let_go()

    def _let_go(self) -> None:
        """What is closed waits for its last bytes to be read: not for ever."""
        if self._wire is not None and self._write_timer is None:
            self._write_timer = self._loop.call_later(
                self._config.write_timeout, self._write_stalled
            )

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
            case MintokenError():
                code = exc.code
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
        if self.is_admin:
            response.headers.update(SHIELD)
        response.force_close()
        return response

    def log_exception(self, *args: object, **kwargs: object) -> None:
        """Log where it failed; aiohttp's own text may quote headers."""
        error = kwargs.get("exc_info")
        where = logs.frames(error) if isinstance(error, BaseException) else ""
        structlog.get_logger().error("connection_error", error=where)
