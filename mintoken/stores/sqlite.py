"""The SQLite database: accounts, keys, rules, usage rows and month counters in one file."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

import aiosqlite
import msgspec

from mintoken.errors import NameTakenError, StorageError
from mintoken.files import make_private_folder
from mintoken.models import (
    Account,
    Admission,
    Directory,
    Key,
    QuotaCounts,
    Reservation,
    Rule,
    Verdict,
)
from mintoken.reports import ArmSample, GroupBy, UsageLine
from mintoken.stores import sqlite_file
from mintoken.stores import sqlite_rows as rows
from mintoken.stores.admission import admit
from mintoken.stores.base import Batch
from mintoken.stores.locks import LedgerLock, WorkerLock, find_workers
from mintoken.stores.sqlite_analytics import SqliteAnalytics, ask
from mintoken.stores.sqlite_audit import audit
from mintoken.stores.sqlite_file import translated
from mintoken.stores.sqlite_samples import SAMPLES, SAMPLES_OF_ROWS, sample
from mintoken.stores.sqlite_users import SqliteUsers

_T = TypeVar("_T")

DATABASE_FILE = "mintoken.db"

_WAL_LIMIT_BYTES = 4 * 1024 * 1024


async def open_sqlite(data_dir: Path, *, clock_ms: Callable[[], int]) -> "SqliteStore":
    """Open the database in `data_dir`, and create what is absent (modes 0700 and 0600).

    `clock_ms` gives UTC milliseconds. Raises ForeignDatabaseError, with the file untouched, if it
    is not a Mintoken database, is damaged or of a newer version, and StorageError otherwise.
    """
    with translated():
        make_private_folder(data_dir)
        lock = LedgerLock(data_dir / "ledger.lock")
        try:
            async with lock:
                return await _open_locked(data_dir, lock, clock_ms())
        except BaseException:
            lock.close()
            raise


async def _open_locked(data_dir: Path, lock: LedgerLock, now_ms: int) -> "SqliteStore":
    path = data_dir / DATABASE_FILE
    await sqlite_file.ensure(path, now_ms=now_ms)
    async with AsyncExitStack() as connections:
        writer = await connections.enter_async_context(sqlite_file.connect(path, mode="rw"))
        await sqlite_file.prepare(writer, wal_limit_bytes=_WAL_LIMIT_BYTES)
        reader = await connections.enter_async_context(sqlite_file.connect(path, mode="ro"))
        return SqliteStore(path, lock, writer, reader, connections.pop_all())


class SqliteStore(SqliteUsers, SqliteAnalytics):
    """A `base.Store`; `open_sqlite` makes one. To be opened after a fork, and closed."""

    def __init__(
        self,
        path: Path,
        lock: LedgerLock,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        connections: AsyncExitStack,
    ) -> None:
        super().__init__(path)
        self._wal, self._shm = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
        self._workers = path.parent / "workers"
        self._lock = lock
        self._in_place = sqlite_file.identities(path, self._wal, self._shm, lock.path)
        self._writer = writer
        self._reader = reader
        self._connections = connections
        self._turn = asyncio.Lock()
        self._writes: set[asyncio.Task[object]] = set()
        self._worker: WorkerLock | None = None

    async def directory(self, known_revision: int = -1) -> Directory | None:
        with translated():
            [(revision,)] = await self._reader.execute_fetchall("SELECT revision FROM directory")
        if revision == known_revision:
            return None
        # A revoked key works until then, so this does not wait for what the dashboard asks.
        return await asyncio.to_thread(ask, self._path, _directory)

    async def save(self, *records: Account | Key | Rule, revision: int | None = None) -> bool:
        def work(writer: sqlite3.Connection) -> bool:
            if revision not in (None, _revision(writer)):
                return False
            for record in records:
                _upsert(record, writer)
            return True

        return await self._write(work)

    async def remove_rule(self, rule_id: str) -> None:
        await self._write(lambda writer: writer.execute(rows.REMOVE_RULE, (rule_id,)))

    async def judge(self, verdicts: Mapping[tuple[str, str], Verdict]) -> None:
        lines = [(*pair, one.stopped, one.since_ms) for pair, one in verdicts.items()]
        await self._write(lambda writer: writer.executemany(rows.JUDGE, lines))

    async def commit(self, batch: Batch) -> Mapping[str, Admission]:
        if not (batch.settlements or batch.progress or batch.reservations):
            return {}
        return await self._write(partial(self._apply, batch))

    async def recover(self, *, counts: QuotaCounts) -> int:
        crashed, dead = await self._write(partial(self._settle_crashed, counts))
        with translated():
            for path in dead:
                path.unlink(missing_ok=True)
        return crashed

    async def report(
        self, *, month: str, group_by: GroupBy, account_id: str | None = None
    ) -> list[UsageLine]:
        asked = {"month": month, "group_by": group_by.value, "account_id": account_id}
        return await self._answer(
            lambda database: [
                rows.usage_line(group_by, line) for line in database.execute(rows.REPORT, asked)
            ]
        )

    async def samples(
        self,
        *,
        since_ms: int = 0,
        account_id: str | None = None,
        experiments: Collection[str] | None = None,
    ) -> list[ArmSample]:
        wanted = None if experiments is None else json.dumps([*experiments])
        asked = {"since_ms": since_ms, "account_id": account_id, "experiments": wanted}
        statement = SAMPLES_OF_ROWS if since_ms else SAMPLES
        return await self._answer(
            lambda database: list(map(sample, database.execute(statement, asked)))
        )

    async def purge(self, *, before: str, limit: int) -> int:
        return await self._write(partial(_delete, before, limit))

    async def audit(self) -> list[str]:
        return await self._answer(audit)

    async def close(self) -> None:
        with translated():
            async with self._turn:
                if self._lock.closed:
                    return
                # The last connection to close checkpoints, so it should hold the lock; whoever
                # keeps the lock that long has a connection of its own, and this is not the last.
                with suppress(StorageError):
                    await self._lock.acquire()
                if self._worker is not None:
                    self._worker.release()
                try:
                    await self._connections.aclose()
                finally:
                    self._lock.close()

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do the work in a transaction of its own, to its end even if the caller is cancelled."""
        task = asyncio.create_task(self._transact(work), name="sqlite write")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with translated():
            async with self._turn, self._lock:
                sqlite_file.check_in_place(self._in_place)
                result: _T = await _in_its_thread(self._writer, partial(_do, work))
                # PASSIVE never waits for a reader; the next commit then starts the WAL over and
                # cuts it to journal_size_limit. What cannot be done now is done after a later one.
                with suppress(sqlite3.Error, OSError):
                    if self._wal.stat().st_size > _WAL_LIMIT_BYTES:
                        await self._writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
                return result

    def _apply(self, batch: Batch, writer: sqlite3.Connection) -> dict[str, Admission]:
        if batch.settlements:
            writer.executemany(rows.SETTLE, map(rows.SETTLEMENT_ROW, batch.settlements))
        if batch.progress:
            writer.executemany(rows.NOTE_PROGRESS, map(rows.PROGRESS_ROW, batch.progress))
        return self._reserve(batch.reservations, writer) if batch.reservations else {}

    def _reserve(
        self, reservations: Sequence[Reservation], writer: sqlite3.Connection
    ) -> dict[str, Admission]:
        if self._worker is None:
            self._worker = WorkerLock(self._workers)
            self._in_place |= sqlite_file.identities(self._worker.path)
        worker = self._worker.worker
        standing = {
            month: writer.execute(rows.STANDING, month).fetchone() or (-1, 0, 0)
            for month in {(r.account_id, r.month) for r in reservations}
        }
        admissions = admit(reservations, standing)
        inserted = writer.executemany(
            rows.RESERVE,
            (
                (*rows.RESERVATION_ROW(reservation), worker)
                for reservation in reservations
                if admissions[reservation.id].admitted
            ),
        )
        if inserted.rowcount < len(reservations):
            # Refused, or there already: a commit that failed in the end is tried again.
            for (known,) in writer.execute(rows.THESE, (json.dumps([*admissions]),)):
                admissions[known] = msgspec.structs.replace(admissions[known], admitted=True)
        return admissions

    def _settle_crashed(
        self, counts: QuotaCounts, writer: sqlite3.Connection
    ) -> tuple[int, list[Path]]:
        living, dead = find_workers(self._workers)
        if self._worker is not None:
            living.append(self._worker.worker)  # whatever has just become of its lock file
        cursor = writer.execute(rows.RECOVER, (counts.value, json.dumps(living)))
        sqlite_file.touch(writer)
        return cursor.rowcount, dead


def _revision(database: sqlite3.Connection) -> int:
    [(revision,)] = database.execute("SELECT revision FROM directory")
    return int(revision)


def _directory(database: sqlite3.Connection) -> Directory:
    return Directory(
        _revision(database),
        tuple(map(rows.account, database.execute(rows.ALL_ACCOUNTS))),
        tuple(map(rows.key, database.execute(rows.ALL_KEYS))),
        tuple(map(rows.rule, database.execute(rows.ALL_RULES))),
        dict(map(rows.verdict, database.execute(rows.ALL_VERDICTS))),
    )


def _upsert(record: Account | Key | Rule, writer: sqlite3.Connection) -> None:
    try:
        match record:
            case Account():
                writer.execute(rows.SAVE_ACCOUNT, rows.ACCOUNT_ROW(record))
            case Key():
                writer.execute(rows.SAVE_KEY, rows.KEY_ROW(record))
            case Rule():
                writer.execute(rows.SAVE_RULE, rows.RULE_ROW(record))
            case _:
                assert_never(record)
    except sqlite3.IntegrityError as error:
        # The message names the columns, and nothing else does: "... failed: keys.name".
        of_name = str(error).startswith("UNIQUE") and str(error).endswith(".name")
        if of_name and not isinstance(record, Rule):
            raise NameTakenError(f"The name {record.name!r} is taken.") from error
        raise


def _delete(before: str, limit: int, writer: sqlite3.Connection) -> int:
    ids = json.dumps([row[0] for row in writer.execute(rows.PURGEABLE, (before, limit))])
    writer.execute(rows.KEEP_SUMS, (ids,))
    return writer.execute(rows.DELETE_ROWS, (ids,)).rowcount


async def _in_its_thread(
    connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], _T]
) -> _T:
    """Do the work in one trip to the connection's thread, for which aiosqlite has no public name.

    Every trip wakes a thread, which then waits until the event loop lets go of the GIL.
    """
    done: _T = await connection._execute(work, connection._conn)  # type: ignore[no-untyped-call]
    return done


def _do(work: Callable[[sqlite3.Connection], _T], writer: sqlite3.Connection) -> _T:
    writer.execute("BEGIN IMMEDIATE")
    with writer:  # commits, or rolls back what fails
        return work(writer)
