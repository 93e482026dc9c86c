"""Time in the units of the house: UTC milliseconds and calendar months."""

import time
from datetime import UTC, datetime
from functools import lru_cache

DAY_MS = 86_400_000
_LAST_S = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def utc_ms() -> int:
    """The clock of production: UTC milliseconds."""
    return time.time_ns() // 1_000_000


def month_of(now_ms: int) -> str:
    """The UTC calendar month, as `2026-11`."""
    return _month_of_day(now_ms // DAY_MS)


@lru_cache(maxsize=2)
def _month_of_day(day: int) -> str:
    return _utc(day * DAY_MS).strftime("%Y-%m")


def seconds_to_next_month(now_ms: int) -> int:
    """Whole seconds until the next UTC calendar month has begun."""
    now = _utc(now_ms)
    year, month = divmod(now.year * 12 + now.month, 12)
    return int((datetime(year, month + 1, 1, tzinfo=UTC) - now).total_seconds()) + 1


def _utc(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def utc_text(ms: int | None) -> str | None:
    """A time for people and programs: ISO 8601 in UTC, in whole seconds; None stays None.

    What is later than the calendar, as an expiry may be, is its last second.
    """
    if ms is None:
        return None
    return datetime.fromtimestamp(min(ms // 1000, _LAST_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
