"""What the SQLite store answers the dashboard: sums from the roll-ups, and pages of requests."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from mintoken.reports import (
    OTHER,
    USAGE_SUMS,
    Bucket,
    Latency,
    Quota,
    RequestFilter,
    Series,
    Settled,
    Span,
    SplitBy,
    Summary,
    Usage,
    UsageOf,
    UsageRow,
)
from mintoken.stores.sqlite_file import reading, translated
from mintoken.stores.sqlite_pages import newest_place, page, settled_after

_T = TypeVar("_T")
_Sums = Sequence[int]
"""Values in the order of USAGE_SUMS."""
_NOTHING: _Sums = (0,) * len(USAGE_SUMS)

AT_ONCE = 1
"""Questions at work in this process at the same time, so that they take little from requests."""
MODELS_IN_LIST = 100
MODELS_IN_SERIES = 8

_NAMES = ", ".join(USAGE_SUMS)
_SUMS = ", ".join(f"sum({name})" for name in USAGE_SUMS)
# Whole days, the hours before and after them, and the hours that are not in the totals yet.
_CELLS = f"""
WITH cells AS (
    SELECT start AS hour, name, {_NAMES} FROM usage_totals
    WHERE account_id = :account_id AND dimension = :dimension AND step = 24
        AND start >= :head AND start < :tail
    UNION ALL
    SELECT start, name, {_NAMES} FROM usage_totals
    WHERE account_id = :account_id AND dimension = :dimension AND step = 1
        AND start >= :start AND start < :head
    UNION ALL
    SELECT start, name, {_NAMES} FROM usage_totals
    WHERE account_id = :account_id AND dimension = :dimension AND step = 1
        AND start >= :tail AND start < :end
    UNION ALL
    SELECT hour,
        CASE :dimension WHEN 'key' THEN key_id WHEN 'model' THEN model ELSE intensity END,
        {_NAMES}
    FROM usage_hours
    WHERE account_id = :account_id AND hour < :end AND hour >=
        max(:start, (SELECT hour FROM totals_until WHERE account_id = :account_id))
)"""  # noqa: S608 - of our own names
_TOTAL = f"{_CELLS} SELECT {_SUMS} FROM cells"  # noqa: S608
_GROUPS = f"{_CELLS} SELECT name, {_SUMS} FROM cells GROUP BY 1 ORDER BY 2 DESC, 1"  # noqa: S608
_SERIES = f"""{_CELLS}
SELECT iif(:by = 'none', '', name), (hour + :offset) / :size * :size - :offset, {_SUMS}
FROM cells GROUP BY 1, 2"""  # noqa: S608
_LATENCY = """
SELECT ms, sum(first_bytes), sum(durations) FROM latency_days
WHERE account_id = ? AND day >= ? AND day < ? GROUP BY ms"""
_LAST_USED = """
SELECT key_id, last_used_at FROM keys JOIN key_usage ON key_id = id WHERE account_id = ?"""
_QUOTA = """
SELECT coalesce(m.used, 0), coalesce(m.reserved, 0), a.monthly_tokens
FROM accounts a LEFT JOIN month_usage m ON m.account_id = a.id AND m.month = ?2
WHERE a.id = ?1"""


class SqliteAnalytics:
    """This part of a `base.Store`; each question has a connection of its own, in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._questions = asyncio.Semaphore(AT_ONCE)

    async def summary(self, account_id: str, span: Span) -> Summary:
        return await self._answer(partial(_summary, account_id, span))

    async def timeseries(
        self, account_id: str, span: Span, *, bucket: Bucket, by: SplitBy
    ) -> list[Series]:
        return await self._answer(partial(_timeseries, account_id, span, bucket, by))

    async def by_key(self, account_id: str, span: Span) -> list[UsageOf]:
        return await self._answer(partial(_by_key, account_id, span))

    async def by_model(self, account_id: str, span: Span) -> list[UsageOf]:
        return await self._answer(partial(_by_model, account_id, span))

    async def requests(
        self, account_id: str, *, wanted: RequestFilter, limit: int, before: str = ""
    ) -> list[UsageRow]:
        return await self._answer(partial(page, account_id, wanted, limit, before))

    async def newest_place(self) -> int:
        return await self._answer(newest_place)

    async def settled_after(self, place: int, *, account_id: str, limit: int) -> list[Settled]:
        return await self._answer(partial(settled_after, place, account_id, limit))

    async def last_used(self, account_id: str) -> Mapping[str, int]:
        return await self._answer(
            lambda database: dict(database.execute(_LAST_USED, [account_id]).fetchall())
        )

    async def quota(self, account_id: str, month: str) -> Quota:
        used, reserved, limit = await self._answer(
            lambda database: database.execute(_QUOTA, (account_id, month)).fetchone() or (0, 0, 0)
        )
        return Quota(used=used, reserved=reserved, limit=limit)

    async def _answer(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        async with self._questions:
            return await asyncio.to_thread(ask, self._path, work)


def ask(path: Path, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """Answer from one state of the database. Blocks."""
    with translated(), reading(path) as database:
        database.executescript("PRAGMA query_only=ON; PRAGMA trusted_schema=OFF; BEGIN")
        return work(database)


def _summary(account_id: str, span: Span, database: sqlite3.Connection) -> Summary:
    [sums] = database.execute(_TOTAL, _asked(account_id, span)).fetchall()
    days = span.start // 24, -(-span.end // 24)
    took = database.execute(_LATENCY, (account_id, *days)).fetchall()
    return Summary(
        usage=_usage(sums),
        first_byte=Latency.of({ms: count for ms, count, _ in took}),
        duration=Latency.of({ms: count for ms, _, count in took}),
    )


def _timeseries(
    account_id: str, span: Span, bucket: Bucket, by: SplitBy, database: sqlite3.Connection
) -> list[Series]:
    dimension = "model" if by is SplitBy.MODEL else "level"
    asked = _asked(account_id, span, dimension, by_day=bucket is not Bucket.HOUR)
    asked |= {"by": by.value, "size": bucket.hours, "offset": bucket.offset}
    places = {hour: at for at, hour in enumerate(range(span.start, span.end, bucket.hours))}
    lines: dict[str, list[_Sums]] = {}
    if by is SplitBy.NONE:
        lines[""] = [_NOTHING] * len(places)
    for group, hour, *sums in database.execute(_SERIES, asked):
        lines.setdefault(group, [_NOTHING] * len(places))[places[hour]] = sums
    ranked = sorted(lines.items(), key=lambda line: (-sum(sums[0] for sums in line[1]), line[0]))
    if by is SplitBy.MODEL and len(ranked) > MODELS_IN_SERIES:
        first, rest = ranked[: MODELS_IN_SERIES - 1], ranked[MODELS_IN_SERIES - 1 :]
        together = zip(*(values for _, values in rest), strict=True)
        ranked = [*first, (OTHER, [_added(sums) for sums in together])]
    return [
        Series(group, dict(zip(USAGE_SUMS, zip(*values, strict=True), strict=True)))
        for group, values in ranked
    ]


def _by_key(account_id: str, span: Span, database: sqlite3.Connection) -> list[UsageOf]:
    lines = database.execute(_GROUPS, _asked(account_id, span, "key")).fetchall()
    return [UsageOf(group, _usage(sums)) for group, *sums in lines]


def _by_model(account_id: str, span: Span, database: sqlite3.Connection) -> list[UsageOf]:
    lines = database.execute(_GROUPS, _asked(account_id, span, "model")).fetchall()
    if len(lines) > MODELS_IN_LIST:
        first, rest = lines[: MODELS_IN_LIST - 1], lines[MODELS_IN_LIST - 1 :]
        lines = [*first, (OTHER, *_added([line[1:] for line in rest]))]
    return [UsageOf(group, _usage(sums)) for group, *sums in lines]


def _asked(
    account_id: str, span: Span, dimension: str = "level", *, by_day: bool = True
) -> dict[str, object]:
    first, last = span.days
    has_days = by_day and first < last
    return {
        "account_id": account_id,
        "dimension": dimension,
        "start": span.start,
        "head": 24 * first if has_days else span.end,
        "tail": 24 * last if has_days else span.end,
        "end": span.end,
    }


def _added(lines: Sequence[_Sums]) -> _Sums:
    return [sum(values) for values in zip(*lines, strict=True)]


def _usage(sums: _Sums) -> Usage:
    return Usage(**{name: value or 0 for name, value in zip(USAGE_SUMS, sums, strict=True)})
