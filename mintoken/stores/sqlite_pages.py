"""An account's requests, as pages and as a feed, out of the rows of the SQLite store."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from itertools import chain
from typing import Any

from mintoken.models import Outcome
from mintoken.reports import HOUR_MS, RequestFilter, Settled, UsageRow

_NEWEST = "g"
"""After every id."""
_NAMES = [field.name for field in fields(UsageRow)]
_COLUMNS = ", ".join(f"found.{name}" for name in _NAMES)
_WANTED = """
(:key_id IS NULL OR key_id = :key_id) AND (:model IS NULL OR model = :model)
    AND (:intensity IS NULL OR intensity = :intensity)"""
# Hours without a match are passed over by the roll-ups. What is `ok` is no error: a status of 400
# or more never is.
_HAS_OK = "(:outcome IS NULL OR :outcome <> 'ok' OR requests > errors)"
_UNTIL = "(SELECT hour FROM totals_until WHERE account_id = :account_id)"
_NEW_HOURS = f"""
SELECT DISTINCT hour FROM usage_hours
WHERE account_id = :account_id AND hour BETWEEN max(:first, {_UNTIL}) AND :last
    AND {_WANTED}
ORDER BY hour DESC"""  # noqa: S608 - of our own names
_HOURS = f"""
SELECT DISTINCT start FROM usage_totals
WHERE account_id = :account_id AND dimension = :dimension AND step = 1
    AND start BETWEEN :first AND :last AND (:name IS NULL OR name = :name) AND {_HAS_OK}
    AND (NOT :is_mixed OR EXISTS (
        SELECT 1 FROM usage_hours
        WHERE account_id = :account_id AND hour = start AND {{key}} AND {_WANTED}))
ORDER BY start DESC"""  # noqa: S608
# The index says which rows match; only those are looked up.
_PAGE = """
SELECT {columns} FROM usage AS listed INDEXED BY {index} CROSS JOIN usage AS found USING (id)
WHERE listed.account_id = :account_id AND listed.id >= :low AND listed.id < :high
    AND (:key_id IS NULL OR listed.key_id = :key_id)
    AND (:model IS NULL OR listed.model = :model)
    AND (:intensity IS NULL OR listed.intensity = :intensity) AND {outcome}
ORDER BY listed.id DESC LIMIT :limit"""
_ROWS = _PAGE.format(
    columns=_COLUMNS,
    index="usage_account",
    outcome="found.outcome <> 'reserved' AND (:outcome IS NULL OR found.outcome = :outcome)",
)
_FAILED = _PAGE.format(
    columns=_COLUMNS,
    index="usage_failed",
    outcome="listed.outcome NOT IN ('reserved', 'ok') AND listed.outcome = :outcome",
)
_SETTLED = f"""
SELECT place, {", ".join(f"u.{name}" for name in _NAMES)}
FROM (
    SELECT place, usage_id FROM feed
    WHERE account_id = :account_id AND place > :place ORDER BY place LIMIT :limit
) JOIN usage u ON u.id = usage_id
ORDER BY place"""  # noqa: S608
_NEWEST_PLACE = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'feed'"
_ENDS = """
SELECT (SELECT min(id) FROM usage WHERE account_id = ?1),
    (SELECT max(id) FROM usage WHERE account_id = ?1)"""


def page(
    account_id: str,
    wanted: RequestFilter,
    limit: int,
    before: str,
    database: sqlite3.Connection,
) -> list[UsageRow]:
    """Up to `limit` rows that are wanted and older than the id `before`. Blocks."""
    asked = {**asdict(wanted), "account_id": account_id}
    has_failed = wanted.outcome not in (None, Outcome.OK, Outcome.RESERVED)
    statement = _FAILED if has_failed else _ROWS
    before = before or _NEWEST
    # Few fail, so that all of them can be looked through.
    stretches = [("", before)] if has_failed else _stretches(asked, before, database)
    found: list[sqlite3.Row] = []
    for low, high in stretches:
        limits = {"low": low, "high": high, "limit": limit - len(found)}
        found += database.execute(statement, asked | limits)
        if len(found) == limit:
            break
    return [_row(line) for line in found]


def settled_after(
    place: int, account_id: str, limit: int, database: sqlite3.Connection
) -> list[Settled]:
    """Up to `limit` rows that were settled behind a place, in their order. Blocks."""
    asked = {"place": place, "account_id": account_id, "limit": limit}
    return [Settled(at, _row(line)) for at, *line in database.execute(_SETTLED, asked)]


def newest_place(database: sqlite3.Connection) -> int:
    """The place of the row that was settled last, purged or not; 0 before the first. Blocks."""
    [(newest,)] = database.execute(_NEWEST_PLACE).fetchall()
    return int(newest or 0)


def _stretches(
    asked: dict[str, object], before: str, database: sqlite3.Connection
) -> Iterator[tuple[str, str]]:
    """From which id on, and up to which, there may be rows that are wanted; the newest first."""
    narrows = any(asked[name] is not None for name in ("key_id", "model", "intensity"))
    if not narrows and asked["outcome"] != Outcome.OK:
        yield "", before
        return
    [(oldest, newest)] = database.execute(_ENDS, [asked["account_id"]]).fetchall()
    if oldest is None:
        return
    asked = asked | {"first": _hour(oldest), "last": _hour(min(newest, before))}
    for (hour,) in chain(database.execute(_NEW_HOURS, asked), _old_hours(asked, database)):
        yield _least_id(hour), min(before, _least_id(hour + 1))


def _old_hours(asked: dict[str, object], database: sqlite3.Connection) -> sqlite3.Cursor:
    # A model is the rarest of them: one that is not known has no hour.
    named = {
        dimension: asked[column]
        for dimension, column in (("model", "model"), ("key", "key_id"), ("level", "intensity"))
        if asked[column] is not None
    }
    dimension, name = next(iter(named.items()), ("level", None))
    # Only with an equation of its own does SQLite look it up instead of reading the hour.
    statement = _HOURS.format(key="key_id = :key_id" if "key" in named else "1")
    more = {"dimension": dimension, "name": name, "is_mixed": len(named) > 1}
    return database.execute(statement, asked | more)


def _least_id(hour: int) -> str:
    """What no id made in that hour or later is less than."""
    ms = f"{hour * HOUR_MS:012x}"
    return f"{ms[:8]}-{ms[8:]}"


def _hour(id_: str) -> int:
    """The hour in which the id was made, since 1970 (RFC 9562 section 5.7)."""
    return int(id_[:8] + id_[9:13], 16) // HOUR_MS


def _row(line: Sequence[Any]) -> UsageRow:
    values = dict(zip(_NAMES, line, strict=True))
    return UsageRow(**{**values, "stream": bool(values["stream"])})
