"""Months begin and end in UTC."""

from datetime import UTC, datetime

import pytest

from mintoken.clock import month_of, seconds_to_next_month, utc_text


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "month", "left"),
    [
        (ms(2026, 11, 30, 23, 59, 59), "2026-11", 2),
        (ms(2026, 12, 31, 23, 59, 0), "2026-12", 61),
        (ms(2027, 1, 1), "2027-01", 31 * 86_400 + 1),
        (ms(2028, 2, 28, 12), "2028-02", 36 * 3600 + 1),
    ],
)
def test_a_month_ends_at_midnight_utc(now: int, month: str, left: int) -> None:
    assert month_of(now) == month
    assert seconds_to_next_month(now) == left


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (ms(2026, 11, 30, 23, 59, 59) + 999, "2026-11-30T23:59:59Z"),
        (ms(9999, 12, 31, 23, 59, 59) + 14 * 3_600_000, "9999-12-31T23:59:59Z"),
        (2**63 - 1, "9999-12-31T23:59:59Z"),
        (None, None),
    ],
)
def test_every_time_can_be_shown(at: int | None, text: str | None) -> None:
    assert utc_text(at) == text
