"""The leaky bucket, by a clock that the test moves."""

import pytest

from mintoken.errors import Code, MintokenError
from mintoken.models import Intensity, Key
from mintoken.rates import RateLimiter


def key(**limits: int) -> Key:
    return Key(
        id="k", account_id="a", name="n", prefix="p", hash=b"", intensity=Intensity.FULL,
        created_at=0, **limits,
    )  # fmt: skip


def test_a_key_may_burst_to_its_rate_and_then_gets_one_more_each_interval() -> None:
    now = 100.0
    limiter = RateLimiter(lambda: now)
    limited = key(rpm=6)
    for _ in range(6):
        limiter.enter(limited)
    for _ in range(3):
        with pytest.raises(MintokenError) as caught:
            limiter.enter(limited)
        assert caught.value.code is Code.RATE_LIMIT_EXCEEDED
        assert caught.value.headers["Retry-After"] == "10"
        now += 10
        limiter.enter(limited)


def test_over_an_hour_the_rate_holds() -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now)
    limited, admitted = key(rpm=60), 0
    for _ in range(36_000):
        now += 0.1
        try:
            limiter.enter(limited)
            admitted += 1
        except MintokenError:
            pass
    assert 3600 <= admitted <= 3660


def test_concurrency_is_freed_by_leaving() -> None:
    limiter = RateLimiter(lambda: 0.0)
    limited = key(concurrency=2)
    limiter.enter(limited)
    limiter.enter(limited)
    with pytest.raises(MintokenError, match="2 requests at once"):
        limiter.enter(limited)
    limiter.leave(limited)
    limiter.enter(limited)


def test_no_limit_is_no_limit() -> None:
    limiter = RateLimiter(lambda: 0.0)
    for _ in range(1000):
        limiter.enter(key())
