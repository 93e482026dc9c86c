"""A store on files that fail: at whatever point it happens, nothing is lost, doubled or half."""

import asyncio
import errno
import fcntl
import io
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiosqlite
import disks
import pytest
from disks import PAGE, Disk
from store_cases import add_account, ask, counters, reservation, reserve, settle, settlement

from mintoken import logs
from mintoken.errors import MintokenError, StorageError
from mintoken.ledger import Ledger
from mintoken.models import Progress, QuotaCounts
from mintoken.stores import sqlite, sqlite_file
from mintoken.stores.locks import LedgerLock, find_workers

FRAME = PAGE + 24
"""Bytes of a page in the write-ahead log, https://www.sqlite.org/fileformat.html#walformat"""
WAL_LIMIT = 4 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk of the store that `open_store` opens after it."""
    with disks.small_disk(tmp_path / "data", mib=32) as disk:
        yield disk


def count(path: Path) -> int:
    [(rows,)] = ask(path, "SELECT count(*) FROM usage")
    return rows


async def try_to_reserve(store, name: str, rows: int) -> bool:
    try:
        await reserve(store, *(reservation(f"{name}-{i}") for i in range(rows)))
    except StorageError:
        return False
    return True


async def test_a_disk_that_fills_up_at_any_page_of_a_commit_leaves_all_of_it_or_nothing(
    disk, open_store, database
):
    store = await open_store()
    await add_account(store)
    await reserve(store, reservation("first"))
    rows, committed = 1, set()
    for leave_pages in range(24):
        await settle(store, settlement("first"))
        disk.fill(leave_pages=leave_pages)
        done = await try_to_reserve(store, f"full-{leave_pages}", 60)
        committed.add(done)
        rows += 60 * done
        assert count(database) == rows
        disk.free()
        assert await try_to_reserve(store, f"free-{leave_pages}", 1)
        rows += 1
        assert await store.audit() == []
    assert committed == {True, False}


async def test_a_disk_that_fills_up_during_a_checkpoint_loses_nothing(disk, open_store, database):
    store = await open_store()
    await add_account(store)
    wal, rows, refused = database.with_name("mintoken.db-wal"), 0, 0
    for round_ in range(3):
        disk.free()
        while wal.stat().st_size < WAL_LIMIT - 60 * FRAME:
            assert await try_to_reserve(store, f"{round_}-{rows}", 100)
            rows += 100
        # Room for the log, but none for the database that the log is to be copied into.
        disk.fill(leave_pages=70)
        while await try_to_reserve(store, f"{round_}-{rows}", 100):
            rows += 100
        refused += 1
        assert count(database) == rows
    disk.free()
    assert await try_to_reserve(store, "last", 1)
    assert refused == 3
    assert await store.audit() == []
    assert ask(database, "PRAGMA integrity_check") == [("ok",)]


async def test_a_log_index_that_finds_no_room_is_a_storage_error_like_others(
    disk, open_store, database
):
    store = await open_store()
    await add_account(store)
    wal, rows = database.with_name("mintoken.db-wal"), 0
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM usage").fetchall()
        # The -shm file grows by 32 KiB for every 4096 pages of the log.
        while wal.stat().st_size < 4040 * FRAME:
            assert await try_to_reserve(store, f"before-{rows}", 60)
            rows += 60
        failed = set()
        for turn in range(60):
            disk.fill(leave_pages=turn % 8)
            try:
                await reserve(store, reservation(f"at-{turn}"))
                rows += 1
            except StorageError as error:
                failed.add(str(error))
            assert count(database) == rows
        disk.free()
    assert any("disk I/O error" in text for text in failed)
    assert all("See that the disk" in text for text in failed)
    assert await try_to_reserve(store, "last", 1)
    assert await store.audit() == []


async def test_a_lock_file_that_finds_no_room_fails_the_commit_and_not_the_next_one(
    disk, open_store, database
):
    store = await open_store()
    await add_account(store)
    with disk.no_more_files(), pytest.raises(StorageError, match="No space left"):
        await reserve(store, reservation("1"))
    assert count(database) == 0
    assert await try_to_reserve(store, "2", 1)
    assert await store.audit() == []


async def test_a_long_reader_stops_no_commit_and_the_log_is_short_again_after_it(store, database):
    wal = database.with_name("mintoken.db-wal")
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM usage").fetchone() == (0,)
        turn = 0
        while wal.stat().st_size < 4 * WAL_LIMIT:
            assert await try_to_reserve(store, str(turn), 250)
            turn += 1
        assert reader.execute("SELECT count(*) FROM usage").fetchone() == (0,)
    for last in range(2):
        assert await try_to_reserve(store, f"last-{last}", 1)
    assert wal.stat().st_size <= WAL_LIMIT
    assert count(database) == turn * 250 + 2
    assert await store.audit() == []


async def test_a_commit_that_was_applied_though_it_seemed_to_fail_counts_once(
    store, database, monkeypatch
):
    await reserve(store, reservation("1"))
    do = sqlite._do

    def do_and_fail(*args: object) -> None:
        do(*args)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite, "_do", do_and_fail)
    with pytest.raises(StorageError):
        await settle(store, settlement("1"))
    monkeypatch.undo()
    assert counters(database) == (5, 0, 1)
    await settle(store, settlement("1"))
    assert counters(database) == (5, 0, 1)
    assert await store.audit() == []


async def test_a_lock_file_that_another_worker_has_just_removed_is_no_fault(store, tmp_path):
    await reserve(store, reservation("1"))
    workers = tmp_path / "data" / "workers"
    (workers / "gone.lock").symlink_to("nowhere")
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 0
    living, dead = find_workers(workers)
    assert (len(living), dead) == (1, [])


def test_a_full_disk_is_told_with_what_to_do():
    with (
        pytest.raises(StorageError, match=r"No space left.*See that the disk of storage\.data_dir"),
        sqlite_file.translated(),
    ):
        Path("/dev/full").write_bytes(b"x")


# The lock between processes


async def test_a_wait_that_is_cancelled_as_the_lock_comes_gives_it_back(tmp_path):
    lock, other = LedgerLock(tmp_path / "lock"), LedgerLock(tmp_path / "lock")
    await other.acquire()
    waiting = asyncio.create_task(lock.acquire())
    while lock._wait is None:
        await asyncio.sleep(0)
    # The lock's own callbacks are asked first, the task hears of it last.
    await asyncio.sleep(0)
    lock._wait.add_done_callback(lambda _: waiting.cancel())
    other.release()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    async with asyncio.timeout(5), other:
        pass
    lock.close()
    other.close()


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_a_wait_that_is_cancelled_before_is_joined_by_the_next_one(tmp_path):
    lock, other = LedgerLock(tmp_path / "lock"), LedgerLock(tmp_path / "lock")
    await other.acquire()
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.wait({waiting}, timeout=0.01)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    again = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    assert not again.done()
    other.release()
    async with asyncio.timeout(5):
        await again
    assert is_locked(tmp_path / "lock")
    lock.release()
    assert not is_locked(tmp_path / "lock")
    lock.close()
    other.close()


@pytest.mark.parametrize("patience_s", [5.0, 0.01])
async def test_a_kernel_without_locks_to_spare_is_an_error_and_not_the_end(
    tmp_path, monkeypatch, patience_s
):
    lock = LedgerLock(tmp_path / "lock", patience_s=patience_s)
    other = LedgerLock(tmp_path / "lock")
    await other.acquire()
    flock, asked = fcntl.flock, threading.Event()

    def without(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            asked.wait(5)
            raise OSError(errno.ENOLCK, "No locks available")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", without)
    if patience_s < 1:
        with pytest.raises(StorageError, match="kept the ledger locked"):
            await lock.acquire()
        asked.set()
        while lock._wait is not None:
            await asyncio.sleep(0.001)
    else:
        asked.set()
        with pytest.raises(OSError, match="No locks available"):
            await lock.acquire()
    monkeypatch.undo()
    other.release()
    async with lock:
        pass
    lock.close()
    other.close()


async def test_a_lock_that_comes_after_the_store_is_closed_is_let_go(tmp_path):
    lock, other = LedgerLock(tmp_path / "lock", patience_s=0.01), LedgerLock(tmp_path / "lock")
    await other.acquire()
    with pytest.raises(StorageError):
        await lock.acquire()
    lock.close()
    other.release()
    while lock._wait is not None:
        await asyncio.sleep(0.001)
    async with other:
        pass
    other.close()


async def test_a_database_that_can_have_no_log_beside_it_is_refused():
    async with aiosqlite.connect(":memory:") as connection:
        with pytest.raises(StorageError, match="cannot hold a WAL database"):
            await sqlite_file.prepare(connection, wal_limit_bytes=1)


# The ledger, on a store that fails at the worst moment


@asynccontextmanager
async def ledger_on(store) -> AsyncIterator[Ledger]:
    ledger = Ledger(store, counts=QuotaCounts.OUTPUT)
    running = asyncio.create_task(ledger.run())
    yield ledger
    ledger.close()
    await running


async def until_taken(ledger: Ledger) -> None:
    while ledger._reservations:
        await asyncio.sleep(0)


async def test_a_caller_who_leaves_during_the_commit_leaves_a_row_that_can_be_settled(
    store, database, tmp_path
):
    async with ledger_on(store) as ledger:
        await ledger.reserve(reservation("0"), lambda: None)
        with (tmp_path / "data" / "ledger.lock").open() as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            leaving = asyncio.create_task(ledger.reserve(reservation("1"), lambda: None))
            await asyncio.sleep(0)
            await until_taken(ledger)
            leaving.cancel()
            await asyncio.wait({leaving})
        ledger.settle(settlement("0"))
        ledger.settle(settlement("1"))
    assert counters(database) == (10, 0, 2)
    assert await store.audit() == []


async def test_a_caller_who_leaves_during_a_commit_that_fails_leaves_no_row(
    store, database, tmp_path
):
    aside = database.with_name("aside")
    async with ledger_on(store) as ledger:
        await ledger.reserve(reservation("0"), lambda: None)
        with (tmp_path / "data" / "ledger.lock").open() as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            leaving = asyncio.create_task(ledger.reserve(reservation("1"), lambda: None))
            staying = asyncio.create_task(ledger.reserve(reservation("2"), lambda: None))
            await asyncio.sleep(0)
            await until_taken(ledger)
            leaving.cancel()
            await asyncio.wait({leaving})
            database.rename(aside)
        with pytest.raises(MintokenError):
            await staying
        assert not ledger.healthy
        aside.rename(database)
        ledger.settle(settlement("1"))
        ledger.settle(settlement("0"))
    assert counters(database) == (5, 0, 1)


async def test_an_unknown_failure_refuses_requests_and_the_ledger_lives(
    store, database, monkeypatch
):
    monkeypatch.setattr("mintoken.ledger.TICK_S", 0.0)

    def broken() -> Progress:
        raise KeyError("a mistake of ours")

    async with ledger_on(store) as ledger:
        await ledger.reserve(reservation("1"), broken)
        with pytest.raises(MintokenError):
            await ledger.reserve(reservation("2"), lambda: None)
        ledger.settle(settlement("1"))
        while not ledger.healthy:
            await asyncio.sleep(0.001)
        assert (await ledger.reserve(reservation("3"), lambda: None)).admitted
        ledger.settle(settlement("3"))
    assert counters(database) == (10, 0, 2)


async def test_what_a_dead_worker_left_is_settled_and_told(open_store, store):
    other = await open_store()
    await reserve(other, reservation("1"))
    await other.close()
    log = io.StringIO()
    logs.configure(log)
    await Ledger(store, counts=QuotaCounts.OUTPUT).recover()
    [line] = map(json.loads, log.getvalue().splitlines())
    assert (line["event"], line["rows"]) == ("recovered", 1)
