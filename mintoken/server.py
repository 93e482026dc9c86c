"""One process's listeners over one application, and a drain that loses nothing."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
from aiohttp import web

from mintoken.app import build_app
from mintoken.clock import utc_ms
from mintoken.config import Config
from mintoken.connection import Connection, Crowd, crowd_of, require_c_parser
from mintoken.context import STATE, UPSTREAM, Clock
from mintoken.options import Address
from mintoken.rates import RateLimiter, RateTable

LAST_CALL_S = 1.0
"""Seconds in which a connection that came just before the end may still ask."""
RETIRE_S = 10.0
"""Seconds for the open connections to ask once more, and to learn that they should be closed."""
LAST_WORDS_S = 5.0
"""Seconds for the streams that outlived `drain_timeout` to send their error event."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses that a server really listens on."""

    public: Address
    admin: Address


class Server:
    """One process's listeners over one application; `admin` is the one for the control plane."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        rates: RateLimiter,
        *,
        admin: socket.socket | None,
        clock: Clock = utc_ms,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._admin = admin
        self._app = build_app(config, rates, clock=clock)
        self._runner = web.AppRunner(
            self._app, handler_cancellation=True, access_log=None, shutdown_timeout=LAST_WORDS_S
        )
        self._crowd: Crowd
        self._listeners: list[asyncio.Server] = []

    async def start(self) -> Listening:
        """Open everything and take connections. Raises ConfigError, StorageError."""
        require_c_parser()
        self._crowd = crowd_of(self._config)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            made = partial(self._connection, is_admin=sock is self._admin)
            self._listeners.append(await loop.create_server(made, sock=sock))
        return Listening(address_of(self._sockets[0]), address_of(self._sockets[-1]))

    def _connection(self, *, is_admin: bool) -> Connection:
        assert self._runner.server is not None
        return Connection(self._runner.server, self._config, self._crowd, is_admin=is_admin)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Take no new connections and let what runs finish; what has not by the end is told so.

        Connections that are open may still ask for LAST_CALL_S seconds. The end is `drain_timeout`
        seconds after that, or when `hurry` is set.
        """
        state, timeout = self._app[STATE], self._config.server.drain_timeout
        state.leaving = state.draining = True
        self._stop_listening()
        # Under socket activation the next connection is the next process's; cut none of ours.
        await _within(min(LAST_CALL_S, timeout), self._is_empty, hurry)
        state.refusing = True
        structlog.get_logger().info("draining", requests=state.in_flight, up_to_s=timeout)
        self._close_idle()
        if not await _within(timeout, lambda: not state.in_flight, hurry):
            structlog.get_logger().warning("drain_cut_short", requests=state.in_flight)
            self._app[UPSTREAM].interrupt()
            await _within(LAST_WORDS_S, lambda: not state.in_flight, asyncio.Event())

    async def retire(self, stop: asyncio.Event) -> None:
        """Take no new connections, but answer on those that are open, so that nobody is refused.

        The end is when all are closed, after `drain_timeout` seconds, or when `stop` is set.
        """
        state, timeout = self._app[STATE], self._config.server.drain_timeout
        state.leaving = True
        self._stop_listening()
        if not await _within(min(RETIRE_S, timeout), self._is_empty, stop):
            self._close_idle()
            await _within(timeout, lambda: not state.in_flight, stop)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _is_empty(self) -> bool:
        assert self._runner.server is not None
        return not self._runner.server.connections

    def _close_idle(self) -> None:
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if isinstance(connection, Connection):
                connection.close_if_idle()

    async def close(self) -> None:
        """Close every connection, settle what is left and close the store."""
        self._stop_listening()
        for sock in self._sockets:
            sock.close()
        await self._runner.cleanup()


async def _within(seconds: float, holds: Callable[[], bool], hurry: asyncio.Event) -> bool:
    """Wait until it holds; False if the time is up before, or `hurry` is set."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds():
        if loop.time() >= deadline or hurry.is_set():
            return False
        await asyncio.sleep(0.02)
    return True


def bind(config: Config) -> list[socket.socket]:
    """The listening sockets, the public one first. Raises OSError."""
    wanted = dict.fromkeys((config.server.listen, config.server.admin_listen))
    return [_bind(address) for address in wanted]


def address_of(sock: socket.socket) -> Address:
    """Where a socket really listens."""
    return Address(*sock.getsockname()[:2])


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=1024)


@asynccontextmanager
async def running(config: Config, *, clock: Clock = utc_ms) -> AsyncIterator[Listening]:
    """A server in this process, drained and closed on the way out.

    Raises OSError, ConfigError, StorageError.
    """
    table = RateTable()
    rates = RateLimiter(table, time.monotonic)
    sockets = bind(config)
    server = Server(config, sockets, rates, admin=sockets[-1], clock=clock)
    try:
        yield await server.start()
        await server.drain(asyncio.Event())
    finally:
        await server.close()
        rates.close()
        table.close()
