"""One worker process: it serves until it is told to stop, and tells its parent that it lives."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop

from mintoken.config import Config
from mintoken.rates import RateLimiter
from mintoken.server import Server
from mintoken.watch import watching

BEAT_S = 1.0
"""Seconds between the bytes that tell the parent that this worker's event loop turns."""
STOP, RETIRE = signal.SIGTERM, signal.SIGHUP
"""What the parent sends. STOP drains, and a second one cuts that short; RETIRE gives way."""


def work(
    config: Config, sock: socket.socket, rates: RateLimiter, parent: int, *, is_admin: bool
) -> None:
    """Serve until told otherwise, or until the parent is gone; to be called with signals blocked.

    `parent` is a pipe to it, whose first byte says that this worker serves. Raises ConfigError,
    StorageError.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and it decides.
    with runner_for(config.server.slow_callback_ms) as runner:
        runner.run(_serve(config, sock, rates, parent, is_admin=is_admin))


@contextmanager
def runner_for(slow_callback_ms: float) -> Iterator[asyncio.Runner]:
    """An event loop: uvloop's, or, if it is to be watched, asyncio's own, without its debug mode.

    That mode would take 2 ms itself to connect to a provider.
    """
    if not slow_callback_ms:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            yield runner
        return
    with (
        watching(slow_callback_ms),
        asyncio.Runner(debug=False, loop_factory=asyncio.SelectorEventLoop) as runner,
    ):
        yield runner


async def _serve(
    config: Config, sock: socket.socket, rates: RateLimiter, parent: int, *, is_admin: bool
) -> None:
    leave, stop, hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def stopped() -> None:
        (hurry if stop.is_set() else stop).set()
        leave.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(STOP, stopped)
    loop.add_signal_handler(RETIRE, leave.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    server = Server(config, [sock], rates, admin=sock if is_admin else None)
    beating = None
    try:
        await server.start()
        gc.collect()
        gc.freeze()  # What it has now it keeps: looking through that again held the loop for 3 ms.
        beating = asyncio.create_task(_beat(parent, stopped), name="beat")
        await leave.wait()
        if not stop.is_set():
            await server.retire(stop)
            if not stop.is_set():
                hurry.set()  # Its time is up already.
        await server.drain(hurry)
    finally:
        await server.close()
        if beating is not None:
            beating.cancel()


async def _beat(parent: int, orphaned: Callable[[], None]) -> None:
    try:
        while True:
            os.write(parent, b".")
            await asyncio.sleep(BEAT_S)
    except BrokenPipeError:
        orphaned()
