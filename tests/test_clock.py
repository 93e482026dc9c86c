"""Months begin and end in UTC."""

from datetime import UTC, datetime

import pytest

from mintoken.clock import month_of, seconds_to_next_month


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
