"""Says which callbacks hold the event loop: for developers, since watching costs some µs for each.

It takes asyncio's own loop: uvloop calls protocols out of C, where nobody can look at the clock.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog

PACKAGE = Path(__file__).parent
SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Of the calling thread: ns on a CPU, ns waiting for one, and how many turns (proc(5))."""

Clock = Callable[[], int]


@contextmanager
def watching(limit_ms: float) -> Iterator[None]:
    """Log `slow_callback` for each callback of this thread's event loop that takes `limit_ms`.

    What it takes is the time until the loop goes on: its own work and whatever it blocks on, the
    garbage collector and other threads that hold the GIL; but not the wait for a CPU that other
    processes have. Only names and places are logged, never an argument.
    """
    run_plainly = asyncio.Handle._run

    with _unscheduled() as unscheduled_ns:

        def run(self: asyncio.Handle) -> None:
            callback = self._callback  # type: ignore[attr-defined]
            stood = _place(callback)
            cpu, waited, begun = time.thread_time_ns(), unscheduled_ns(), time.perf_counter_ns()
            run_plainly(self)
            took = time.perf_counter_ns() - begun - (unscheduled_ns() - waited)
            if took >= limit_ms * 1e6:
                structlog.get_logger().warning(
                    "slow_callback",
                    ms=round(took / 1e6, 1),
                    cpu_ms=round((time.thread_time_ns() - cpu) / 1e6, 1),
                    callback=_name(callback),
                    start=stood,
                    end=_place(callback),
                )

        asyncio.Handle._run = run  # type: ignore[method-assign]
        try:
            yield
        finally:
            asyncio.Handle._run = run_plainly  # type: ignore[method-assign]


@contextmanager
def _unscheduled() -> Iterator[Clock]:
    """How many ns this thread has waited for a CPU; always 0 where the kernel does not count."""
    try:
        counts = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield lambda: 0
        return
    try:
        yield lambda: int(os.pread(counts, 100, 0).split()[1])
    finally:
        os.close(counts)


def _task(callback: Any) -> asyncio.Task[Any] | None:
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def _name(callback: Any) -> str:
    """The qualified name of a task's coroutine, or of a function and the protocol it serves."""
    while isinstance(callback, partial):
        callback = callback.func
    task = _task(callback)
    named: Any = callback if task is None else task.get_coro()
    name: str = getattr(named, "__qualname__", type(named).__qualname__)
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Transport):
        name += f" for {type(owner.get_protocol()).__qualname__}"
    return name


def _place(callback: Any) -> str:
    """The innermost line of ours at which a task waits; empty if there is none."""
    task = _task(callback)
    waiting: Any = None if task is None else task.get_coro()
    place = ""
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            place = f"{file.relative_to(PACKAGE)}:{frame.f_lineno}"
        waiting = waiting.cr_await
    return place
