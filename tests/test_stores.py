"""One suite for every store: what the seam promises, on real files."""

import asyncio
import fcntl
import os
import signal
import sqlite3
import stat
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from store_cases import (
    DAY,
    MONTH,
    NOW,
    add_account,
    ask,
    counters,
    key,
    reservation,
    reserve,
    rule,
    settle,
    settlement,
)

from mintoken.errors import ForeignDatabaseError, NameTakenError, StorageError
from mintoken.models import Account, Outcome, Progress, QuotaCounts, RuleAction
from mintoken.reports import GroupBy
from mintoken.stores.base import Batch
from mintoken.stores.locks import LedgerLock

# Accounts and keys


async def test_a_new_store_has_the_unlimited_account_default(open_store):
    directory = await (await open_store()).directory()
    [account] = directory.accounts
    assert (account.name, account.monthly_tokens, account.created_at) == ("default", 0, NOW)
    assert directory.keys == ()


async def test_accounts_and_keys_come_back_as_they_were_saved(store):
    limited = Account(id="b", name="b", monthly_tokens=9, created_at=NOW + 2)
    revoked = key("k2", account_id="b", revoked_at=NOW)
    await store.save(limited)
    await store.save(revoked)
    directory = await store.directory()
    assert directory.accounts[-1] == limited
    assert set(directory.keys) == {key("key-a"), revoked}


async def test_saving_a_record_again_updates_it(store):
    await store.save(Account(id="a", name="renamed", monthly_tokens=5, created_at=NOW + 1))
    await store.save(replace(key("key-a"), rpm=99))
    directory = await store.directory()
    assert [a.name for a in directory.accounts] == ["default", "renamed"]
    assert [k.rpm for k in directory.keys] == [99]


async def test_the_directory_is_read_again_only_after_a_change_by_anyone(open_store, store):
    other = await open_store()
    known = (await store.directory()).revision
    assert await store.directory(known) is None
    await reserve(other, reservation("1"))
    assert await store.directory(known) is None
    await other.save(replace(key("key-a"), revoked_at=NOW))
    changed = await store.directory(known)
    assert changed.revision > known
    assert changed.keys[0].revoked_at == NOW


async def test_an_account_name_is_taken_once(store):
    with pytest.raises(NameTakenError, match="'default'"):
        await store.save(Account(id="x", name="default", monthly_tokens=0, created_at=NOW))
    await store.save(Account(id="x", name="free", monthly_tokens=0, created_at=NOW))


async def test_a_key_name_is_taken_within_its_account_until_it_is_revoked(store):
    await add_account(store, "b")
    with pytest.raises(NameTakenError, match="'main'"):
        await store.save(key("k2"))
    await store.save(key("key-a", revoked_at=NOW))
    await store.save(key("k2"))
    assert len((await store.directory()).keys) == 3


async def test_a_key_of_an_unknown_account_is_a_storage_error(store):
    with pytest.raises(StorageError):
        await store.save(key("k9", account_id="nobody"))


async def test_records_are_saved_all_or_none(store):
    known = (await store.directory()).revision
    with pytest.raises(NameTakenError):
        await store.save(key("k2", name="other"), key("k3"))
    assert await store.directory(known) is None
    assert await store.save(key("k2", name="other"), key("k3", name="third"))
    assert len((await store.directory()).keys) == 3


async def test_nothing_is_saved_over_what_somebody_has_changed_since(open_store, store):
    other = await open_store()
    known = await store.directory()
    assert await other.save(replace(key("key-a"), rpm=5), revision=known.revision)
    assert not await store.save(replace(key("key-a"), control=9), revision=known.revision)
    [found] = (await store.directory()).keys
    assert (found.rpm, found.control) == (5, 10)


# Rules


@pytest.mark.parametrize("action", RuleAction)
async def test_a_rule_comes_back_as_it_was_saved(store, action):
    saved = rule("r", action=action, pattern="(?i)überse\\w+ '\n", priority=-7)
    await store.save(saved)
    assert (await store.directory()).rules == (saved,)


async def test_rules_come_oldest_first_and_saving_one_again_updates_it(store):
    for one in (rule("new", created_at=NOW + 1), rule("b"), rule("a")):
        await store.save(one)
    await store.save(rule("b", pattern="y", priority=3))
    expected = (rule("a"), rule("b", pattern="y", priority=3), rule("new", created_at=NOW + 1))
    assert (await store.directory()).rules == expected


async def test_a_removed_rule_is_gone_and_removing_it_again_changes_nothing(store):
    await store.save(rule("r"))
    await store.save(rule("stays"))
    await store.remove_rule("r")
    after = await store.directory()
    assert after.rules == (rule("stays"),)
    await store.remove_rule("r")
    assert await store.directory(after.revision) is None


async def test_every_change_of_a_rule_by_anyone_is_a_change_of_the_directory(open_store, store):
    other = await open_store()
    known = (await store.directory()).revision
    changes = (
        lambda: other.save(rule("r")),
        lambda: other.save(rule("r", priority=1)),
        lambda: other.remove_rule("r"),
    )
    for change in changes:
        await change()
        changed = await store.directory(known)
        assert changed is not None
        assert changed.revision > known
        known = changed.revision


async def test_a_rule_of_an_unknown_account_is_a_storage_error(store):
    with pytest.raises(StorageError):
        await store.save(rule("r", account_id="nobody"))
    assert (await store.directory()).rules == ()


# Reserving and settling


async def test_a_request_is_one_row_from_reservation_to_settlement(store, database):
    await reserve(store, reservation("1"))
    assert ask(database, "SELECT outcome, duration_ms, status FROM usage") == [
        ("reserved", None, 0)
    ]
    assert counters(database) == (0, 10, 1)
    await settle(store, settlement("1"))
    [row] = ask(
        database,
        "SELECT outcome, status, model, model_served, stream, intensity, input_tokens,"
        " output_tokens, cached_tokens, reasoning_tokens, injected_tokens, counted_by,"
        " finish_reason, upstream_request_id, first_byte_ms, duration_ms, bytes_in, bytes_out,"
        " reserved_tokens, charged_tokens FROM usage",
    )
    assert row == (
        *("ok", 200, "gpt-x", "gpt-x-1", 1, "lite", 20, 5, 3, 2, 7, "upstream"),
        *("stop", "req_1", 12, 34, 100, 56, 10, 5),
    )
    assert counters(database) == (5, 0, 1)
    assert await store.audit() == []


async def test_the_same_batch_twice_counts_once(store, database):
    batch = Batch(reservations=[reservation("1")])
    assert (await store.commit(batch))["1"].admitted
    assert (await store.commit(batch))["1"].admitted
    assert counters(database) == (0, 10, 1)
    await settle(store, settlement("1"), settlement("1", charged=99))
    await settle(store, settlement("1", charged=99), settlement("unknown"))
    assert counters(database) == (5, 0, 1)
    assert await store.audit() == []


async def test_progress_is_kept_while_the_row_is_open(store, database):
    await reserve(store, reservation("1"), reservation("2"))
    await settle(store, settlement("2"))
    progress = [Progress(id=i, output_tokens=3, bytes_out=4) for i in ("1", "2")]
    await store.commit(Batch(progress=progress))
    assert ask(database, "SELECT output_tokens, bytes_out FROM usage ORDER BY id") == [
        (3, 4),
        (5, 56),
    ]


async def test_a_settlement_makes_room_for_a_reservation_of_the_same_batch(store):
    await add_account(store, "b", 10)
    await reserve(store, reservation("1", "b", reserved=10, needed=10))
    batch = Batch(
        settlements=[settlement("1", charged=0)],
        reservations=[reservation("2", "b", reserved=10, needed=10)],
    )
    assert (await store.commit(batch))["2"].admitted


async def test_an_empty_batch_is_nothing(store):
    assert await store.commit(Batch()) == {}


async def test_strict_admits_exactly_what_fits_of_one_batch(store, database):
    await add_account(store, "b", 1000)
    answers = await reserve(
        store, *(reservation(str(i), "b", reserved=10, needed=10) for i in range(200))
    )
    assert [a.admitted for a in answers.values()] == [True] * 100 + [False] * 100
    assert counters(database, "b") == (0, 1000, 100)


async def test_strict_admits_exactly_what_fits_across_stores(open_store, store, database):
    await add_account(store, "b", 1000)
    stores = [store, await open_store()]
    answers = await asyncio.gather(
        *(
            reserve(stores[i % 2], reservation(str(i), "b", reserved=10, needed=10))
            for i in range(200)
        )
    )
    assert sum(a[str(i)].admitted for i, a in enumerate(answers)) == 100
    assert counters(database, "b") == (0, 1000, 100)
    assert await store.audit() == []


async def test_soft_admits_while_anything_is_left(store):
    await add_account(store, "b", 100)
    await store.directory()
    first = await reserve(store, reservation("1", "b", reserved=99))
    second = await reserve(store, reservation("2", "b", reserved=99))
    third = await reserve(store, reservation("3", "b", reserved=99))
    assert [first["1"].admitted, second["2"].admitted, third["3"].admitted] == [True, True, False]
    assert (second["2"].used, second["2"].limit) == (0, 100)
    await settle(store, settlement("1", charged=60), settlement("2", charged=50))
    last = (await reserve(store, reservation("4", "b")))["4"]
    assert (last.admitted, last.used, last.limit) == (False, 110, 100)


async def test_each_month_has_its_own_quota(store):
    await add_account(store, "b", 10)
    await reserve(store, reservation("1", "b", reserved=10))
    answers = await reserve(store, reservation("2", "b"), reservation("3", "b", month="2026-12"))
    assert [answers["2"].admitted, answers["3"].admitted] == [False, True]


async def test_an_unlimited_account_is_always_admitted(store, database):
    await store.directory()
    answers = await reserve(store, *(reservation(str(i), reserved=2**40) for i in range(50)))
    assert all(a.admitted and a.limit == 0 for a in answers.values())
    assert counters(database) == (0, 50 * 2**40, 50)


async def test_a_new_limit_holds_for_a_store_that_has_not_read_it(open_store, store):
    other = await open_store()
    await other.directory()
    await store.save(Account(id="a", name="a", monthly_tokens=10, created_at=NOW + 1))
    answers = await reserve(other, *(reservation(str(i), reserved=10, needed=10) for i in range(2)))
    assert [a.admitted for a in answers.values()] == [True, False]
    assert answers["1"].limit == 10


async def test_a_reservation_for_an_unknown_account_is_refused(store):
    answers = await reserve(store, reservation("1", "nobody"))
    assert not answers["1"].admitted
    assert await store.audit() == []


# Failure


async def test_a_failed_batch_leaves_nothing_and_the_next_one_works(store, database):
    await reserve(store, reservation("1"))
    with pytest.raises(StorageError):
        await store.commit(
            Batch(
                settlements=[settlement("1")],
                reservations=[reservation("2"), reservation("3", key_id="unknown")],
            )
        )
    assert counters(database) == (0, 10, 1)
    await reserve(store, reservation("4"))
    assert counters(database) == (0, 20, 2)
    await settle(store, settlement("1"))
    assert counters(database) == (5, 10, 2)


@pytest.mark.parametrize(
    "value", [{"model": "\ud800"}, {"started_at": 2**63}], ids=["surrogate", "too-large"]
)
async def test_a_value_that_sqlite_cannot_hold_is_a_storage_error(store, database, value):
    with pytest.raises(StorageError):
        await reserve(store, reservation("1"), reservation("2", **value))
    assert ask(database, "SELECT count(*) FROM usage") == [(0,)]
    assert (await reserve(store, reservation("1")))["1"].admitted


async def test_a_locked_database_is_a_storage_error_until_it_is_free(store, database):
    with closing(sqlite3.connect(database, isolation_level=None)) as intruder:
        intruder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            await reserve(store, reservation("1"))
        assert await store.directory() is not None
        intruder.execute("ROLLBACK")
    assert (await reserve(store, reservation("1")))["1"].admitted
    assert await store.audit() == []


async def test_a_commit_waits_for_the_ledger_lock(store, tmp_path):
    with (tmp_path / "data" / "ledger.lock").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        commit = asyncio.create_task(reserve(store, reservation("1")))
        assert await asyncio.wait({commit}, timeout=0.05) == (set(), {commit})
        fcntl.flock(holder, fcntl.LOCK_UN)
        assert (await commit)["1"].admitted


async def test_a_cancelled_commit_is_done_all_the_same(store, database, tmp_path):
    with (tmp_path / "data" / "ledger.lock").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        commit = asyncio.create_task(reserve(store, reservation("1")))
        await asyncio.wait({commit}, timeout=0.05)
        commit.cancel()
        await asyncio.wait({commit})
        assert commit.cancelled()
    assert (await reserve(store, reservation("2")))["2"].admitted
    assert counters(database) == (0, 20, 2)


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_a_commit_cancelled_at_any_point_is_whole_and_leaves_the_store_usable(store, turns):
    commit = asyncio.create_task(
        store.commit(Batch(settlements=[settlement("0")], reservations=[reservation("1")]))
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    # As a loop that is being shut down does: the caller and whatever works for it.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait({commit})
    assert (await reserve(store, reservation("2")))["2"].admitted
    assert await store.audit() == []


async def test_a_cancelled_reader_leaves_the_store_usable(store):
    reading = asyncio.create_task(store.report(month=MONTH, group_by=GroupBy.DAY))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    assert await store.report(month=MONTH, group_by=GroupBy.DAY) == []


async def test_a_closed_store_answers_with_storage_errors(store):
    await store.close()
    await store.close()
    with pytest.raises(StorageError):
        await reserve(store, reservation("1"))
    with pytest.raises(StorageError):
        await store.directory()


async def test_a_lock_that_comes_too_late_is_given_back(tmp_path):
    lock = LedgerLock(tmp_path / "lock", patience_s=0.01)
    other = LedgerLock(tmp_path / "lock")
    await other.acquire()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"0\.01 s"):
            await lock.acquire()
    other.release()
    async with other:
        pass
    async with lock:
        pass
    lock.close()
    other.close()


# Recovery

WORKER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from store_cases import *
from mintoken.models import Progress
from mintoken.stores.sqlite import open_sqlite

async def main():
    store = await open_sqlite(Path({data_dir!r}), clock_ms=lambda: NOW)
    {work}
    await store.close()

asyncio.run(main())
"""
HANG = """
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)"""


async def start_worker(tmp_path: Path, work: str) -> asyncio.subprocess.Process:
    code = WORKER.format(
        tests=str(Path(__file__).parent), data_dir=str(tmp_path / "data"), work=work
    )
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def start_hanging(tmp_path: Path, work: str) -> asyncio.subprocess.Process:
    worker = await start_worker(tmp_path, work + HANG)
    assert await worker.stdout.readline() == b"ready\n"
    return worker


LEAVE_TWO_OPEN = """
    await reserve(store, reservation("1"), reservation("2"), reservation("3"))
    await settle(store, settlement("3"))
    await store.commit(Batch(progress=[Progress(id="2", output_tokens=4, bytes_out=9)]))"""


async def test_rows_of_a_killed_worker_are_settled_with_what_was_known(store, database, tmp_path):
    worker = await start_hanging(tmp_path, LEAVE_TWO_OPEN)
    await reserve(store, reservation("mine"))
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 0
    worker.send_signal(signal.SIGKILL)
    await worker.communicate()
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 2
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 0
    assert ask(
        database, "SELECT id, outcome, charged_tokens, status, bytes_out FROM usage ORDER BY id"
    ) == [
        ("1", "crashed", 0, 0, 0),
        ("2", "crashed", 4, 0, 9),
        ("3", "ok", 5, 200, 56),
        ("mine", "reserved", 0, 0, 0),
    ]
    assert counters(database) == (9, 10, 4)
    assert len(list((tmp_path / "data" / "workers").iterdir())) == 1
    assert await store.audit() == []


async def test_recovery_charges_the_prompt_too_where_the_quota_counts_it(store, database, tmp_path):
    worker = await start_hanging(tmp_path, LEAVE_TWO_OPEN)
    worker.send_signal(signal.SIGKILL)
    await worker.communicate()
    ask(database, "UPDATE usage SET input_tokens = 100 WHERE id = '2'")
    assert await store.recover(counts=QuotaCounts.TOTAL) == 2
    assert counters(database) == (5 + 4 + 100, 0, 3)


async def test_rows_of_a_closed_store_are_recovered_and_late_settlements_change_nothing(
    open_store, store, database
):
    other = await open_store()
    await reserve(other, reservation("1"))
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 0
    await other.close()
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 1
    await settle(store, settlement("1"))
    assert counters(database) == (0, 0, 1)


async def test_strict_admits_exactly_what_fits_across_processes(store, database, tmp_path):
    await add_account(store, "b", 300)
    work = """
    for i in range(20):
        await reserve(store, *(
            reservation(f"{sys.stdin.fileno()}-%s-{i}-{j}", "b", reserved=5, needed=5)
            for j in range(2)))"""
    workers = [await start_worker(tmp_path, work % name) for name in "wxyz"]
    for worker in workers:
        await worker.communicate()
        assert worker.returncode == 0
    assert counters(database, "b") == (0, 300, 60)
    assert await store.audit() == []


# Reports


async def test_a_report_adds_up_settled_rows_by_each_group(store):
    await add_account(store, "b")
    await reserve(
        store,
        reservation("1"),
        reservation("2", started_at=NOW + DAY, model="gpt-y"),
        reservation("3", "b"),
        reservation("4", "b", month="2026-12"),
        reservation("open"),
    )
    await settle(
        store,
        *(settlement(i) for i in "14"),
        settlement("2", outcome=Outcome.CLIENT_CLOSED, charged=1),
        settlement("3"),
    )

    async def groups(group_by: GroupBy, account_id: str | None = None) -> list:
        lines = await store.report(month=MONTH, group_by=group_by, account_id=account_id)
        return [(line.group, line.requests, line.charged_tokens) for line in lines]

    assert await groups(GroupBy.DAY) == [("2026-11-18", 2, 10), ("2026-11-19", 1, 1)]
    assert await groups(GroupBy.KEY) == [("key-a", 2, 6), ("key-b", 1, 5)]
    assert await groups(GroupBy.MODEL) == [("gpt-x", 2, 10), ("gpt-y", 1, 1)]
    assert await groups(GroupBy.OUTCOME) == [("client_closed", 1, 1), ("ok", 2, 10)]
    assert await groups(GroupBy.OUTCOME, "b") == [("ok", 1, 5)]
    [line] = await store.report(month="2026-12", group_by=GroupBy.KEY)
    assert (line.input_tokens, line.output_tokens, line.cached_tokens) == (20, 5, 3)
    assert (line.reasoning_tokens, line.injected_tokens) == (2, 7)


async def test_the_audit_finds_a_counter_that_is_not_the_sum_of_its_rows(store, database):
    await reserve(store, reservation("1"), reservation("2"))
    await settle(store, settlement("1"))
    assert await store.audit() == []
    ask(database, "UPDATE month_usage SET used = 6, requests = 3")
    assert await store.audit() == [
        "account a, 2026-11: used is 6, its rows make 5; requests is 3, its rows make 2"
    ]
    ask(database, "DELETE FROM month_usage")
    [line] = await store.audit()
    assert "reserved is 0, its rows make 10" in line


# The SQLite file


@pytest.mark.parametrize("umask", [0, 0o277])
async def test_everything_on_disk_is_private_whatever_the_umask(open_store, tmp_path, umask):
    before = os.umask(umask)
    try:
        store = await open_store()
        await add_account(store)
        await reserve(store, reservation("1"))
        for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(before)


async def test_the_pragmas_are_those_of_the_design(store, database):
    assert ask(database, "PRAGMA journal_mode") == [("wal",)]
    assert ask(database, "PRAGMA application_id") == [(int.from_bytes(b"MTKN", "big"),)]
    assert ask(database, "PRAGMA user_version") == [(11,)]
    tables = ask(
        database, "SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite%'"
    )
    assert sorted(tables) == [
        (name, 1)
        for name in (
            "accounts admin_keys directory experiment_conversations experiment_samples feed"
            " invitation key_usage keys latency_buckets latency_days month_usage purged_usage rules"
            " sessions totals_until usage usage_dimensions usage_hours usage_totals users"
            " verdicts"
        ).split()
    ]
    for pragma, value in [("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0)]:
        [(found,)] = await store._writer.execute_fetchall(f"PRAGMA {pragma}")
        assert (pragma, found) == (pragma, value)


async def test_everything_is_there_after_reopening(open_store, store):
    await reserve(store, reservation("1"))
    directory = await store.directory()
    await store.close()
    again = await open_store()
    assert await again.directory() == directory
    assert await again.audit() == []
    assert await again.recover(counts=QuotaCounts.OUTPUT) == 1


async def test_two_stores_that_start_at_once_make_one_database(open_store):
    stores = await asyncio.gather(*(open_store() for _ in range(5)))
    directories = [await store.directory() for store in stores]
    assert [len(d.accounts) for d in directories] == [1] * 5
    assert all(one == directories[0] for one in directories)


async def test_a_creation_that_broke_off_is_begun_again(open_store, database):
    database.parent.mkdir()
    database.with_name("mintoken.db.new").write_bytes(b"half")
    assert len((await (await open_store()).directory()).accounts) == 1
    assert not database.with_name("mintoken.db.new").exists()


async def test_the_write_ahead_log_is_kept_short(store, database):
    wal = database.with_name("mintoken.db-wal")
    for i in range(120):
        await reserve(store, *(reservation(f"{i}-{j}") for j in range(100)))
    assert wal.stat().st_size <= 5 * 2**20
    assert database.stat().st_size > 2**20


def make_foreign(path: Path) -> None:
    ask(path, "CREATE TABLE other (x)")


def make_text(path: Path) -> None:
    path.write_text("not a database")


def make_empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [make_foreign, make_text, make_empty])
async def test_a_file_of_somebody_else_is_refused_untouched(open_store, database, make):
    database.parent.mkdir()
    make(database)
    before = database.read_bytes()
    with pytest.raises(ForeignDatabaseError, match=r"not a Mintoken database.*move it away"):
        await open_store()
    assert database.read_bytes() == before


def make_newer(path: Path) -> None:
    ask(path, "PRAGMA user_version = 99")


def make_truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def make_torn(path: Path) -> None:
    os.truncate(path, 1000)


def make_garbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_newer, "upgrade Mintoken"),
        (make_truncated, "damaged"),
        (make_torn, "damaged"),
        (make_garbled, "damaged"),
    ],
)
async def test_a_newer_or_damaged_database_is_refused_untouched(
    open_store, store, database, spoil, message
):
    await store.close()
    spoil(database)
    before = database.read_bytes()
    with pytest.raises(ForeignDatabaseError, match=message):
        await open_store()
    assert database.read_bytes() == before


async def test_a_log_without_its_database_is_refused(open_store, database):
    database.parent.mkdir()
    database.with_name("mintoken.db-wal").write_bytes(b"x")
    with pytest.raises(ForeignDatabaseError, match="gone"):
        await open_store()
    assert not database.exists()


async def test_a_folder_that_cannot_be_made_is_a_storage_error(open_store, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError):
        await open_store()
