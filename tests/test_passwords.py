"""Passwords: what is stored, and that whoever is not there costs as much."""

import asyncio

import pytest
from argon2 import PasswordHasher, extract_parameters

from mintoken import passwords
from mintoken.passwords import (
    LONGEST,
    NOBODYS,
    SHORTEST,
    PasswordThread,
    hash_password,
    is_password,
    wrong_with,
)

GOOD = "correct horse battery staple"


def test_a_password_is_known_by_its_argon2id_hash() -> None:
    first, second = hash_password(GOOD), hash_password(GOOD)
    assert first.startswith("$argon2id$")
    assert first != second
    assert GOOD not in first
    for hash_ in (first, second):
        assert is_password(GOOD, hash_)
        assert PasswordHasher().verify(hash_, GOOD)
        for other in ("", GOOD + " ", GOOD.upper(), "\ud800"):
            assert not is_password(other, hash_)


def test_who_is_not_there_costs_as_much_as_who_is() -> None:
    assert extract_parameters(NOBODYS) == extract_parameters(hash_password(GOOD))
    assert not is_password(GOOD, NOBODYS)
    assert not is_password("", NOBODYS)


def test_a_hash_that_is_none_is_nobodys() -> None:
    assert not is_password(GOOD, "!")


@pytest.mark.parametrize(
    ("length", "good"), [(0, False), (SHORTEST - 1, False), (SHORTEST, True), (LONGEST, True),
                         (LONGEST + 1, False)],
)  # fmt: skip
def test_the_length_of_a_password(length: int, good: bool) -> None:
    assert (wrong_with("x" * length) is None) is good


async def test_one_is_worked_on_at_a_time_and_the_loop_goes_on() -> None:
    thread = PasswordThread()
    hash_ = await thread.hash(GOOD)
    turns, working = 0, [asyncio.ensure_future(thread.check(GOOD, hash_)) for _ in range(4)]
    while not working[-1].done():
        turns += 1
        await asyncio.sleep(0)
    assert [one.result() for one in working] == [True] * 4
    assert turns > 10
    assert await thread.check(GOOD, None) is False
    assert len(thread._thread._threads) == 1
    thread.close()


def test_the_settings_are_those_that_are_documented() -> None:
    hasher = passwords._HASHER
    assert (hasher.time_cost, hasher.memory_cost, hasher.parallelism) == (2, 19 * 1024, 1)
