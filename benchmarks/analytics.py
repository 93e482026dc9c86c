"""`make bench-analytics`: the dashboard on millions of usage rows, and what it costs requests."""

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles

from benchmarks import dashboard
from benchmarks.processes import ROOT
from benchmarks.targets import mintoken, provider
from benchmarks.usage_rows import BIG, make_rows
from mintoken.clock import month_of, utc_ms
from mintoken.context import request_id
from mintoken.keys import server_secret
from mintoken.models import (
    CountedBy,
    Intensity,
    Outcome,
    Reservation,
    Settlement,
    TokenUsage,
)
from mintoken.reports import HOUR_MS, Bucket, RequestFilter, Span, SplitBy
from mintoken.stores.base import Batch
from mintoken.stores.sqlite import SqliteStore, open_sqlite

TURNS = 5
Question = Callable[[], Awaitable[object]]


def questions(store: SqliteStore, now_ms: int) -> Mapping[str, Question]:
    """What the pages ask, of the account that has nearly all rows."""
    hour = now_ms // HOUR_MS
    month, year, odd = (Span(hour + 1 - hours, hour + 1) for hours in (720, 8760, 8760 - 5))

    def series(span: Span, bucket: Bucket, by: SplitBy) -> Question:
        whole = Span.around(span.start * HOUR_MS, span.end * HOUR_MS, bucket)
        return lambda: store.timeseries(BIG, whole, bucket=bucket, by=by)

    return {
        "summary, 30 days": lambda: store.summary(BIG, month),
        "summary, a year": lambda: store.summary(BIG, odd),
        "by key, a year": lambda: store.by_key(BIG, odd),
        "by model, a year": lambda: store.by_model(BIG, odd),
        **{
            f"time series, {name}, by {by}": series(span, bucket, by)
            for name, span, bucket in (
                ("30 days by hour", month, Bucket.HOUR),
                ("a year by day", year, Bucket.DAY),
                ("a year by week", year, Bucket.WEEK),
            )
            for by in SplitBy
        },
        **pages(store, now_ms),
        "last used, by key": lambda: store.last_used(BIG),
        "samples of experiments": lambda: store.samples(account_id=BIG),
        "quota": lambda: store.quota(BIG, month_of(now_ms)),
    }


def pages(store: SqliteStore, now_ms: int) -> Mapping[str, Question]:
    """Pages of requests, with filters of every kind."""
    older = request_id(now_ms - 100 * 24 * HOUR_MS)

    def page(before: str = "", **wanted: str) -> Question:
        asked = RequestFilter(**wanted)  # type: ignore[arg-type]
        return lambda: store.requests(BIG, wanted=asked, limit=50, before=before)

    return {
        "requests": page(),
        "requests before those of 100 days": page(older),
        "requests, one key": page(key_id="key-3"),
        "requests, one key, model, level": page(
            key_id="key-3", model="model-4", intensity=Intensity.ULTRA
        ),
        "requests, a model one in 100,000": page(model="rare"),
        "requests, an unknown model": page(model="unknown"),
        "requests, crashed": page(outcome=Outcome.CRASHED),
        "requests, crashed, one model": page(outcome=Outcome.CRASHED, model="model-5"),
        "requests, upstream_error, a rare model": page(
            outcome=Outcome.UPSTREAM_ERROR, model="rare"
        ),
        "requests, a key with another's model": page(key_id="key-3", model="unknown"),
        "requests, ok": page(outcome=Outcome.OK),
    }


async def time_of(question: Question, rounds: int) -> list[float]:
    """Milliseconds of each round."""
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await question()
        took.append(1000 * (time.perf_counter() - begun))
    return took


async def commits(store: SqliteStore, *, seconds: float) -> list[float]:
    """Milliseconds of commits of ten requests that come and ten that end, 50 in a second."""
    took: list[float] = []
    settlements: list[Settlement] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        reservations = [_reservation(utc_ms()) for _ in range(10)]
        await store.commit(Batch(settlements=settlements, reservations=reservations))
        took.append(1000 * (time.perf_counter() - begun))
        settlements = [_settlement(one) for one in reservations]
        await asyncio.sleep(max(0.0, begun + 0.02 - time.perf_counter()))
    await store.commit(Batch(settlements=settlements))
    return took


def _reservation(now_ms: int) -> Reservation:
    return Reservation(
        id=request_id(now_ms), account_id=BIG, key_id="key-3", started_at=now_ms,
        month=month_of(now_ms), protocol="openai_chat", model="model-1", stream=True,
        intensity=Intensity.FULL, reason="key", arm="", prompt_version="1", injected_tokens=90,
        bytes_in=1000, reserved_tokens=1000, needed_tokens=1,
    )  # fmt: skip


def _settlement(reserved: Reservation) -> Settlement:
    tokens = TokenUsage(input=900, output=300, counted_by=CountedBy.UPSTREAM)
    return Settlement(
        id=reserved.id, outcome=Outcome.OK, status=200, tokens=tokens, charged_tokens=300,
        first_byte_ms=400, duration_ms=5000, bytes_out=4000,
    )  # fmt: skip


async def reader(asked: Sequence[Question], pause_s: float) -> None:
    """Ask everything, again and again."""
    while True:
        for question in asked:
            await question()
            await asyncio.sleep(pause_s)


async def beside_readers(store: SqliteStore, asked: Sequence[Question], seconds: float) -> None:
    """Print how long commits take while nobody asks, and while two do, by turns."""
    paces = {"nobody asks": None, "two ask twice a second": 0.5, "two ask without a pause": 0.0}
    took: dict[str, list[float]] = {name: [] for name in paces}
    for _ in range(TURNS):
        for name, pause_s in paces.items():
            orders = () if pause_s is None else (asked, asked[::-1])
            asking = [asyncio.create_task(reader(order, pause_s or 0.0)) for order in orders]
            took[name] += await commits(store, seconds=seconds / TURNS)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    for name, found in took.items():
        share = quantiles(found, n=100)
        print(
            f"{len(found)} commits while {name}: p50 {share[49]:.1f} ms, p99 {share[98]:.1f} ms, "
            f"worst {max(found):.1f} ms"
        )


async def measure(folder: Path, *, rounds: int, seconds: float) -> bool:
    """Print everything; was every question under the bar?"""
    begun = time.perf_counter()
    store = await open_sqlite(folder, clock_ms=utc_ms)
    print(f"opened in {time.perf_counter() - begun:.1f} s, the back-filling of sums included")
    good = True
    try:
        asked = questions(store, utc_ms())
        for name, question in asked.items():
            took = await time_of(question, rounds)
            good &= max(took) < dashboard.BAR_MS
            print(f"{name:44} median {median(took):6.1f} ms, worst {max(took):6.1f} ms")
        await beside_readers(store, list(asked.values()), seconds)
    finally:
        await store.close()
    return good


def through_server(data: Path, *, rounds: int, seconds: float) -> bool:
    """Print everything that a member sees; was every page under the bar?"""
    server_secret(data)
    token = asyncio.run(dashboard.prepare(data, BIG))
    with provider(data.parent) as upstream, mintoken(data.parent, upstream, account=BIG) as target:
        good = asyncio.run(dashboard.time_pages(target, token, rounds))
        asyncio.run(dashboard.beside_pages(upstream, target, token, seconds))
    return good


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analytics", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=15, help="of each question")
    parser.add_argument(
        "--seconds", type=float, default=30, help="of commits, at each pace of asking"
    )
    asked = parser.parse_args(arguments)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as name:
        folder = Path(name) / "data"
        folder.mkdir(0o700)
        begun = time.perf_counter()
        make_rows(folder, rows=asked.rows, now_ms=utc_ms())
        size = (folder / "mintoken.db").stat().st_size / 2**20
        print(f"{asked.rows:,} rows made in {time.perf_counter() - begun:.0f} s, {size:,.0f} MiB")
        good = asyncio.run(measure(folder, rounds=asked.rounds, seconds=asked.seconds))
        good &= through_server(folder, rounds=asked.rounds, seconds=asked.seconds)
        _print_sizes(folder / "mintoken.db")
    print(f"every question and page under {dashboard.BAR_MS:.0f} ms: {'yes' if good else 'NO'}")
    return 0 if good else 1


def _print_sizes(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        for table in ("usage_hours", "usage_totals", "latency_days", "experiment_samples"):
            [(count,)] = database.execute(f"SELECT count(*) FROM {table}")
            print(f"{table}: {count:,} rows")
    print(f"the database: {path.stat().st_size / 2**20:,.0f} MiB")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
