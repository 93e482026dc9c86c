"""What is done to users and admin keys: make, find, change and end them."""

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path

from mintoken.admin import (
    RefusedError,
    everything,
    find_account,
    first_account,
    secret_for,
    usable_name,
)
from mintoken.clock import DAY_MS
from mintoken.keys import ADMIN, hash_key, mint_key, prefix
from mintoken.people import AdminKey, Role, User
from mintoken.stores.base import Store


@dataclass(frozen=True, slots=True)
class IssuedAdminKey:
    """A new admin key with its secret, to be shown once; nobody can get the secret back later."""

    key: AdminKey
    token: str = field(repr=False)


async def create_user(
    store: Store, account_ref: str, name: str, role: Role, *, password_hash: str, now_ms: int
) -> User:
    """A new user of an account. Raises NameTakenError, RefusedError, StorageError."""
    account = find_account(await everything(store), account_ref)
    user = _user(account.id, name, role, password_hash, now_ms)
    await store.save_user(user)
    return user


def _user(account_id: str, name: str, role: Role, password_hash: str, now_ms: int) -> User:
    return User(
        id=f"usr_{secrets.token_hex(8)}",
        account_id=account_id,
        name=usable_name(name),
        role=role,
        password_hash=password_hash,
        created_at=now_ms,
    )


async def invite_first_owner(store: Store, data_dir: Path, *, now_ms: int) -> str | None:
    """The secret end of a link that lets the first owner in, within a day; None if there is a user.

    Raises ConfigError, StorageError.
    """
    secret, token = secret_for(await everything(store), data_dir), secrets.token_urlsafe(32)
    invited = await store.invite(hash_key(secret, token), expires_at=now_ms + DAY_MS)
    return token if invited else None


async def is_invited(store: Store, secret: bytes, token: str, *, now_ms: int) -> bool:
    """Does the link that ends so work? Raises StorageError."""
    return await store.is_invited(hash_key(secret, token), now_ms=now_ms)


async def create_first_owner(
    store: Store, secret: bytes, token: str, name: str, *, password_hash: str, now_ms: int
) -> User | None:
    """The owner who came by this link, which is over then; None if it does not work.

    Raises RefusedError, StorageError.
    """
    account = first_account(await everything(store))
    owner = _user(account.id, name, Role.OWNER, password_hash, now_ms)
    return owner if await store.save_invited(owner, hash_key(secret, token)) else None


async def find_user(store: Store, ref: str) -> User:
    """The user of this id, else of this name. Raises RefusedError, StorageError."""
    users = await store.users()
    for found in ([one for one in users if one.id == ref], [u for u in users if u.name == ref]):
        if found:
            return found[0]
    raise RefusedError(f"There is no user {ref!r}. See 'mintoken users list'.")


async def change_password(store: Store, ref: str, *, password_hash: str) -> User:
    """Give a user a new password, which ends his sessions. Raises RefusedError, StorageError."""
    user = await find_user(store, ref)
    await store.set_password(user.id, password_hash)
    return user


async def remove_user(store: Store, ref: str) -> User:
    """Delete a user and his sessions. Raises RefusedError, StorageError."""
    user = await find_user(store, ref)
    await store.remove_user(user.id)
    return user


async def create_admin_key(
    store: Store, data_dir: Path, account_ref: str, name: str, role: Role, *, now_ms: int
) -> IssuedAdminKey:
    """A new admin key. Raises ConfigError, NameTakenError, RefusedError, StorageError."""
    directory = await everything(store)
    account, token = find_account(directory, account_ref), mint_key(start=ADMIN)
    key = AdminKey(
        id=f"adm_{secrets.token_hex(8)}",
        account_id=account.id,
        name=usable_name(name),
        role=role,
        prefix=prefix(token),
        hash=hash_key(secret_for(directory, data_dir), token),
        created_at=now_ms,
    )
    await store.save_admin_key(key)
    return IssuedAdminKey(key, token)


async def revoke_admin_key(store: Store, ref: str, *, now_ms: int) -> AdminKey:
    """End the admin key of this id, else the one in use of this name; again changes nothing.

    Raises RefusedError, StorageError.
    """
    keys = await store.admin_keys()
    found = [key for key in keys if key.id == ref]
    found = found or [key for key in keys if key.name == ref and key.revoked_at is None]
    if len(found) != 1:
        many = "Several admin keys are" if found else "No admin key is"
        raise RefusedError(f"{many} named {ref!r}. See 'mintoken admin-keys list' for the ids.")
    if found[0].revoked_at is not None:
        return found[0]
    key = replace(found[0], revoked_at=now_ms)
    await store.save_admin_key(key)
    return key
