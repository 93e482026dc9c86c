"""Listeners, the hardened connection, and a drain that loses nothing."""

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import uvloop
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from mintoken import logs
from mintoken.app import build_app
from mintoken.clock import utc_ms
from mintoken.config import Address, Config
from mintoken.context import STATE, UPSTREAM, Clock
from mintoken.errors import Code, MintokenError
from mintoken.middlewares.errors import error_response

HEADER_LIMIT = 8190
"""Bytes of one header line."""
KEEP_ALIVE_S = 75.0
LAST_WORDS_S = 5.0
"""Seconds for the streams that outlived `drain_timeout` to send their error event."""


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


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses that a server really listens on."""

    public: Address
    admin: Address


class Server:
    """One process's listeners over one application."""

    def __init__(self, config: Config, sockets: Sequence[socket.socket], *, clock: Clock) -> None:
        self._config = config
        self._sockets = sockets
        self._app = build_app(config, clock=clock)
        self._runner = web.AppRunner(
            self._app, handler_cancellation=True, access_log=None, shutdown_timeout=LAST_WORDS_S
        )
        self._listeners: list[asyncio.Server] = []

    async def start(self) -> Listening:
        """Open everything and take connections. Raises ConfigError, StorageError."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._listeners.append(await loop.create_server(self._connection, sock=sock))
        bound = [Address(*sock.getsockname()[:2]) for sock in self._sockets]
        return Listening(bound[0], bound[-1])

    def _connection(self) -> Connection:
        assert self._runner.server is not None
        return Connection(self._runner.server, self._config)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Take nothing new and let what runs finish; what has not by the end is told so.

        The end is after `drain_timeout` seconds, or when `hurry` is set.
        """
        state, timeout = self._app[STATE], self._config.server.drain_timeout
        state.draining = True
        structlog.get_logger().info("draining", requests=state.in_flight, up_to_s=timeout)
        for listener in self._listeners:
            listener.close()
        self._close_idle()
        if not await self._idle_within(timeout, hurry):
            structlog.get_logger().warning("drain_cut_short", requests=state.in_flight)
            self._app[UPSTREAM].interrupt()
            await self._idle_within(LAST_WORDS_S, asyncio.Event())

    def _close_idle(self) -> None:
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if isinstance(connection, Connection):
                connection.close_if_idle()

    async def _idle_within(self, seconds: float, hurry: asyncio.Event) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._app[STATE].in_flight:
            if loop.time() >= deadline or hurry.is_set():
                return False
            await asyncio.sleep(0.02)
        return True

    async def close(self) -> None:
        """Close every connection, settle what is left and close the store."""
        for listener in self._listeners:
            listener.close()
        for sock in self._sockets:
            sock.close()
        await self._runner.cleanup()


def bind(config: Config) -> list[socket.socket]:
    """The listening sockets, the public one first. Raises OSError."""
    wanted = dict.fromkeys((config.server.listen, config.server.admin_listen))
    return [_bind(address) for address in wanted]


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=1024)


@asynccontextmanager
async def running(
    config: Config,
    *,
    sockets: Sequence[socket.socket] = (),
    clock: Clock = utc_ms,
    hurry: asyncio.Event | None = None,
) -> AsyncIterator[Listening]:
    """A server in this process, drained and closed on the way out; `hurry` cuts the drain short.

    Without `sockets` it binds its own. Raises OSError, ConfigError, StorageError.
    """
    server = Server(config, sockets or bind(config), clock=clock)
    try:
        yield await server.start()
        await server.drain(hurry or asyncio.Event())
    finally:
        await server.close()


def run(config: Config, *, greet: Callable[[], None], notify_socket: str = "") -> int:
    """Serve until SIGTERM or SIGINT, then drain, a second one cuts that short; the exit code.

    `greet` is called once the addresses are had. `notify_socket` is systemd's NOTIFY_SOCKET, if
    it waits for one. Raises OSError, ConfigError, StorageError.
    """
    logs.configure()
    _raise_file_limit()
    sockets = bind(config)
    greet()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, sockets, lambda state: _notify(notify_socket, state)))
    return 0


async def _serve(
    config: Config, sockets: Sequence[socket.socket], notify: Callable[[str], None]
) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    log = structlog.get_logger()
    async with running(config, sockets=sockets, hurry=hurry) as listening:
        log.info("listening", public=str(listening.public), admin=str(listening.admin))
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
    log.info("stopped")


def _raise_file_limit() -> None:
    """Every stream takes two sockets, and the usual soft limit is 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _notify(path: str, state: str) -> None:
    """Tell systemd (sd_notify(3)); a leading @ is an abstract socket."""
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(state.encode())
