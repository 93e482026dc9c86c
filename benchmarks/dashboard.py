"""Every page and endpoint of the dashboard by HTTP, and what chats take while people look."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import aiohttp

from benchmarks import bodies, targets
from benchmarks.targets import Target
from mintoken import keys, members
from mintoken.app import ROUTES
from mintoken.clock import utc_ms
from mintoken.people import Role
from mintoken.stores.sqlite import open_sqlite

BAR_MS = 200.0
TURNS = 5
CHATS_PER_S = 25
PAUSE_S = 0.5
"""Between two pages of one person who looks around quickly."""
VARIANTS = {
    "/dashboard": ("?days=1", "?days=7", "?days=90"),
    "/dashboard/charts/{name}": ("?days=1", "?days=90"),
    "/dashboard/requests": ("?model=rare", "?key_id=key-3&intensity=ultra", "?outcome=crashed"),
    "/api/usage/timeseries": ("?bucket=hour&by=model", "?bucket=week&by=level"),
    "/api/requests": ("?limit=200", "?model=rare", "?outcome=upstream_error&model=rare"),
}


def paths(request_id: str) -> list[str]:
    """What can be got: every route of members, some with what may be asked of it."""
    found = []
    for method, path, _, access in ROUTES:
        if method == "GET" and access.role and path != "/api/events":
            kinds = ("key-3",) if "keys" in path else (request_id,)
            names = kinds if "{id}" in path else _charts() if "{name}" in path else ("",)
            for name in names:
                real = path.replace("{id}", name).replace("{name}", name)
                found += [real, *(real + variant for variant in VARIANTS.get(path, ()))]
    return found


def _charts() -> Sequence[str]:
    from mintoken.routes.pages_overview import CHARTS

    return tuple(CHARTS)


async def measure(folder: Path, account: str, *, rounds: int, seconds: float) -> bool:
    """Print everything of the database in `folder`/data; was every answer under the bar?"""
    keys.server_secret(folder / "data")
    store = await open_sqlite(folder / "data", clock_ms=utc_ms)
    try:
        issued = await members.create_admin_key(
            store, folder / "data", account, "bench", Role.OWNER, now_ms=utc_ms()
        )
    finally:
        await store.close()
    with (
        targets.provider(folder) as upstream,
        targets.mintoken(folder, upstream, account=account) as target,
    ):
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{target.port}", headers={"Authorization": f"Bearer {issued.token}"}
        ) as member:
            async with member.get("/api/requests?limit=1") as answer:
                [newest] = (await answer.json())["requests"]
            asked = paths(newest["id"])
            good = await _ask_all(member, asked, rounds)
            await _beside(target, member, asked, seconds)
    return good


async def _ask_all(member: aiohttp.ClientSession, asked: Sequence[str], rounds: int) -> bool:
    good = True
    for path in asked:
        took = [await _get(member, path) for _ in range(rounds)]
        good &= max(took) < BAR_MS
        print(f"{path[:60]:60} median {median(took):6.1f} ms, worst {max(took):6.1f} ms")
    return good


async def _get(member: aiohttp.ClientSession, path: str) -> float:
    """Milliseconds until it is there, whole."""
    begun = time.perf_counter()
    async with member.get(path) as answer:
        await answer.read()
        assert answer.status == 200, f"{path}: {answer.status}"
    return 1000 * (time.perf_counter() - begun)


async def _beside(
    target: Target, member: aiohttp.ClientSession, asked: Sequence[str], seconds: float
) -> None:
    """Print how long chats take while nobody looks, and while two people do, by turns."""
    took: dict[str, list[float]] = {"nobody looks": [], "two people look around": []}
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{target.port}", headers=target.headers
    ) as caller:
        await _chats(caller, 1.0)
        for _ in range(TURNS):
            for name, found in took.items():
                orders = () if name == "nobody looks" else (asked, asked[::-1])
                looking = [asyncio.create_task(_look(member, order)) for order in orders]
                found += await _chats(caller, seconds / TURNS)
                for task in looking:
                    task.cancel()
                await asyncio.gather(*looking, return_exceptions=True)
    for name, found in took.items():
        share = quantiles(found, n=100)
        print(
            f"{len(found)} chats while {name}: p50 {share[49]:.1f} ms, p99 {share[98]:.1f} ms, "
            f"worst {max(found):.1f} ms"
        )


async def _look(member: aiohttp.ClientSession, asked: Sequence[str]) -> None:
    while True:
        for path in asked:
            await _get(member, path)
            await asyncio.sleep(PAUSE_S)


async def _chats(caller: aiohttp.ClientSession, seconds: float) -> list[float]:
    """Milliseconds of small chats at an even pace, however long one takes."""
    took: list[float] = []
    body = bodies.small()

    async def chat() -> None:
        begun = time.perf_counter()
        async with caller.post(bodies.PATH, data=body) as answer:
            await answer.read()
            assert answer.status == 200
        took.append(1000 * (time.perf_counter() - begun))

    async with asyncio.TaskGroup() as group:
        for _ in range(max(2, round(seconds * CHATS_PER_S))):
            group.create_task(chat())
            await asyncio.sleep(1 / CHATS_PER_S)
    return took
