"""Waits for the upstream that end at a deadline, or when the server stops."""

import asyncio
import math
from types import TracebackType
from typing import Self

from mintoken.errors import InterruptedByShutdownError


class Waits:
    """The waits for the upstream, so that a shutdown can end all of them."""

    def __init__(self) -> None:
        self.patient: set[Patience] = set()
        self.stopped = False

    def stop(self) -> None:
        """End those that run, and every one that begins."""
        self.stopped = True
        for patience in self.patient:
            patience.end()


class Patience:
    """How long the task of a request waits: for the head of the answer, then for each read of it.

    One timer serves all of its waits, and is set again only when it fires: `asyncio.timeout` makes
    one for each, which takes 5 µs for every chunk of a stream. Used as a context manager, it raises
    TimeoutError, or InterruptedByShutdownError if a shutdown ended the wait.
    """

    __slots__ = ("_cancelling", "_ended", "_loop", "_task", "_timer", "_until", "_waits")

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer: asyncio.TimerHandle | None = None
        self._until = math.inf
        """When the wait that runs is given up; inf if none does."""
        self._ended = False
        waits.patient.add(self)

    def at_most(self, seconds: float) -> Self:
        """The next wait may take so long."""
        self._until = self._loop.time() + seconds
        return self

    def __enter__(self) -> None:
        if self._waits.stopped:
            raise InterruptedByShutdownError
        self._cancelling = self._task.cancelling()
        if self._timer is None or self._timer.when() > self._until:
            self._set_timer()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._until = math.inf
        if self._ended:
            self._ended = False
            # As asyncio.timeout does: who else cancelled the task is not kept from it.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                stopped = self._waits.stopped
                raise (InterruptedByShutdownError() if stopped else TimeoutError()) from None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._until, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() >= self._until:
            self.end()
        elif self._until < math.inf:
            self._set_timer()

    def end(self) -> None:
        """End the wait that runs, if one does."""
        if self._until < math.inf and not self._ended:
            self._ended = True
            self._task.cancel()

    def close(self) -> None:
        """No more waits."""
        self._waits.patient.discard(self)
        if self._timer is not None:
            self._timer.cancel()
