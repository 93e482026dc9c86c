"""Where the product does not pay, by the control arm, it stops; where it does again, it goes on."""

import asyncio
import random
from collections.abc import Callable

import structlog

from mintoken.errors import StorageError
from mintoken.models import Directory, Verdict
from mintoken.pricing import Prices
from mintoken.savings import changed
from mintoken.stores.base import Store


async def keep_reviewed(
    store: Store,
    prices: Prices,
    directory: Callable[[], Directory],
    *,
    clock_ms: Callable[[], int],
    every_s: float,
) -> None:
    """Review for ever; what was found before stays while the store cannot be asked."""
    await asyncio.sleep(random.uniform(0, every_s))  # noqa: S311 - so that workers take turns
    while True:
        await asyncio.sleep(every_s)
        try:
            await review(store, prices, directory(), now_ms=clock_ms())
        except StorageError as error:
            structlog.get_logger().warning("savings_not_reviewed", error=str(error))


async def review(store: Store, prices: Prices, directory: Directory, *, now_ms: int) -> None:
    """Stop and resume, for keys that want it and have a control arm, by the rows since the last
    change of their shares or of the verdict. Raises StorageError.
    """
    watched = {
        key.experiment: key for key in directory.keys if key.is_watched and not key.revoked_at
    }
    if not watched:
        return
    samples = await store.samples(experiments=watched)
    present = [
        one for one in samples if one.epoch == directory.epoch(watched[one.key_id], one.model)
    ]
    stopped = {pair for pair, verdict in directory.verdicts.items() if verdict.stopped}
    pairs = await asyncio.to_thread(changed, present, prices, stopped)
    if not pairs:
        return
    await store.judge({pair: Verdict(pair not in stopped, now_ms) for pair in pairs})
    for key_id, model in sorted(pairs):
        event = "product_resumed" if (key_id, model) in stopped else "product_stopped"
        structlog.get_logger().warning(event, key=key_id, model=model)
