"""The live feed: usage rows as they are settled, for whoever listens, without loss or repeat."""

import asyncio
from collections.abc import Sequence

from mintoken.reports import Settled
from mintoken.stores.base import Store

LOOK_S = 0.25
"""Seconds between looks for new rows, while somebody listens."""
AT_ONCE = 200
"""Rows that one listener takes at a time; where there are more he asks again."""


class Feed:
    """What this worker's listeners share: one look at the newest place, however many there are.

    The rows come from the store, whichever worker settled them, so a listener can go on with any
    worker at the place where he was.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest = 0
        self._looked_at = 0.0
        self._turn = asyncio.Lock()

    async def newest(self) -> int:
        """The place of the last row that was settled, LOOK_S ago at most. Raises StorageError."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if now - self._looked_at >= LOOK_S:
                self._newest = await self._store.newest_place()
                self._looked_at = now
            return self._newest

    async def after(self, place: int, account_id: str) -> Sequence[Settled]:
        """An account's rows behind a place, in their order; none if LOOK_S brought none.

        Raises StorageError.
        """
        if await self.newest() > place:
            found = await self._store.settled_after(place, account_id=account_id, limit=AT_ONCE)
            if found:
                return found
        await asyncio.sleep(LOOK_S)
        return ()
