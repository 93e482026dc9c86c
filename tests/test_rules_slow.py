"""Custom rules that take long hold up nobody but the account that has them."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Proxy, add_key, eventually
from store_cases import rule

from mintoken.chat_asked import EDGE_CHARACTERS
from mintoken.clock import utc_ms
from mintoken.models import Account
from mintoken.routes.proxy import PREPARE_INLINE
from mintoken.stores.sqlite import open_sqlite

SLOW = "(a|b)*a(a|b){400}x"
"""Each byte of SLOW_TEXT needs a new state of its automaton."""
SLOW_TEXT = "".join(random.Random(1).choices("ab", k=2 * EDGE_CHARACTERS))
THREADS, REQUESTS = 2, 6


class Threads(ThreadPoolExecutor):
    """Threads that count how many of them are wanted now, and were at most."""

    now = most = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        self.now += 1
        self.most = max(self.most, self.now)
        future = super().submit(work, *args, **more)
        future.add_done_callback(self._end)
        return future

    def _end(self, _: Future[Any]) -> None:
        self.now -= 1


def said(text: str) -> dict[str, object]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}


@pytest.fixture
async def threads(proxy: Proxy) -> Threads:
    """The only threads that the proxy has."""
    threads = Threads(THREADS)
    asyncio.get_running_loop().set_default_executor(threads)
    return threads


@pytest.fixture
async def bearer_of_other(proxy: Proxy, threads: Threads) -> str:
    """Gives the proxy's account a slow rule, and makes a key of an account without any."""
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    try:
        directory = await store.directory()
        assert directory is not None
        account = directory.accounts[0].id
        await store.save(Account(id="other", name="other", monthly_tokens=0, created_at=utc_ms()))
        await store.save(rule("r_slow", account_id=account, pattern=SLOW))
        await store.save(rule("r_ready", account_id=account, pattern="ready"))
    finally:
        await store.close()
    proxy.keys.append(await add_key(proxy.data_dir, account_id="other"))
    while (await proxy.post(said("ready"))).headers["X-Mintoken-Reason"] != "rule:r_ready":
        pass
    return f"Bearer {proxy.keys[-1]}"


async def test_slow_rules_leave_threads_to_other_accounts(
    proxy: Proxy, bearer_of_other: str
) -> None:
    slow = [asyncio.create_task(proxy.post(said(SLOW_TEXT))) for _ in range(REQUESTS)]
    await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    for text in ("y " * PREPARE_INLINE, "ready"):  # the second would match, but is not theirs
        answer = await proxy.post(said(text), Authorization=bearer_of_other)
        assert answer.headers["X-Mintoken-Reason"] == "key"
    assert sum(task.done() for task in slow) < REQUESTS // 2
    reasons = [one.headers["X-Mintoken-Reason"] for one in await asyncio.gather(*slow)]
    assert reasons == ["key"] * REQUESTS


@pytest.mark.usefixtures("bearer_of_other")
async def test_who_names_a_level_does_not_wait_for_rules(proxy: Proxy) -> None:
    slow = [asyncio.create_task(proxy.post(said(SLOW_TEXT))) for _ in range(REQUESTS)]
    await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    named = await proxy.post(said(SLOW_TEXT), X_Mintoken_Intensity="lite")
    assert named.headers["X-Mintoken-Reason"] == "header"
    assert sum(task.done() for task in slow) < REQUESTS // 2
    await asyncio.gather(*slow)


@pytest.mark.usefixtures("bearer_of_other")
async def test_who_gives_up_and_asks_again_gets_no_second_thread(
    proxy: Proxy, threads: Threads
) -> None:
    await eventually(lambda: threads.now == 0)
    threads.most = 0
    given_up = asyncio.create_task(proxy.post(said(SLOW_TEXT)))
    await eventually(lambda: threads.now == 1)
    given_up.cancel()
    assert (await proxy.post(said(SLOW_TEXT))).headers["X-Mintoken-Reason"] == "key"
    assert threads.most == 1
