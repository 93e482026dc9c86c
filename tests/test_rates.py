"""The leaky bucket, by a clock that the test moves."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mintoken.errors import Code, MintokenError
from mintoken.models import Intensity, Key
from mintoken.rates import (
    FAILURES_PER_MINUTE,
    SIGN_INS_OF_ADDRESS,
    SIGN_INS_OF_NAME,
    SLOTS,
    RateLimiter,
    RateTable,
    _duration,
)


@pytest.fixture
def table() -> Iterator[RateTable]:
    table = RateTable()
    yield table
    table.close()


def key(**limits: int) -> Key:
    return Key(
        id="k", account_id="a", name="n", prefix="p", hash=b"", intensity=Intensity.FULL,
        created_at=0, **limits,
    )  # fmt: skip


def test_a_key_may_burst_to_its_rate_and_then_gets_one_more_each_interval(table: RateTable) -> None:
    now = 100.0
    limiter = RateLimiter(table, lambda: now)
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


def test_over_an_hour_the_rate_holds(table: RateTable) -> None:
    now = 0.0
    limiter = RateLimiter(table, lambda: now)
    limited, admitted = key(rpm=60), 0
    for _ in range(36_000):
        now += 0.1
        try:
            limiter.enter(limited)
            admitted += 1
        except MintokenError:
            pass
    assert 3600 <= admitted <= 3660


def test_concurrency_is_freed_by_leaving(table: RateTable) -> None:
    limiter = RateLimiter(table, lambda: 0.0)
    limited = key(concurrency=2)
    first = limiter.enter(limited)
    limiter.enter(limited)
    with pytest.raises(MintokenError, match="2 at once"):
        limiter.enter(limited)
    limiter.leave(first)
    limiter.enter(limited)


def test_no_limit_is_no_limit(table: RateTable) -> None:
    limiter = RateLimiter(table, lambda: 0.0)
    for _ in range(1000):
        # Nothing to take note of, so nothing to leave.
        assert limiter.enter(key()) is None
        limiter.leave(None)


def test_the_limits_hold_across_processes_and_a_dead_ones_requests_are_forgotten(
    table: RateTable,
) -> None:
    one, other = (RateLimiter(table, lambda: 0.0, lane=lane) for lane in (0, 1))
    limited = key(concurrency=2, rpm=3)
    one.enter(limited)
    other.enter(limited)
    with pytest.raises(MintokenError, match="2 at once"):
        other.enter(limited)
    table.forget(0)
    again = RateLimiter(table, lambda: 0.0, lane=0)
    again.enter(limited)
    table.forget(0)
    with pytest.raises(MintokenError, match="3 per minute"):
        again.enter(limited)


def test_a_refusal_tells_in_openais_spelling(table: RateTable) -> None:
    limiter = RateLimiter(table, lambda: 0.0)
    limited = key(rpm=2)
    limiter.enter(limited)
    limiter.enter(limited)
    with pytest.raises(MintokenError) as caught:
        limiter.enter(limited)
    assert caught.value.headers == {
        "Retry-After": "30",
        "x-should-retry": "true",
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.12, "120ms"), (1.0, "1s"), (1.5, "1.5s"), (360.0, "6m0s"), (61, "1m1s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_a_full_table_recycles_what_is_idle_and_refuses_before_it_forgets(table: RateTable) -> None:
    now = 0.0
    limiter = RateLimiter(table, lambda: now)
    keys = [replace(key(rpm=60), id=str(n)) for n in range(3 * SLOTS)]

    def is_let_in(one: Key) -> bool:
        try:
            limiter.leave(limiter.enter(one))
        except MintokenError as error:
            return error.code is not Code.OVERLOADED
        return True

    let_in = sum(map(is_let_in, keys[: 2 * SLOTS]))
    assert SLOTS * 0.9 < let_in <= SLOTS
    now = 1.0
    for one in keys[2 * SLOTS : 2 * SLOTS + 1000]:
        limiter.leave(limiter.enter(one))


@pytest.mark.parametrize(
    ("address", "neighbour", "stranger"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", "2001:db8:0:1::1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.2"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe81::1%eth0"),
    ],
)
def test_an_address_may_fail_so_often(
    table: RateTable, address: str, neighbour: str, stranger: str
) -> None:
    now = 0.0
    one, other = (RateLimiter(table, lambda: now, lane=lane) for lane in (0, 1))
    for _ in range(FAILURES_PER_MINUTE):
        one.fail(address)
    with pytest.raises(MintokenError, match="without a good key") as caught:
        other.fail(neighbour)
    assert caught.value.code is Code.RATE_LIMIT_EXCEEDED
    other.fail(stranger)
    now += 1
    other.fail(neighbour)


def test_a_flood_of_addresses_takes_no_room_from_keys(table: RateTable) -> None:
    limiter = RateLimiter(table, lambda: 0.0)
    told: Counter[Code | None] = Counter()
    for number in range(3 * SLOTS):
        try:
            limiter.fail(f"2001:db8:0:{number:x}::1")
            told[None] += 1
        except MintokenError as error:
            told[error.code] += 1
    assert told.keys() == {None, Code.OVERLOADED}, "the room of addresses was not used up"
    for number in range(SLOTS // 2):
        assert limiter.enter(replace(key(rpm=60), id=str(number))) is not None


def test_a_process_that_was_stopped_with_the_table_in_its_hand_holds_up_nobody(
    table: RateTable,
) -> None:
    stopped, other = (RateLimiter(table, lambda: 0.0, lane=lane) for lane in (0, 1))
    slot = other.enter(key(rpm=60))
    with stopped._alone():
        with pytest.raises(MintokenError) as caught:
            other.enter(key(rpm=60))
        assert caught.value.code is Code.OVERLOADED
        other.leave(slot)
    other.leave(other.enter(key(rpm=60)))


def test_attempts_to_sign_in_are_limited_by_name_and_by_address(table: RateTable) -> None:
    now = 0.0
    limiter = RateLimiter(table, lambda: now)
    for n in range(SIGN_INS_OF_NAME):
        limiter.attempt("ada", f"192.0.2.{n}")
    with pytest.raises(MintokenError, match="by this name") as caught:
        limiter.attempt("ada", "192.0.2.99")
    assert caught.value.code is Code.RATE_LIMIT_EXCEEDED
    limiter.attempt("bob", "192.0.2.99")
    for n in range(SIGN_INS_OF_ADDRESS):
        limiter.attempt(f"user {n}", "2001:db8::1")
    with pytest.raises(MintokenError, match="from this address"):
        limiter.attempt("eve", "2001:db8::2")
    limiter.fail("2001:db8::1")
    now += 60 / SIGN_INS_OF_NAME
    limiter.attempt("ada", "192.0.2.99")
    with pytest.raises(MintokenError, match="by this name"):
        limiter.attempt("ada", "192.0.2.99")


def test_attempts_are_counted_across_processes(table: RateTable) -> None:
    workers = [RateLimiter(table, lambda: 0.0, lane=lane) for lane in range(SIGN_INS_OF_NAME)]
    for worker in workers:
        worker.attempt("ada", "192.0.2.1")
    with pytest.raises(MintokenError, match="by this name"):
        workers[0].attempt("ada", "192.0.2.1")
    for worker in workers:
        worker.close()
