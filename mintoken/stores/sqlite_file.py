"""The SQLite file itself: made whole or not at all, checked before it is touched, migrated."""

import errno
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

import aiosqlite

from mintoken.errors import DiskError, ForeignDatabaseError, StorageError
from mintoken.files import open_private, sync_folder

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = int.from_bytes(b"MTKN", "big")
_APPLICATION_ID_AT = (
    68  # in the file's header, https://www.sqlite.org/fileformat.html#the_database_header
)
_BUSY_S = 2.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # -shm without room is the latter.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_NOT_OURS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip
Identity = tuple[int, int] | None
"""Device and inode; None where there is no file."""

_ADVICE = "It was left as it is: move it away, or set storage.data_dir to another folder."


@contextmanager
def translated() -> Iterator[None]:
    """The border: what SQLite and the file system raise becomes StorageError."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            raise ForeignDatabaseError(
                f"The database is damaged ({error}). It was left as it is: restore a backup, "
                "or move it away to start with an empty one."
            ) from error
        if isinstance(error, OSError) and error.errno in _NOT_OURS:
            raise StorageError(
                f"{error.filename}: {error.strerror}. Run this as the user that owns "
                "storage.data_dir, or set that to a directory where this user can write."
            ) from error
        told = f"The database cannot do it just now: {error}"
        if _is_of_the_disk(error):
            advice = "See that the disk of storage.data_dir has room and is in order."
            raise DiskError(f"{told}. {advice}") from error
        raise StorageError(told) from error


def _is_of_the_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL


def connect(path: Path, *, mode: str) -> aiosqlite.Connection:
    """A connection, not yet open, to a file that exists; `mode` is `ro` or `rw`.

    The first INSERT, UPDATE or DELETE outside a transaction begins one, IMMEDIATE.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return aiosqlite.connect(uri, uri=True, timeout=_BUSY_S, isolation_level="IMMEDIATE")


def reading(path: Path) -> closing[sqlite3.Connection]:
    """A connection for a program that may block; it writes nothing."""
    return closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True))


async def ensure(path: Path, *, now_ms: int) -> None:
    """Create the database if it is absent, else check that it is ours.

    Raises ForeignDatabaseError, with the file untouched, if it is not.
    """
    if _is_absent(path):
        await _create(path, now_ms)
    else:
        _check_header(path)
        await _check_version(path)


async def prepare(writer: aiosqlite.Connection, *, wal_limit_bytes: int) -> None:
    """Set up the connection that writes, and bring the file to the newest version.

    A WAL that is started over is cut to `wal_limit_bytes`.
    """
    [(mode,)] = await writer.execute_fetchall("PRAGMA journal_mode=WAL")
    if mode != "wal":
        raise StorageError("The file system of storage.data_dir cannot hold a WAL database.")
    await writer.executescript(
        "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
        "PRAGMA wal_autocheckpoint=0; PRAGMA trusted_schema=OFF;"
        f"PRAGMA journal_size_limit={wal_limit_bytes};"
    )
    await _migrate(writer)


def touch(writer: sqlite3.Connection) -> None:
    """Have the transaction write something though nothing changes."""
    # An UPDATE to the same value would be left out by SQLite.
    writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def identities(*paths: Path) -> dict[Path, Identity]:
    """Which file each name stands for just now."""
    found: dict[Path, Identity] = {}
    for path in paths:
        try:
            status = os.stat(path)
            found[path] = status.st_dev, status.st_ino
        except FileNotFoundError:
            found[path] = None
    return found


def check_in_place(files: Mapping[Path, Identity]) -> None:
    """Raise StorageError if a name stands for another file than it did.

    SQLite would go on writing to a file that has no name any more, and everything would be lost.
    """
    for path, now in identities(*files).items():
        if now != files[path]:
            raise StorageError(
                f"{path} was removed or replaced under the running server. Put back the file that "
                "was there, or restart the server to go on with what is there now."
            )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_absent(path: Path) -> bool:
    if path.exists():
        return False
    # SQLite would play what an older file left there into the new one.
    if _beside(path, "-wal").exists():
        raise ForeignDatabaseError(
            f"{path} is gone while {path.name}-wal is still there. Restore {path.name}, "
            f"or move {path.name}-wal away to start with an empty database."
        )
    return True


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        header = file.read(100)
    application_id = int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4], "big")
    if not header.startswith(_MAGIC) or application_id != _APPLICATION_ID:
        raise ForeignDatabaseError(f"{path} is not a Mintoken database. {_ADVICE}")


async def _check_version(path: Path) -> None:
    # Read-only, because a connection that may write changes the file when it closes.
    async with connect(path, mode="ro") as reader:
        version = await _version(reader)
        await reader.execute_fetchall("SELECT count(*) FROM sqlite_schema")
    newest = len(_migrations())
    if version > newest:
        raise ForeignDatabaseError(
            f"{path} is of version {version}, made by a newer Mintoken; this one knows versions "
            f"up to {newest}. It was left as it is: upgrade Mintoken."
        )


async def _create(path: Path, now_ms: int) -> None:
    # Under another name until it is whole: a crash in between leaves no half-made database.
    draft = _beside(path, ".new")
    for leftover in (draft, _beside(draft, "-journal")):
        leftover.unlink(missing_ok=True)
    os.close(open_private(draft, os.O_EXCL))
    async with connect(draft, mode="rw") as writer:
        await writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        await _migrate(writer)
        await writer.execute(
            "INSERT INTO accounts (id, name, monthly_tokens, created_at) "
            "VALUES (?, 'default', 0, ?)",
            (uuid.uuid4().hex, now_ms),
        )
        await writer.commit()
    draft.rename(path)
    sync_folder(path.parent)


async def _migrate(writer: aiosqlite.Connection) -> None:
    done = await _version(writer)
    for number, script in enumerate(_migrations()[done:], start=done + 1):
        await writer.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
        )


async def _version(connection: aiosqlite.Connection) -> int:
    [(version,)] = await connection.execute_fetchall("PRAGMA user_version")
    return int(version)


def _migrations() -> list[str]:
    folder = resources.files("mintoken.stores") / "migrations"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return [file.read_text("utf-8") for file in files if file.name.endswith(".sql")]
