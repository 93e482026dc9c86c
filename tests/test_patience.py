"""Waits that end at a deadline, or with the server, and no other way."""

import asyncio

import pytest

from mintoken.errors import InterruptedByShutdownError
from mintoken.patience import Patience, Waits


async def wait(patience: Patience, seconds: float, for_s: float) -> str:
    """How a wait of `for_s` seconds ends."""
    try:
        with patience.at_most(seconds):
            await asyncio.sleep(for_s)
    except TimeoutError:
        return "timeout"
    except InterruptedByShutdownError:
        return "shutdown"
    return "done"


async def wait_once(waits: Waits, seconds: float, for_s: float) -> str:
    """The same in a task of its own."""
    patience = Patience(waits)
    try:
        return await wait(patience, seconds, for_s)
    finally:
        patience.close()


async def test_each_wait_has_its_own_time_though_one_timer_serves_all():
    patience = Patience(Waits())
    assert await wait(patience, 5, 0.01) == "done"
    assert await wait(patience, 0.05, 5) == "timeout"  # The timer of the first would fire late.
    assert await wait(patience, 0.2, 0.1) == "done"
    assert await wait(patience, 0.2, 0.15) == "done"  # The timer of the one before fires within.
    assert await wait(patience, 0.05, 5) == "timeout"
    patience.close()


async def test_time_between_waits_does_not_count():
    patience = Patience(Waits())
    assert await wait(patience, 0.05, 0) == "done"
    await asyncio.sleep(0.1)
    assert await wait(patience, 0.05, 0.01) == "done"
    patience.close()


async def test_a_stop_ends_the_waits_that_run_and_those_that_begin():
    waits = Waits()
    running = asyncio.create_task(wait_once(waits, 5, 5))
    await asyncio.sleep(0.01)
    waits.stop()
    assert await running == "shutdown"
    assert await wait_once(waits, 5, 0) == "shutdown"
    assert not waits.patient


async def test_who_cancels_the_task_cancels_it():
    running = asyncio.create_task(wait_once(Waits(), 5, 5))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_task_cancelled_at_its_deadline_is_cancelled():
    async def both() -> None:
        patience = Patience(Waits())
        with patience.at_most(5):
            task = asyncio.current_task()
            assert task is not None
            patience.end()
            task.cancel()
            await asyncio.sleep(5)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(both())


async def test_another_error_at_the_deadline_is_told():
    async def fail() -> None:
        patience = Patience(Waits())
        with patience.at_most(5):
            patience.end()
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError):
        await fail()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
