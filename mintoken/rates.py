"""The rates of keys, and of addresses that fail to say who they are, across all workers."""

import fcntl
import ipaddress
import math
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from mintoken.errors import Code, MintokenError
from mintoken.models import Key

LANES = 256
"""The most processes at once; each counts its running requests in a lane of its own."""
SLOTS = 4096
"""The most keys with a limit that are in use at once; as many more are for addresses."""
PROBES = 64
"""Slots, from the one that its name hashes to, where a key or an address may be found."""
PATIENCE_S = 0.02
"""Seconds to wait for another process that looks something up; it may have lost its CPU."""
FAILURES_PER_MINUTE = 60
"""Requests without a good key that one address is told 401 for."""
SIGN_INS_OF_ADDRESS, SIGN_INS_OF_NAME = 30, 10
"""Attempts to sign in per minute, good ones too: nobody gets further by asking many at once."""
_TAGS, _FULL_AT, _RUNNING = 0, SLOTS * 16, SLOTS * 32
_SIZE = _RUNNING + SLOTS * LANES * 2


class RateTable:
    """Memory that a parent shares with its workers, made before it forks them."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("mintoken-rates")
        os.ftruncate(self.descriptor, _SIZE)
        memory = memoryview(mmap.mmap(self.descriptor, _SIZE))
        self.tags = memory[_TAGS:_FULL_AT].cast("Q")
        self.full_at = memory[_FULL_AT:_RUNNING].cast("d")
        self.running = memory[_RUNNING:_SIZE].cast("H")

    def forget(self, lane: int) -> None:
        """Nothing runs any more in the process that had this lane."""
        for slot in range(SLOTS):
            if self.tags[slot]:
                self.running[slot * LANES + lane] = 0

    def close(self) -> None:
        os.close(self.descriptor)


class RateLimiter:
    """One process's way into the table: a leaky bucket per name, a count per key.

    A key may burst up to its `rpm`, after which one request leaks in every 60 / rpm seconds (the
    generic cell rate algorithm, ITU-T I.371). `clock` answers the machine's monotonic seconds.
    """

    def __init__(self, table: RateTable, clock: Callable[[], float], *, lane: int = 0) -> None:
        self._clock = clock
        self._lane = lane
        # A description of its own: flock would not part processes that share one.
        self._lock = os.open(f"/proc/self/fd/{table.descriptor}", os.O_RDWR)
        self._tags, self._full_at, self._running = table.tags, table.full_at, table.running

    def enter(self, key: Key) -> int | None:
        """Let one request in; what to give to `leave` when it has ended.

        Raises MintokenError `rate_limit_exceeded` with Retry-After and x-ratelimit-* headers, and
        `overloaded` when the table is full, or another process keeps it.
        """
        if not (key.rpm or key.concurrency):
            return None
        with self._alone():
            now = self._clock()
            slot = self._find(key.id, now)
            if key.concurrency and self._count(slot) >= key.concurrency:
                raise _exceeded(f"This Mintoken key allows {key.concurrency} at once.", 1.0)
            if key.rpm:
                self._fill(slot, key.rpm, now, f"This Mintoken key allows {key.rpm} per minute.")
            self._running[slot * LANES + self._lane] += 1
        return slot

    def leave(self, slot: int | None) -> None:
        """Note that a request that was let in has ended."""
        if slot is not None:  # Nobody else writes to this lane.
            self._running[slot * LANES + self._lane] -= 1

    def fail(self, address: str) -> None:
        """Note a request without a good key. Raises MintokenError once there were too many.

        Only such requests are counted and refused: behind a front proxy, all callers share one
        address.
        """
        with self._alone():
            now = self._clock()
            slot = self._find(_network(address), now, SLOTS)
            told = f"This address sent over {FAILURES_PER_MINUTE} per minute without a good key."
            self._fill(slot, FAILURES_PER_MINUTE, now, told)

    def attempt(self, name: str, address: str) -> None:
        """Note that somebody at this address tries to sign in by this name, whatever comes of it.

        Raises MintokenError once there were too many, of the address or of the name.
        """
        tries = (
            (f"from {_network(address)}", SIGN_INS_OF_ADDRESS, "from this address"),
            (f"as {name}", SIGN_INS_OF_NAME, "by this name"),
        )
        with self._alone():
            now = self._clock()
            for bucket, rate, what in tries:
                slot = self._find(bucket, now, SLOTS)
                self._fill(slot, rate, now, f"Over {rate} per minute tried to sign in {what}.")

    def close(self) -> None:
        os.close(self._lock)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the table for some microseconds.

        Raises MintokenError `overloaded` if another process keeps it, as a stopped one would.
        """
        patience = time.monotonic() + PATIENCE_S
        while not self._try_lock():
            if time.monotonic() > patience:
                raise MintokenError(Code.OVERLOADED)
            os.sched_yield()
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _count(self, slot: int) -> int:
        """Requests that run; addresses, beyond the first SLOTS, have none."""
        return sum(self._running[slot * LANES : (slot + 1) * LANES])

    def _find(self, name: str, now: float, first: int = 0) -> int:
        """Its slot, of the SLOTS from `first` on; perhaps a new one, or that of one long idle."""
        tag = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") | 1
        window = [first + (tag + probe) % SLOTS for probe in range(PROBES)]
        for slot in window:
            if self._tags[slot] == tag:
                return slot
        for slot in window:
            if not self._tags[slot] or (self._full_at[slot] <= now and not self._count(slot)):
                self._tags[slot], self._full_at[slot] = tag, 0.0
                return slot
        raise MintokenError(Code.OVERLOADED)

    def _fill(self, slot: int, rpm: int, now: float, told: str) -> None:
        """Put one more request into the bucket, which then is empty again at `_full_at`."""
        full_at = max(now, self._full_at[slot])
        if (wait := full_at + 60 / rpm - now - 60) > 1e-6:
            raise _exceeded(
                told,
                wait,
                {
                    "x-ratelimit-limit-requests": str(rpm),
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-requests": _duration(full_at - now),
                },
            )
        self._full_at[slot] = full_at + 60 / rpm


def _network(address: str) -> str:
    """An IPv6 caller has a whole /64 to choose addresses from (RFC 4291 §2.5.4)."""
    if ":" not in address:
        return address
    ip = ipaddress.IPv6Address(address.partition("%")[0])
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))


def _duration(seconds: float) -> str:
    """As OpenAI spells it: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


def _exceeded(
    detail: str, retry_after_s: float, headers: dict[str, str] | None = None
) -> MintokenError:
    told = {"Retry-After": str(math.ceil(retry_after_s)), "x-should-retry": "true"}
    return MintokenError(Code.RATE_LIMIT_EXCEEDED, detail, headers=told | (headers or {}))
