"""How long a session lives, by a clock that the test moves, and whom a key belongs to."""

from dataclasses import replace

import pytest
from store_cases import NOW
from test_users import USER, admin_key

from mintoken import keys
from mintoken.config import AdminConfig
from mintoken.people import Member, Role, Session
from mintoken.sessions import is_alive, member_of_key, member_of_session, open_session

OPTIONS = AdminConfig(session_idle=600, session_limit=3600)
SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("age_s", "idle_s", "alive"),
    [
        (0, 0, True),
        (599, 599, True),
        (600, 600, False),
        (3599, 0, True),
        (3600, 0, False),
    ],
)
def test_a_session_ends_by_being_idle_and_by_its_age(age_s: int, idle_s: int, alive: bool) -> None:
    session = Session(
        id="s", user_id="u", created_at=NOW - age_s * 1000, last_seen_at=NOW - idle_s * 1000
    )
    assert is_alive(session, OPTIONS, now_ms=NOW) is alive


async def test_a_session_that_is_used_goes_on_to_its_limit(store) -> None:
    await store.save_user(USER)
    token = await open_session(store, SECRET, USER, OPTIONS, now_ms=NOW)
    seen = []
    for minutes in range(0, 70, 9):
        member = await member_of_session(
            store, SECRET, token, OPTIONS, now_ms=NOW + minutes * 60_000
        )
        seen.append(member is not None)
    assert seen == [True] * 7 + [False]


async def test_a_session_that_is_not_used_ends(store) -> None:
    await store.save_user(USER)
    token = await open_session(store, SECRET, USER, OPTIONS, now_ms=NOW)
    late = NOW + 600_000
    assert await member_of_session(store, SECRET, token, OPTIONS, now_ms=late) is None


async def test_what_a_browser_holds_is_not_what_is_stored(store, database) -> None:
    await store.save_user(USER)
    token = await open_session(store, SECRET, USER, OPTIONS, now_ms=NOW)
    member = await member_of_session(store, SECRET, token, OPTIONS, now_ms=NOW)
    assert member == Member(USER.id, USER.name, USER.role, USER.account_id, member.session_id)
    for file in database.parent.glob("mintoken.db*"):
        assert token.encode() not in file.read_bytes()
    assert await member_of_session(store, SECRET, member.session_id, OPTIONS, now_ms=NOW) is None
    assert await member_of_session(store, b"o" * 32, token, OPTIONS, now_ms=NOW) is None


async def test_each_session_has_an_id_of_its_own_and_opening_one_forgets_ended_ones(store) -> None:
    await store.save_user(USER)
    first = await open_session(store, SECRET, USER, OPTIONS, now_ms=NOW)
    later = NOW + 3_600_000
    second = await open_session(store, SECRET, USER, OPTIONS, now_ms=later)
    assert first != second
    assert len(first) >= 43
    endless = AdminConfig(session_idle=86400, session_limit=86400)
    assert await member_of_session(store, SECRET, first, endless, now_ms=NOW) is None
    assert await member_of_session(store, SECRET, second, endless, now_ms=later) is not None


async def test_an_admin_key_asks_with_its_own_role_until_it_is_revoked(store) -> None:
    token = keys.mint_key(start=keys.ADMIN)
    key = admin_key("k", role=Role.VIEWER, hash=keys.hash_key(SECRET, token))
    await store.save_admin_key(key)
    member = await member_of_key(store, SECRET, token)
    assert member == Member("k", "k", Role.VIEWER, "a", "")
    for other in (keys.mint_key(start=keys.ADMIN), keys.mint_key(), token + "0", ""):
        assert await member_of_key(store, SECRET, other) is None
    await store.save_admin_key(replace(key, revoked_at=NOW))
    assert await member_of_key(store, SECRET, token) is None
