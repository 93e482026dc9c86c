"""Reserve before sending, settle after; group commit; recovery of what the dead left behind."""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import structlog

from mintoken.errors import Code, MintokenError, StorageError
from mintoken.logs import frames
from mintoken.models import Admission, Progress, QuotaCounts, Reservation, Settlement
from mintoken.stores.base import Batch, Store

BATCH_SIZE = 256
TICK_S = 5.0
"""Seconds between looks for dead workers' rows, and between notes of running streams' progress."""
RETRY_S = 0.5
"""Seconds until settlements are tried again after the storage failed."""
SETTLE_WITHIN_S = 0.02
"""Seconds that a settlement waits for the next reservation, whose commit takes it along: requests
that come one after the other cost one commit each instead of two."""
LAST_TRIES_S = 3.0
"""Seconds for which a ledger that was told to close goes on trying to settle what waits."""

_NOTHING = Batch([], [], [])
_Item = TypeVar("_Item")
_Waiting = tuple[Reservation, asyncio.Future[Admission]]


class Ledger:
    """The only writer of usage rows in this process; `run` is its one task."""

    def __init__(self, store: Store, *, counts: QuotaCounts) -> None:
        self._store = store
        self._counts = counts
        self._reservations: deque[_Waiting] = deque()
        self._settlements: deque[Settlement] = deque()
        self._open: dict[str, Callable[[], Progress | None]] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._end_at = math.inf
        self._trouble = ""

    @property
    def healthy(self) -> bool:
        """Could the store be written the last time?"""
        return not self._trouble

    async def reserve(
        self, reservation: Reservation, progress: Callable[[], Progress | None]
    ) -> Admission:
        """Commit the row before the upstream is asked; the quota's answer.

        `progress` tells how a running request stands, None if there is nothing to note yet. Raises
        MintokenError `storage_unavailable` when it could not be committed; then there is no row.
        Whoever is admitted, or cancelled in here, must settle.
        """
        answer: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._reservations.append((reservation, answer))
        self._wake.set()
        admission = await answer
        if admission.admitted:
            self._open[reservation.id] = progress
        return admission

    def settle(self, settlement: Settlement) -> None:
        """Record what became of a reserved row. Never waits; settling twice changes nothing."""
        self._open.pop(settlement.id, None)
        if not self._settlements:
            asyncio.get_running_loop().call_later(SETTLE_WITHIN_S, self._wake.set)
        self._settlements.append(settlement)

    async def recover(self) -> None:
        """Settle as crashed what dead workers left reserved. Raises StorageError.

        It always writes, so it shows whether the store can be written.
        """
        rows = await self._store.recover(counts=self._counts)
        if rows:
            structlog.get_logger().warning("recovered", rows=rows)

    async def run(self) -> None:
        """Commit rounds until closed and everything is settled.

        What cannot be settled by then stays reserved, and the next start settles it as crashed.
        """
        loop, tick_at = asyncio.get_running_loop(), 0.0
        self._wake.set()
        while not (self._closing and not self._settlements and not self._reservations):
            await self._wake.wait()
            self._wake.clear()
            try:
                if (now := loop.time()) >= tick_at:
                    tick_at = now + TICK_S
                    loop.call_at(tick_at, self._wake.set)
                    await self.recover()
                    await self._commit(self._noted())
                else:
                    await self._commit([])
                self._report("")
            except Exception as error:  # noqa: BLE001 - every request waits for this loop
                tick_at = 0.0  # Healthy again only when the store was really written.
                self._refuse_waiting()
                self._report(str(error) if isinstance(error, StorageError) else frames(error))
                if loop.time() >= self._end_at:
                    return
                await self._pause()

    def close(self) -> None:
        """Ask `run` to end; it does when the last settlement is committed."""
        self._closing = True
        self._end_at = asyncio.get_running_loop().time() + LAST_TRIES_S
        self._wake.set()

    async def _commit(self, progress: list[Progress]) -> None:
        settlements = _take(self._settlements)
        waiting = [one for one in _take(self._reservations) if not one[1].cancelled()]
        batch = Batch(settlements, progress, [reservation for reservation, _ in waiting])
        if batch == _NOTHING:
            return
        try:
            admissions = await self._store.commit(batch)
        except Exception:
            self._settlements.extendleft(reversed(settlements))
            self._reservations.extendleft(reversed(waiting))
            raise
        for reservation, answer in waiting:
            if not answer.cancelled():
                answer.set_result(admissions[reservation.id])
        if self._reservations or len(settlements) == BATCH_SIZE:
            self._wake.set()  # There may be more.

    def _refuse_waiting(self) -> None:
        while self._reservations:
            _, answer = self._reservations.popleft()
            if not answer.done():
                answer.set_exception(
                    MintokenError(Code.STORAGE_UNAVAILABLE, headers={"Retry-After": "1"})
                )

    def _report(self, trouble: str) -> None:
        """Log a change for the worse or the better, not every try in between."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        log, unsettled = structlog.get_logger(), len(self._settlements)
        if trouble:
            log.error("storage_unavailable", error=trouble, unsettled=unsettled)
        else:
            log.info("storage_available", unsettled=unsettled)

    async def _pause(self) -> None:
        """Wait before settlements are tried again; a new reservation is refused without delay."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._wake.wait()
        self._wake.set()

    def _noted(self) -> list[Progress]:
        notes = (progress() for progress in self._open.values())
        return [note for note in notes if note is not None]


def _take(queue: deque[_Item]) -> list[_Item]:
    return [queue.popleft() for _ in range(min(len(queue), BATCH_SIZE))]
