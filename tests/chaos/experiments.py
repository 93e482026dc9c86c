"""What the server is put through, each with the figure that it has to reach."""

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from chaos.load import Callers, Provider, ask_many, lean_provider
from conftest import CHAT, Served, add_key, audit, eventually, free_port, usage_rows
from disks import small_disk
from fake_upstream import STALL, delta, fake_upstream, stream_head

Told = Callable[[float], None]
"""Called with the share that is done."""


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    what: str
    found: str
    bar: str
    good: bool


@asynccontextmanager
async def serving(
    folder: Path, base_url: str, *, monthly_tokens: int = 0, **options: object
) -> AsyncIterator[Served]:
    """A server process, ended and looked through for secrets on the way out."""
    served = Served(folder / "data", base_url, free_port())
    served.key = await add_key(served.data_dir, monthly_tokens=monthly_tokens)
    served.environ |= {f"MINTOKEN_{name.upper()}": str(value) for name, value in options.items()}
    try:
        async with aiohttp.ClientSession() as session:
            await served.start(session)
            while (await session.get(f"{served.url}/readyz")).status != 200:
                await asyncio.sleep(0.01)
        yield served
    finally:
        await served.end()


async def books(served: Served, provider: Provider) -> tuple[int, int, list[str]]:
    """Requests without a row, rows too many, and what is wrong with the sums, at the end."""
    asked = Counter(provider.ids)
    rows = usage_rows(served.data_dir)
    recorded = Counter(row["id"] for row in rows)
    wrong = await audit(served.data_dir)
    wrong += [f"{row['id']} is still reserved" for row in rows if row["outcome"] == "reserved"]
    missing = sum((asked - recorded).values())
    return missing, recorded.total() - len(recorded) + asked.total() - len(asked), wrong


async def kills(folder: Path, told: Told, *, times: int) -> Result:
    """kill -9 of a worker of two, each sixth time of all processes, under 16 callers."""
    dice = random.Random(7)
    async with (
        lean_provider() as provider,
        serving(folder, provider.base_url, server_workers=2) as served,
        aiohttp.ClientSession() as session,
        Callers(served, 16).asking() as callers,
    ):
        for number in range(times):
            told(number / times)
            enough = len(provider.ids) + dice.randrange(200)
            await eventually(lambda n=enough: len(provider.ids) > n, within=20)
            if number % 6 == 5:
                await served.stop(signal.SIGKILL)
                await served.start(session)
            else:
                workers = await eventually(served.workers)
                os.kill(dice.choice(workers), signal.SIGKILL)
        await eventually(lambda: len(served.workers()) == 2)
    async with aiohttp.ClientSession() as session:
        # Whoever comes next settles what the last ones left.
        await served.start(session)
        assert await served.stop(signal.SIGTERM) == 0
    missing, doubled, wrong = await books(served, provider)
    crashed = sum(row["outcome"] == "crashed" for row in usage_rows(served.data_dir))
    return Result(
        f"{times} × kill -9 with 2 workers, {len(provider.ids):,} requests",
        f"{missing} rows missing, {doubled} doubled, {len(wrong)} sums wrong; {crashed} crashed",
        "0 missing, 0 doubled, 0 wrong",
        not missing and not doubled and not wrong and callers.outcomes[200] > 0 and crashed > 0,
    )


async def disconnects(folder: Path, told: Told, *, times: int) -> Result:
    """Callers that leave in the middle of a stream."""
    took = []
    async with (
        fake_upstream() as upstream,
        serving(folder, upstream.base_url) as served,
        aiohttp.ClientSession(headers=served.headers) as session,
    ):
        upstream.default = [stream_head(), delta("Hello"), STALL]
        for number in range(times):
            told(number / times)
            answer = await session.post(
                f"{served.url}/v1/chat/completions", json=CHAT | {"stream": True}
            )
            await answer.content.readuntil(b"Hello")
            left = time.perf_counter()
            answer.close()
            await asyncio.wait_for(upstream.requests[number].gone.wait(), 5)
            took.append((time.perf_counter() - left) * 1000)
        assert await served.stop(signal.SIGTERM) == 0
    closed = sum(row["outcome"] == "client_closed" for row in usage_rows(served.data_dir))
    median = statistics.median(took)
    return Result(
        f"{times} callers leave their stream",
        f"{closed} of {times} recorded; upstream closed after {median:.1f} ms (median), "
        f"{max(took):.0f} ms at most",
        f"{times} of {times}, median ≤ 50 ms",
        closed == times and median <= 50,
    )


async def full_disk(folder: Path, told: Told, *, times: int) -> Result:
    """A disk that fills up and gets room again, under 16 callers."""
    with small_disk(folder / "disk", mib=16) as disk:
        async with (
            lean_provider() as provider,
            serving(disk.folder, provider.base_url, server_workers=2) as served,
            Callers(served, 16).asking() as callers,
        ):
            for number in range(times):
                told(number / times)
                before = Counter(callers.outcomes)
                disk.fill()
                await eventually(lambda b=before: callers.outcomes[503] > b[503], within=20)
                disk.free()
                await eventually(lambda b=before: callers.outcomes[200] > b[200] + 50, within=20)
            disk.fill()
            await eventually(lambda b=callers.outcomes[503]: callers.outcomes[503] > b, within=20)
            disk.free()
        async with aiohttp.ClientSession() as session:
            await served.start(session)
            assert await served.stop(signal.SIGTERM) == 0
        missing, doubled, wrong = await books(served, provider)
    odd = set(callers.outcomes) - {200, 503}
    return Result(
        f"disk full {times} times, {len(provider.ids):,} requests",
        f"{missing} rows missing, {doubled} doubled, {len(wrong)} sums wrong; "
        f"{callers.outcomes[503]:,} were told 503",
        "0 missing, 0 doubled, 0 wrong",
        not missing and not doubled and not wrong and not odd,
    )


async def reloads(folder: Path, told: Told, *, times: int) -> Result:
    """SIGHUP under 16 callers."""
    async with (
        lean_provider() as provider,
        serving(folder, provider.base_url, server_workers=2) as served,
    ):
        async with Callers(served, 16).asking() as callers:
            for number in range(1, times + 1):
                told((number - 1) / times)
                before = callers.outcomes.total()
                served.signal(signal.SIGHUP)
                await eventually(
                    lambda n=number: served.log.read_bytes().count(b'"reloaded"') == n, within=20
                )
                await eventually(lambda b=before: callers.outcomes.total() > b + 300, within=20)
        assert await served.stop(signal.SIGTERM) == 0
    failed = callers.outcomes.total() - callers.outcomes[200]
    missing, doubled, wrong = await books(served, provider)
    return Result(
        f"{times} reloads under load, {callers.outcomes.total():,} requests",
        f"{failed} failed",
        "0 failed",
        failed == missing == doubled == len(wrong) == 0,
    )


async def overshoot(folder: Path, told: Told, *, enforcement: str, limit: int) -> Result:
    """A month that is used up by 16 callers of two workers; each answer has 50 tokens."""
    async with (
        lean_provider(tokens=50) as provider,
        serving(
            folder,
            provider.base_url,
            monthly_tokens=limit,
            server_workers=2,
            quota_enforcement=enforcement,
        ) as served,
        Callers(served, 16).asking() as callers,
    ):
        while callers.outcomes[429] < 100:
            told(min(1.0, len(provider.ids) * 50 / limit))
            await asyncio.sleep(0.05)
    used = sum(row["charged_tokens"] for row in usage_rows(served.data_dir))
    # The last one that soft admits finds at least one token left.
    bound = 49 if enforcement == "soft" else 0
    return Result(
        f"quota of {limit:,} tokens, {enforcement}, {callers.outcomes[200]:,} requests",
        f"{used - limit:+,} tokens beyond it",
        f"≤ {bound:+}",
        used - limit <= bound and used > limit - 50 and not await audit(served.data_dir),
    )


async def memory(folder: Path, told: Told, *, times: int, stream: bool = False) -> Result:
    """The worker's memory after a tenth of the requests, and after all."""
    async with (
        lean_provider() as provider,
        serving(folder, provider.base_url) as served,
    ):
        await ask_many(served, times // 10, stream=stream)
        warm = served.rss_kb()
        for part in range(1, 10):
            told(part / 10)
            await ask_many(served, times // 10, stream=stream)
        growth = served.rss_kb() / warm - 1
    return Result(
        f"{times:,} {'streams' if stream else 'requests'}, 32 at once",
        f"memory {growth:+.1%}, from {warm / 1024:.0f} MiB",
        "< 5 %",
        growth < 0.05,
    )


Experiment = Callable[[Path, Told], Awaitable[Result]]
