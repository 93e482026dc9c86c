"""Requests per minute and concurrent requests of one key, held in this process's memory."""

import math
from collections.abc import Callable

from mintoken.errors import Code, MintokenError
from mintoken.models import Key


class RateLimiter:
    """A leaky bucket per key (the generic cell rate algorithm, ITU-T I.371) and a count.

    A key may burst up to its `rpm`, after which one request leaks in every 60 / rpm seconds.
    `clock` answers monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._running: dict[str, int] = {}

    def enter(self, key: Key) -> None:
        """Let one request in, or raise MintokenError `rate_limit_exceeded` with Retry-After."""
        running = self._running.get(key.id, 0)
        if key.concurrency and running >= key.concurrency:
            raise _exceeded(f"It allows {key.concurrency} requests at once.", 1)
        if key.rpm:
            self._take_one(key)
        self._running[key.id] = running + 1

    def leave(self, key: Key) -> None:
        """Note that a request that was let in has ended."""
        running = self._running.pop(key.id) - 1
        if running:
            self._running[key.id] = running

    def _take_one(self, key: Key) -> None:
        now, interval = self._clock(), 60 / key.rpm
        full_at = max(now, self._full_at.get(key.id, now)) + interval
        if (wait := full_at - now - 60) > 1e-6:
            raise _exceeded(f"It allows {key.rpm} requests per minute.", math.ceil(wait))
        self._full_at[key.id] = full_at


def _exceeded(detail: str, retry_after_s: int) -> MintokenError:
    return MintokenError(
        Code.RATE_LIMIT_EXCEEDED,
        detail,
        headers={"Retry-After": str(retry_after_s), "x-should-retry": "true"},
    )
