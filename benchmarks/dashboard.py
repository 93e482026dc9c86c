"""Every page and every answer of the control plane through the real server, and what looking at
them does to the requests that it serves meanwhile."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles

import aiohttp

from benchmarks import bodies
from benchmarks.processes import pin
from benchmarks.targets import Target
from mintoken import members
from mintoken.app import ROUTES
from mintoken.clock import DAY_MS, utc_ms, utc_text
from mintoken.context import request_id
from mintoken.models import Intensity, Outcome, Rule, RuleAction
from mintoken.people import Role
from mintoken.routes.pages_overview import CHARTS, DAYS
from mintoken.stores.sqlite import open_sqlite

BAR_MS = 200.0
CHATS_AT_ONCE = 2
PAUSE_S = 0.01
"""Between two chats of one caller, so that the server has something to do, and room."""
LOOK_EVERY_S = 0.5
LOOKERS = 2
CORES = sorted(os.sched_getaffinity(0))
TURNS = 6
_LEFT_OUT = ("/api/events", "/dashboard/welcome/{token}")
"""A stream, and what works once and is throttled."""


async def prepare(data: Path, account: str) -> str:
    """Make rules to see, and the key of somebody who may see everything; that key."""
    store = await open_sqlite(data, clock_ms=utc_ms)
    try:
        for number in range(100):
            await store.save(
                Rule(
                    id=f"rule_{number}", account_id=account, action=RuleAction.LEVEL_LITE,
                    pattern=f"(?i)a pattern of the number {number}", created_at=utc_ms(),
                )
            )  # fmt: skip
        issued = await members.create_admin_key(
            store, data, account, "bench", Role.OWNER, now_ms=utc_ms()
        )
        return issued.token
    finally:
        await store.close()


def paths(now_ms: int, key: str, request: str) -> list[str]:
    """What there is to GET; raises KeyError where a route has nothing here that asks it."""
    deep = f"before={request_id(now_ms - 300 * DAY_MS)}"
    filters = [
        "", deep, f"key_id={key}", f"key_id={key}&{deep}", "model=model-4", "model=rare",
        "model=unknown", f"key_id={key}&model=model-4&intensity=ultra",
        *(f"intensity={one}" for one in Intensity),
        *(f"outcome={one}" for one in Outcome if one is not Outcome.RESERVED),
        "outcome=upstream_error&model=rare",
    ]  # fmt: skip
    year = f"start={utc_text(now_ms - 365 * DAY_MS)}"
    month = f"start={utc_text(now_ms - 30 * DAY_MS)}"
    queries: Mapping[str, Sequence[str]] = {
        "/dashboard": [f"days={days}" for days in DAYS],
        "/dashboard/charts/{name}": [f"days={days}" for days in DAYS],
        "/dashboard/requests": filters,
        "/api/requests": [*filters, "limit=200"],
        "/api/usage/summary": ["", year],
        "/api/usage/timeseries": [
            f"bucket={bucket}&by={by}&{start}"
            for by in ("none", "level", "model")
            for bucket, start in (("hour", month), ("day", year), ("week", year))
        ],
        "/api/usage/by-key": ["", year],
        "/api/usage/by-model": ["", year],
    }
    names: Mapping[str, Sequence[str]] = {
        "/dashboard/charts/{name}": [*CHARTS],
        "/dashboard/static/{name}": ["style.css"],
        "/dashboard/requests/{id}": [request],
        "/dashboard/keys/{id}": [key],
    }
    return [
        route[: route.index("{")] + name + "?" * bool(query) + query
        if "{" in route
        else route + "?" * bool(query) + query
        for method, route, _, _ in ROUTES
        if method == "GET" and route.startswith(("/api/", "/dashboard")) and route not in _LEFT_OUT
        for name in (names[route] if "{" in route else [""])
        for query in queries.get(route, [""])
    ]


def member(target: Target, token: str) -> aiohttp.ClientSession:
    """Who asks the admin listener."""
    url = f"http://127.0.0.1:{target.admin_port}"
    return aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"})


async def get(session: aiohttp.ClientSession, path: str) -> bytes:
    """The page. Raises aiohttp.ClientResponseError if it is none."""
    async with session.get(path, allow_redirects=False, raise_for_status=True) as answer:
        return await answer.read()


async def time_pages(target: Target, token: str, rounds: int) -> bool:
    """Print how long each takes; was every one under the bar, every time?"""
    good = True
    async with member(target, token) as session:
        for path in await everything(session):
            took = []
            for _ in range(rounds):
                begun = time.perf_counter()
                await get(session, path)
                took.append(1000 * (time.perf_counter() - begun))
            good &= max(took) < BAR_MS
            over = "" if max(took) < BAR_MS else f"  over {BAR_MS:.0f} ms"
            print(f"{path:78.78} p50 {median(took):6.1f} ms, max {max(took):6.1f} ms{over}")
    return good


async def everything(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/api/requests?limit=1", raise_for_status=True) as answer:
        [newest] = (await answer.json())["requests"]
    return paths(utc_ms(), newest["key_id"], newest["id"])


# --- While others look --------------------------------------------------------------------------


async def chats(target: Target, seconds: float) -> list[float]:
    """Milliseconds of each small request, from a few callers who wait in between."""
    took: list[float] = []
    request, end = target.request(bodies.small()), time.perf_counter() + seconds

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while (begun := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            took.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(PAUSE_S)
        writer.close()

    await asyncio.gather(*(caller() for _ in range(CHATS_AT_ONCE)))
    return took


def look(target: Target, token: str) -> None:
    """A process of somebody who opens one page after the other, with the charts that are on it."""
    os.sched_setaffinity(0, CORES[-1:])
    asyncio.run(_look(target, token))


async def _look(target: Target, token: str) -> None:
    async with member(target, token) as session:
        pages = [one for one in await everything(session) if one.startswith("/dashboard")]
        for path in chain.from_iterable(iter(lambda: pages, None)):
            begun = time.perf_counter()
            await get(session, path)
            await asyncio.sleep(max(0.0, begun + LOOK_EVERY_S - time.perf_counter()))


@contextmanager
def looking(target: Target, token: str, lookers: int) -> Iterator[None]:
    """So many of them, each in a process of his own."""
    started = [
        get_context("fork").Process(target=look, args=(target, token)) for _ in range(lookers)
    ]
    for one in started:
        one.start()
    try:
        yield
    finally:
        for one in started:
            assert one.is_alive(), "who looked has failed"
            one.terminate()
            one.join()


@contextmanager
def apart(upstream: Target, target: Target) -> Iterator[None]:
    """Who looks, and the worker that answers him, have a core of their own; the rest has another.

    So what is measured is not which of them the kernel lets run first.
    """
    *others, admin_worker = target.tree.pids()
    chatting = [*upstream.tree.pids(), *others, os.getpid()]
    pin(chatting, CORES[:1])
    pin([admin_worker], CORES[-1:])
    try:
        yield
    finally:
        pin([*chatting, admin_worker], CORES)


async def beside_pages(upstream: Target, target: Target, token: str, seconds: float) -> None:
    """Print how long chats take while nobody looks at the dashboard, and while two do, by turns:
    first with a core for each side, then with all cores for all."""
    for where, placed in (("apart", apart(upstream, target)), ("together", nullcontext())):
        took: dict[int, list[list[float]]] = {0: [], LOOKERS: []}
        with placed:
            await chats(target, 2)
            for _ in range(TURNS):
                for lookers in took:
                    with looking(target, token, lookers):
                        await asyncio.sleep(1)  # Until they look.
                        took[lookers].append(await chats(target, seconds / TURNS))
        for lookers, rounds in took.items():
            print(f"chats while {lookers} look at pages, {where}: {_told(rounds)}")


def _told(rounds: list[list[float]]) -> str:
    shares = [quantiles(one, n=100) for one in rounds]
    p50, p99 = ([share[at] for share in shares] for at in (49, 98))
    return (
        f"{sum(map(len, rounds)):,} of them, p50 {median(p50):.2f} ms, "
        f"p99 {median(p99):.2f} ms ({min(p99):.2f} to {max(p99):.2f} by round), "
        f"worst {max(chain.from_iterable(rounds)):.1f} ms"
    )
