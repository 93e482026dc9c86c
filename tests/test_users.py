"""One suite for every store: what the seam promises of people."""

import asyncio
from dataclasses import replace

import pytest
from store_cases import NOW, add_account, ask

from mintoken.errors import NameTakenError, StorageError
from mintoken.people import AdminKey, Role, Session, User

USER = User(
    id="u", account_id="a", name="ada", role=Role.OWNER, password_hash="$argon2id$", created_at=NOW
)
NEVER = (0, 0)


def session(id_: str = "s", *, began: int = NOW, seen: int = NOW, user_id: str = "u") -> Session:
    return Session(id=id_, user_id=user_id, created_at=began, last_seen_at=seen)


def admin_key(id_: str, **more) -> AdminKey:
    values = {"account_id": "a", "name": id_, "role": Role.ADMIN, "hash": id_.encode()} | more
    return AdminKey(id=id_, prefix="mt_admin_abc", created_at=NOW, **values)


async def test_users_come_back_as_they_were_saved_the_oldest_first(store):
    await add_account(store, "b")
    other = replace(USER, id="a", account_id="b", name="bob", role=Role.VIEWER, created_at=NOW + 1)
    for one in (other, USER):
        await store.save_user(one)
    assert await store.users() == [USER, other]
    assert await store.users(account_id="b") == [other]
    assert await store.users(name="ada") == [USER]
    assert await store.users(account_id="b", name="ada") == []


async def test_a_user_name_is_taken_once_in_all_accounts(store):
    await add_account(store, "b")
    await store.save_user(USER)
    with pytest.raises(NameTakenError, match="'ada'"):
        await store.save_user(replace(USER, id="v", account_id="b"))
    await store.save_user(replace(USER, role=Role.ADMIN))
    assert [one.role for one in await store.users()] == [Role.ADMIN]


async def test_a_user_of_an_unknown_account_is_a_storage_error(store):
    with pytest.raises(StorageError):
        await store.save_user(replace(USER, account_id="nobody"))


async def test_a_removed_user_is_gone_with_his_sessions(store, database):
    await store.save_user(USER)
    await store.open_session(session(), before=NEVER)
    await store.remove_user("u")
    await store.remove_user("u")
    assert await store.users() == []
    assert await store.session("s") is None
    assert ask(database, "SELECT count(*) FROM sessions") == [(0,)]


async def test_of_owners_who_are_removed_at_once_one_stays(store):
    owners = [replace(USER, id=id_, name=id_, role=Role.OWNER) for id_ in ("u", "v")]
    for one in (*owners, replace(USER, id="w", name="w", role=Role.VIEWER)):
        await store.save_user(one)
    removed = await asyncio.gather(
        *(store.remove_user(one.id, keep_an_owner=True) for one in owners)
    )
    assert sorted(removed) == [False, True]
    assert await store.remove_user("w", keep_an_owner=True)
    [left] = await store.users()
    assert left in owners
    assert not await store.remove_user(left.id, keep_an_owner=True)
    assert await store.remove_user(left.id)
    assert not await store.remove_user(left.id)


async def test_an_owner_of_another_account_is_none_of_this_one(store):
    await add_account(store, "b")
    await store.save_user(replace(USER, role=Role.OWNER))
    await store.save_user(replace(USER, id="v", name="v", account_id="b", role=Role.OWNER))
    assert not await store.remove_user("u", keep_an_owner=True)


async def test_an_invitation_is_good_until_its_time_and_the_newest_counts(store):
    assert await store.invite(b"old", expires_at=NOW + 9)
    assert await store.invite(b"new", expires_at=NOW + 5)
    assert not await store.is_invited(b"old", now_ms=NOW)
    assert await store.is_invited(b"new", now_ms=NOW + 4)
    assert not await store.is_invited(b"new", now_ms=NOW + 5)
    assert not await store.save_invited(USER, b"old")
    assert not await store.save_invited(replace(USER, created_at=NOW + 5), b"new")
    assert await store.users() == []
    assert await store.save_invited(USER, b"new")
    assert await store.users() == [USER]
    assert not await store.save_invited(replace(USER, id="v", name="eve"), b"new")


async def test_any_new_user_ends_an_invitation_and_there_is_none_with_users(store):
    await store.invite(b"i", expires_at=NOW + 9)
    await store.save_user(USER)
    assert not await store.is_invited(b"i", now_ms=NOW)
    assert not await store.invite(b"j", expires_at=NOW + 9)
    await store.remove_user("u")
    assert not await store.save_invited(USER, b"i")


async def test_a_session_comes_back_with_its_user_until_it_is_closed(store):
    await store.save_user(USER)
    await store.open_session(session(), before=NEVER)
    assert await store.session("s") == (session(), USER)
    await store.see_session("s", now_ms=NOW + 5)
    await store.see_session("s", now_ms=NOW + 3)
    assert await store.session("s") == (session(seen=NOW + 5), USER)
    await store.close_session("s")
    await store.close_session("s")
    await store.see_session("s", now_ms=NOW)
    assert await store.session("s") is None


async def test_a_session_of_nobody_is_a_storage_error(store):
    with pytest.raises(StorageError):
        await store.open_session(session(user_id="nobody"), before=NEVER)


async def test_opening_a_session_forgets_old_and_idle_ones(store):
    await store.save_user(USER)
    for one in (
        session("old", began=NOW - 20),
        session("idle", seen=NOW - 10),
        session("good", began=NOW - 19, seen=NOW - 9),
    ):
        await store.open_session(one, before=NEVER)
    await store.open_session(session("new"), before=(NOW - 19, NOW - 9))
    assert [await store.session(one) is None for one in ("old", "idle", "good", "new")] == [
        True,
        True,
        False,
        False,
    ]


async def test_a_new_password_ends_all_sessions_and_other_changes_do_not(store):
    await store.save_user(USER)
    await store.open_session(session(), before=NEVER)
    await store.save_user(replace(USER, role=Role.VIEWER))
    assert await store.session("s") is not None
    await store.set_password("u", "$argon2id$new")
    assert await store.session("s") is None
    [user] = await store.users()
    assert user == replace(USER, role=Role.VIEWER, password_hash="$argon2id$new")
    await store.remove_user("u")
    await store.set_password("u", "$argon2id$newer")
    assert await store.users() == []


async def test_admin_keys_come_back_as_they_were_saved_and_one_by_its_hash(store):
    one, two = admin_key("one"), admin_key("two", role=Role.VIEWER, revoked_at=NOW)
    for key in (one, two):
        await store.save_admin_key(key)
    assert await store.admin_keys() == [one, two]
    assert await store.admin_keys(hash_=b"two") == [two]
    assert await store.admin_keys(hash_=b"none") == []
    assert "secret" not in repr(replace(one, hash=b"secret"))


async def test_an_admin_key_name_is_taken_within_its_account_until_it_is_revoked(store):
    await store.save_admin_key(admin_key("one", name="ci"))
    with pytest.raises(NameTakenError, match="'ci'"):
        await store.save_admin_key(admin_key("two", name="ci"))
    await store.save_admin_key(admin_key("one", name="ci", revoked_at=NOW))
    await store.save_admin_key(admin_key("two", name="ci"))
    with pytest.raises(StorageError):
        await store.save_admin_key(admin_key("three", hash=b"two"))
