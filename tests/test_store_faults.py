"""A store on files that fail: at whatever point it happens, nothing is lost, doubled or half."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import disks
import pytest
from disks import PAGE, Disk
from store_cases import add_account, ask, counters, reservation, reserve, settle, settlement

from mintoken.errors import StorageError
from mintoken.models import QuotaCounts
from mintoken.stores.locks import find_workers

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


async def test_a_commit_that_was_applied_though_it_seemed_to_fail_counts_once(store, database):
    await reserve(store, reservation("1"))
    applied = store._writer.commit

    async def commit_and_fail() -> None:
        await applied()
        raise sqlite3.OperationalError("disk I/O error")

    store._writer.commit = commit_and_fail
    with pytest.raises(StorageError):
        await settle(store, settlement("1"))
    store._writer.commit = applied
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
