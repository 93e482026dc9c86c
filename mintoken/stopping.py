"""Where the product does not pay, by the control arm, it stops; where it does again, it goes on."""

import asyncio
import random
from collections.abc import Callable

import structlog

from mintoken.errors import StorageError
from mintoken.models import Directory
from mintoken.pricing import Prices
from mintoken.savings import stops
from mintoken.stores.base import Store


async def keep_reviewed(
    store: Store, prices: Prices, directory: Callable[[], Directory], *, every_s: float
) -> None:
    """Review for ever; what was found before stays while the store cannot be asked."""
    await asyncio.sleep(random.uniform(0, every_s))  # noqa: S311 - so that workers take turns
    while True:
        await asyncio.sleep(every_s)
        try:
            await review(store, prices, directory())
        except StorageError as error:
            structlog.get_logger().warning("savings_not_reviewed", error=str(error))


async def review(store: Store, prices: Prices, directory: Directory) -> None:
    """Stop and resume by all rows that there are, for keys that want it and have a control arm.

    Raises StorageError.
    """
    watched = {
        key.experiment
        for key in directory.keys
        if key.auto_stop and key.control and key.revoked_at is None
    }
    stopped: frozenset[tuple[str, str]] = frozenset()
    if watched:
        samples = [one for one in await store.samples() if one.key_id in watched]
        stopped = await asyncio.to_thread(stops, samples, prices, directory.stopped)
    if stopped == directory.stopped:
        return
    await store.stop(stopped)
    for event, pairs in (
        ("stopped", stopped - directory.stopped),
        ("resumed", directory.stopped - stopped),
    ):
        for key_id, model in sorted(pairs):
            structlog.get_logger().warning(f"product_{event}", key=key_id, model=model)
