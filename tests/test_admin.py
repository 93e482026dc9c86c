"""Accounts and keys, as an operator makes, finds, changes and ends them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mintoken import admin
from mintoken.admin import KeySettings, RefusedError
from mintoken.errors import ConfigError, NameTakenError
from mintoken.keys import SECRET_FILE, hash_key, is_well_formed, server_secret
from mintoken.models import Intensity, Key
from mintoken.stores.sqlite import SqliteStore, open_sqlite

NOW_MS = 1_790_000_000_000
KEY = Key(
    id="key_1",
    account_id="acc_1",
    name="app",
    prefix="mt_live_abcd",
    hash=b"",
    intensity=Intensity.FULL,
    created_at=NOW_MS,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_sqlite(tmp_path, clock_ms=lambda: NOW_MS)
    yield opened
    await opened.close()


async def test_the_first_key_is_made_once_and_never_again(
    store: SqliteStore, tmp_path: Path
) -> None:
    issued = await admin.first_key(store, tmp_path, now_ms=NOW_MS)
    assert issued is not None
    assert is_well_formed(issued.token)
    assert issued.key.hash == hash_key(server_secret(tmp_path), issued.token)
    assert issued.token not in repr(issued)
    await admin.revoke_key(store, issued.key.id, now_ms=NOW_MS)
    assert await admin.first_key(store, tmp_path, now_ms=NOW_MS) is None


async def test_the_first_key_finds_an_account_even_if_default_was_renamed(
    store: SqliteStore,
    tmp_path: Path,
) -> None:
    renamed = await admin.update_account(store, "default", name="ours")
    issued = await admin.first_key(store, tmp_path, now_ms=NOW_MS)
    assert issued is not None
    assert issued.key.account_id == renamed.id


async def test_keys_without_a_name_get_the_next_free_one(
    store: SqliteStore, tmp_path: Path
) -> None:
    async def created(settings: KeySettings) -> str:
        issued = await admin.create_key(store, tmp_path, "default", settings, now_ms=NOW_MS)
        return issued.key.name

    assert [await created(KeySettings()) for _ in range(3)] == ["key-1", "key-2", "key-3"]
    with pytest.raises(NameTakenError):
        await created(KeySettings(name="key-2"))


async def test_an_id_is_never_ambiguous(store: SqliteStore) -> None:
    one = await admin.create_account(store, "one", now_ms=NOW_MS)
    await admin.create_account(store, one.id, now_ms=NOW_MS)
    assert admin.find_account(await admin.everything(store), one.id) == one


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"expires_at": NOW_MS + 1}, "active"),
        ({"expires_at": NOW_MS}, "expired"),
        ({"revoked_at": NOW_MS}, "revoked"),
        ({"revoked_at": NOW_MS, "expires_at": 0}, "revoked"),
    ],
)
def test_states(changes: dict[str, int], state: str) -> None:
    assert admin.state(replace(KEY, **changes), now_ms=NOW_MS) == state


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (KeySettings(), {}),
        (KeySettings(name=" new "), {"name": "new"}),
        (KeySettings(intensity=Intensity.NONE), {"intensity": Intensity.NONE}),
        (KeySettings(smart=True), {"smart": True}),
        (KeySettings(rpm=0, concurrency=7), {"rpm": 0, "concurrency": 7}),
        (KeySettings(expires_at=0), {"expires_at": 0}),
        (KeySettings(expires_at=admin.NEVER), {"expires_at": None}),
    ],
)
def test_settings_change_what_they_name(settings: KeySettings, changes: dict[str, int]) -> None:
    key = replace(KEY, rpm=5, expires_at=NOW_MS)
    assert settings.apply(key, now_ms=NOW_MS) == replace(key, **changes)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (KeySettings(control=10), {"control": 10, "shares_since": NOW_MS}),
        (KeySettings(concise=5), {"concise": 5, "shares_since": NOW_MS}),
        (KeySettings(auto_stop=False), {"auto_stop": False, "shares_since": NOW_MS}),
        (KeySettings(control=0, concise=0, auto_stop=True), {}),
    ],
)
def test_a_change_of_shares_is_dated(settings: KeySettings, changes: dict[str, int]) -> None:
    assert settings.apply(KEY, now_ms=NOW_MS) == replace(KEY, **changes)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\u001b[31m", "x" * 101])
def test_names_that_people_cannot_read_are_refused(name: str) -> None:
    with pytest.raises(RefusedError):
        admin.usable_name(name)


async def test_a_lost_secret_ends_no_key_unasked(store: SqliteStore, tmp_path: Path) -> None:
    issued = await admin.create_key(store, tmp_path, "default", KeySettings(), now_ms=NOW_MS)
    (tmp_path / SECRET_FILE).unlink()
    with pytest.raises(ConfigError, match="server_secret is missing"):
        await admin.create_key(store, tmp_path, "default", KeySettings(), now_ms=NOW_MS)
    with pytest.raises(ConfigError, match="revoke every key"):
        await admin.rotate_key(store, tmp_path, issued.key.id, overlap_ms=0, now_ms=NOW_MS)
    assert not (tmp_path / SECRET_FILE).exists()
    await admin.revoke_key(store, issued.key.id, now_ms=NOW_MS)
    await admin.create_key(store, tmp_path, "default", KeySettings(), now_ms=NOW_MS)
    assert (tmp_path / SECRET_FILE).exists()
