"""What the SQLite store is asked about people: users, their sessions, and keys for scripts."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import TypeVar

import aiosqlite

from mintoken.errors import NameTakenError
from mintoken.people import AdminKey, Role, Session, User
from mintoken.stores.sqlite_file import translated

_T = TypeVar("_T")

USER_ROW = attrgetter("id", "account_id", "name", "role.value", "password_hash", "created_at")
SAVE_USER = """
INSERT INTO users (id, account_id, name, role, password_hash, created_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, name = excluded.name,
    role = excluded.role, password_hash = excluded.password_hash,
    created_at = excluded.created_at"""
USERS = """
SELECT id, account_id, name, role, password_hash, created_at FROM users
WHERE (:account_id IS NULL OR account_id = :account_id) AND (:name IS NULL OR name = :name)
ORDER BY created_at, id"""
INVITE = """
INSERT OR REPLACE INTO invitation (one, hash, expires_at)
SELECT 1, ?, ? WHERE NOT EXISTS (SELECT 1 FROM users)"""
IS_INVITED = "SELECT 1 FROM invitation WHERE hash = ? AND expires_at > ?"
CHANGE_HASH = "UPDATE users SET password_hash = ? WHERE id = ?"
REMOVE_USER = """
DELETE FROM users WHERE id = ? AND (NOT ? OR role <> 'owner' OR EXISTS (
    SELECT 1 FROM users AS other
    WHERE other.account_id = users.account_id AND other.role = 'owner' AND other.id <> users.id))"""

SESSION_ROW = attrgetter("id", "user_id", "created_at", "last_seen_at")
OPEN_SESSION = "INSERT INTO sessions (id, user_id, created_at, last_seen_at) VALUES (?, ?, ?, ?)"
SESSION = """
SELECT u.id, account_id, name, role, password_hash, u.created_at,
    s.id, user_id, s.created_at, last_seen_at
FROM sessions s JOIN users u ON u.id = user_id WHERE s.id = ?"""
SEE_SESSION = "UPDATE sessions SET last_seen_at = max(last_seen_at, ?) WHERE id = ?"
CLOSE_SESSION = "DELETE FROM sessions WHERE id = ?"
CLOSE_SESSIONS = "DELETE FROM sessions WHERE user_id = ?"
FORGET_SESSIONS = "DELETE FROM sessions WHERE created_at < ? OR last_seen_at < ?"

ADMIN_KEY_ROW = attrgetter(
    "id", "account_id", "role.value", "name", "prefix", "hash", "created_at", "revoked_at"
)
SAVE_ADMIN_KEY = """
INSERT INTO admin_keys (id, account_id, role, name, prefix, hash, created_at, revoked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, role = excluded.role,
    name = excluded.name, prefix = excluded.prefix, hash = excluded.hash,
    created_at = excluded.created_at, revoked_at = excluded.revoked_at"""
ADMIN_KEYS = """
SELECT id, account_id, role, name, prefix, hash, created_at, revoked_at FROM admin_keys
WHERE :hash IS NULL OR hash = :hash ORDER BY created_at, id"""


class SqliteUsers(ABC):
    """This part of a `base.Store`; the rest says how it is asked."""

    _reader: aiosqlite.Connection

    @abstractmethod
    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T: ...

    async def users(self, *, account_id: str | None = None, name: str | None = None) -> list[User]:
        asked = {"account_id": account_id, "name": name}
        with translated():
            return [*map(_user, await self._reader.execute_fetchall(USERS, asked))]

    async def save_user(self, user: User) -> None:
        await self._write(partial(_upsert_user, user))

    async def invite(self, hash_: bytes, *, expires_at: int) -> bool:
        def work(writer: sqlite3.Connection) -> bool:
            return writer.execute(INVITE, (hash_, expires_at)).rowcount == 1

        return await self._write(work)

    async def is_invited(self, hash_: bytes, *, now_ms: int) -> bool:
        with translated():
            return bool([*await self._reader.execute_fetchall(IS_INVITED, (hash_, now_ms))])

    async def save_invited(self, user: User, hash_: bytes) -> bool:
        def work(writer: sqlite3.Connection) -> bool:
            if writer.execute(IS_INVITED, (hash_, user.created_at)).fetchone() is None:
                return False
            _upsert_user(user, writer)
            return True

        return await self._write(work)

    async def set_password(self, user_id: str, password_hash: str) -> None:
        def work(writer: sqlite3.Connection) -> None:
            writer.execute(CHANGE_HASH, (password_hash, user_id))
            writer.execute(CLOSE_SESSIONS, (user_id,))

        await self._write(work)

    async def remove_user(self, user_id: str, *, keep_an_owner: bool = False) -> bool:
        def work(writer: sqlite3.Connection) -> bool:
            return writer.execute(REMOVE_USER, (user_id, keep_an_owner)).rowcount == 1

        return await self._write(work)

    async def open_session(self, session: Session, *, before: tuple[int, int]) -> None:
        def work(writer: sqlite3.Connection) -> None:
            writer.execute(FORGET_SESSIONS, before)
            writer.execute(OPEN_SESSION, SESSION_ROW(session))

        await self._write(work)

    async def session(self, session_id: str) -> tuple[Session, User] | None:
        with translated():
            rows = [*await self._reader.execute_fetchall(SESSION, (session_id,))]
        return (_session(rows[0]), _user(rows[0])) if rows else None

    async def see_session(self, session_id: str, *, now_ms: int) -> None:
        await self._write(lambda writer: writer.execute(SEE_SESSION, (now_ms, session_id)))

    async def close_session(self, session_id: str) -> None:
        await self._write(lambda writer: writer.execute(CLOSE_SESSION, (session_id,)))

    async def admin_keys(self, *, hash_: bytes | None = None) -> list[AdminKey]:
        with translated():
            rows = await self._reader.execute_fetchall(ADMIN_KEYS, {"hash": hash_})
        return [*map(_admin_key, rows)]

    async def save_admin_key(self, key: AdminKey) -> None:
        await self._write(partial(_upsert_admin_key, key))


def _upsert_user(user: User, writer: sqlite3.Connection) -> None:
    with _named(user.name):
        writer.execute(SAVE_USER, USER_ROW(user))


def _upsert_admin_key(key: AdminKey, writer: sqlite3.Connection) -> None:
    with _named(key.name):
        writer.execute(SAVE_ADMIN_KEY, ADMIN_KEY_ROW(key))


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        if str(error).startswith("UNIQUE") and str(error).endswith(".name"):
            raise NameTakenError(f"The name {name!r} is taken.") from error
        raise


def _user(row: sqlite3.Row) -> User:
    return User(
        id=row[0],
        account_id=row[1],
        name=row[2],
        role=Role(row[3]),
        password_hash=row[4],
        created_at=row[5],
    )


def _session(row: sqlite3.Row) -> Session:
    return Session(id=row[6], user_id=row[7], created_at=row[8], last_seen_at=row[9])


def _admin_key(row: sqlite3.Row) -> AdminKey:
    return AdminKey(
        id=row[0],
        account_id=row[1],
        role=Role(row[2]),
        name=row[3],
        prefix=row[4],
        hash=row[5],
        created_at=row[6],
        revoked_at=row[7],
    )
