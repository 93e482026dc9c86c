"""What an operator does to accounts and keys: make, find, change, rotate and end them."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from mintoken.arms import MOST_CONTROL
from mintoken.keys import hash_key, mint_key, prefix, server_secret
from mintoken.models import Account, Directory, Intensity, Key
from mintoken.stores.base import Store

MONTHLY_TOKENS_LIMIT = 10**15
"""More than anybody uses, and far from where 64 bits end."""
NAME_CHARACTERS = 100
NEVER = -1
"""As an expiry: the key does not expire, even if it did before."""
FIRST_ACCOUNT = "default"
"""The account that a new database comes with."""

_Named = TypeVar("_Named", Account, Key)


class RefusedError(Exception):
    """It cannot be done; the message says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key with its secret, to be shown once; nobody can get the secret back later."""

    key: Key
    token: str = field(repr=False)
    replaces: Key | None = None


_COPIED = ("intensity", "smart", "rpm", "concurrency", "control", "concise", "auto_stop")
_SHARES = ("control", "concise", "auto_stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """What can be set on a key; None leaves it as it is. `expires_at` is in UTC ms, or NEVER."""

    name: str | None = None
    intensity: Intensity | None = None
    smart: bool | None = None
    rpm: int | None = None
    concurrency: int | None = None
    control: int | None = None
    concise: int | None = None
    auto_stop: bool | None = None
    expires_at: int | None = None

    def apply(self, key: Key, *, now_ms: int) -> Key:
        """The key with these settings. Raises RefusedError for an unusable name or arms."""
        expires_at = key.expires_at if self.expires_at is None else self.expires_at
        given = {name: getattr(self, name) for name in _COPIED if getattr(self, name) is not None}
        if self.name is not None:
            given["name"] = usable_name(self.name)
        before = key
        key = replace(key, **given, expires_at=None if expires_at == NEVER else expires_at)
        if any(getattr(key, name) != getattr(before, name) for name in _SHARES):
            key = replace(key, shares_since=now_ms)
        if key.control + key.concise > MOST_CONTROL:
            raise RefusedError(
                f"The control arms take {key.control} + {key.concise} percent together; "
                f"{MOST_CONTROL} is the most."
            )
        return key


def usable_name(name: str) -> str:
    """The name without space around it. Raises RefusedError if people could not type or read it."""
    name = name.strip()
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise RefusedError(f"A name has 1 to {NAME_CHARACTERS} printable characters.")
    return name


async def everything(store: Store) -> Directory:
    """All accounts and keys. Raises StorageError."""
    directory = await store.directory()
    assert directory is not None, "nothing was known before"
    return directory


async def _changed(
    store: Store, change: Callable[[Directory], Sequence[_Named]]
) -> Sequence[_Named]:
    """Save what `change` makes of the directory: of the newest, whoever else changes it as well."""
    while True:
        directory = await everything(store)
        records = change(directory)
        if await store.save(*records, revision=directory.revision):
            return records


def find_account(directory: Directory, ref: str) -> Account:
    """The account of this id or name. Raises RefusedError."""
    return _find(directory.accounts, ref, "account")


def find_key(directory: Directory, ref: str) -> Key:
    """The key of this id, else the one in use of this name. Raises RefusedError."""
    in_use = [key for key in directory.keys if key.revoked_at is None or key.id == ref]
    return _find(in_use, ref, "key")


def _find(records: Iterable[_Named], ref: str, kind: str) -> _Named:
    found = [record for record in records if ref in (record.id, record.name)]
    # An id is never ambiguous, even if somebody named another record like it.
    found = [record for record in found if record.id == ref] or found
    match found:
        case [one]:
            return one
        case []:
            raise RefusedError(f"No {kind} {ref!r} is in use. See 'mintoken {kind}s list'.")
        case _:
            ids = ", ".join(record.id for record in found)
            raise RefusedError(f"Several {kind}s are named {ref!r}; give an id: {ids}")


def secret_for(directory: Directory, data_dir: Path) -> bytes:
    """The server's secret; one is made only while there is no key that it would end.

    Raises ConfigError when it was lost, OSError.
    """
    in_use = any(key.revoked_at is None for key in directory.keys)
    return server_secret(data_dir, expected=in_use)


async def create_account(
    store: Store, name: str, *, monthly_tokens: int = 0, now_ms: int
) -> Account:
    """A new account; 0 tokens is unlimited. Raises NameTakenError, RefusedError, StorageError."""
    account = Account(
        id=f"acc_{secrets.token_hex(8)}",
        name=usable_name(name),
        monthly_tokens=monthly_tokens,
        created_at=now_ms,
    )
    await store.save(account)
    return account


async def update_account(
    store: Store, ref: str, *, name: str | None = None, monthly_tokens: int | None = None
) -> Account:
    """Change what is given. Raises NameTakenError, RefusedError, StorageError."""

    def change(directory: Directory) -> Sequence[Account]:
        account = find_account(directory, ref)
        if name is not None:
            account = replace(account, name=usable_name(name))
        if monthly_tokens is not None:
            account = replace(account, monthly_tokens=monthly_tokens)
        return [account]

    [account] = await _changed(store, change)
    return account


async def create_key(
    store: Store, data_dir: Path, account_ref: str, settings: KeySettings, *, now_ms: int
) -> Issued:
    """A new key of an account; without a name it gets the next free one of `key-1`, `key-2` …

    Smart detection is off unless the settings turn it on.

    Raises ConfigError, NameTakenError, RefusedError, StorageError.
    """
    directory = await everything(store)
    secret = secret_for(directory, data_dir)
    account = find_account(directory, account_ref)
    token = mint_key()
    key = Key(
        id=f"key_{secrets.token_hex(8)}",
        account_id=account.id,
        name=_free_name(directory, account),
        prefix=prefix(token),
        hash=hash_key(secret, token),
        intensity=Intensity.FULL,
        created_at=now_ms,
    )
    key = settings.apply(key, now_ms=now_ms)
    await store.save(key)
    return Issued(key, token)


def _free_name(directory: Directory, account: Account) -> str:
    taken = {key.name for key in directory.keys if key.account_id == account.id}
    return next(name for n in range(1, len(taken) + 2) if (name := f"key-{n}") not in taken)


async def first_key(store: Store, data_dir: Path, *, now_ms: int) -> Issued | None:
    """A key for a store that has none, not even an ended one; None if it has.

    It belongs to the first account. Raises ConfigError, StorageError.
    """
    directory = await everything(store)
    secret_for(directory, data_dir)
    if directory.keys:
        return None
    account, first = first_account(directory), KeySettings(name="first")
    return await create_key(store, data_dir, account.id, first, now_ms=now_ms)


def first_account(directory: Directory) -> Account:
    """The account `default`, or the oldest one if that was renamed."""
    return min(directory.accounts, key=lambda account: account.name != FIRST_ACCOUNT)


async def update_key(store: Store, ref: str, settings: KeySettings, *, now_ms: int) -> Key:
    """Change what is given. Raises NameTakenError, RefusedError, StorageError."""

    def change(directory: Directory) -> Sequence[Key]:
        key = find_key(directory, ref)
        if key.revoked_at is not None:
            raise RefusedError("The key is revoked. Create a new one instead.")
        return [settings.apply(key, now_ms=now_ms)]

    [key] = await _changed(store, change)
    return key


async def rotate_key(
    store: Store, data_dir: Path, ref: str, *, overlap_ms: int, now_ms: int
) -> Issued:
    """A new key with the name and settings of an old one, which expires after the overlap.

    An experiment goes on: conversations stay in their arms, and what both keys measured is one.

    The old one gets its id behind its name. Raises RefusedError when it has ended already, and
    ConfigError, StorageError.
    """
    token = mint_key()

    def change(directory: Directory) -> Sequence[Key]:
        secret, old = secret_for(directory, data_dir), find_key(directory, ref)
        if state(old, now_ms=now_ms) != "active":
            raise RefusedError(f"Key {old.name!r} has ended. Create a new one instead.")
        new = replace(
            old,
            id=f"key_{secrets.token_hex(8)}",
            prefix=prefix(token),
            hash=hash_key(secret, token),
            origin=old.experiment,
            created_at=now_ms,
        )
        end = now_ms + overlap_ms
        end = end if old.expires_at is None else min(end, old.expires_at)
        return [replace(old, name=f"{old.name} ({old.id})", expires_at=end), new]

    old, new = await _changed(store, change)
    return Issued(new, token, old)


def replaced_by(key: Key, directory: Directory, *, now_ms: int) -> list[Key]:
    """The keys that rotation replaced by this one, as far as they still work."""
    return [
        other
        for other in directory.keys
        if other.account_id == key.account_id
        and other.name == f"{key.name} ({other.id})"
        and state(other, now_ms=now_ms) == "active"
    ]


async def revoke_key(store: Store, ref: str, *, now_ms: int) -> Key:
    """End a key at once and for good; doing it again changes nothing."""

    def change(directory: Directory) -> Sequence[Key]:
        key = find_key(directory, ref)
        return [key if key.revoked_at is not None else replace(key, revoked_at=now_ms)]

    [key] = await _changed(store, change)
    return key


def state(key: Key, *, now_ms: int) -> str:
    """`active`, `expired` or `revoked`."""
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= now_ms
    return "expired" if expired else "active"
