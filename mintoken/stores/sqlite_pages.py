"""An account's requests, as pages and as a feed, out of the rows of the SQLite store."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from mintoken.models import Outcome
from mintoken.reports import HOUR_MS, RequestFilter, Settled, UsageRow

_NEWEST = "g"
"""After every id."""
_NAMES = [field.name for field in fields(UsageRow)]
_COLUMNS = ", ".join(_NAMES)
_WANTED = """
(:key_id IS NULL OR key_id = :key_id) AND (:model IS NULL OR model = :model)
    AND (:intensity IS NULL OR intensity = :intensity)"""
# What has no match is passed over by the roll-ups: whole days first, then hours. What is `ok` is
# no error: a status of 400 or more never is.
_HAS_OK = "(:outcome IS NULL OR :outcome <> 'ok' OR requests > errors)"
_DAYS = f"""
SELECT DISTINCT day FROM usage_days
WHERE account_id = :account_id AND day BETWEEN :first AND :last AND {_WANTED} AND {_HAS_OK}
ORDER BY day DESC"""  # noqa: S608 - of our own names
_HOURS = f"""
SELECT DISTINCT hour FROM usage_hours
WHERE account_id = :account_id AND hour BETWEEN 24 * :day AND 24 * :day + 23
    AND {_WANTED} AND {_HAS_OK}
ORDER BY hour DESC"""  # noqa: S608
_ROWS = f"""
SELECT {_COLUMNS} FROM usage INDEXED BY usage_account
WHERE account_id = :account_id AND id >= :low AND id < :high AND {_WANTED}
    AND outcome <> 'reserved' AND (:outcome IS NULL OR outcome = :outcome)
ORDER BY id DESC LIMIT :limit"""  # noqa: S608
_FAILED = f"""
SELECT {_COLUMNS} FROM usage INDEXED BY usage_failed
WHERE account_id = :account_id AND id >= :low AND id < :high AND {_WANTED}
    AND outcome NOT IN ('reserved', 'ok') AND outcome = :outcome
ORDER BY id DESC LIMIT :limit"""  # noqa: S608
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
    found: list[sqlite3.Row] = []
    for low, high in _stretches(asked, before or _NEWEST, database):
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
    first, last = _hour(oldest), _hour(min(newest, before))
    days = asked | {"first": first // 24, "last": last // 24}
    for (day,) in database.execute(_DAYS, days):
        for (hour,) in database.execute(_HOURS, asked | {"day": day}):
            if first <= hour <= last:
                yield _least_id(hour), min(before, _least_id(hour + 1))


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
