"""`mintoken purge`: old rows go, what they add up to stays, and a running server hardly waits."""

import asyncio
import json
from pathlib import Path

import pytest
import time_machine
from conftest import Proxy, audit
from fake_upstream import FakeUpstream
from store_cases import (
    DAY,
    MONTH,
    NOW,
    add_account,
    ask,
    reservation,
    reserve,
    settle,
    settlement,
)

from mintoken.cli import main
from mintoken.clock import month_of
from mintoken.reports import PURGED, GroupBy
from mintoken.stores.sqlite import open_sqlite

BEFORE = "2026-10"


async def fill(store) -> None:
    """Two months of rows; of the earlier one, row `open` is still reserved."""
    await add_account(store, "b")
    await reserve(store, *(reservation(f"new-{i}") for i in range(3)))
    await reserve(store, *(reservation(f"old-{i}", month=BEFORE) for i in range(5)))
    await reserve(store, reservation("old-b", "b", month=BEFORE), reservation("open", month=BEFORE))
    await settle(store, *(settlement(f"new-{i}") for i in range(3)), settlement("old-b", charged=7))
    await settle(store, *(settlement(f"old-{i}") for i in range(5)))


async def lines(store, month: str, account_id=None) -> list:
    found = await store.report(month=month, group_by=GroupBy.DAY, account_id=account_id)
    return [(line.group, line.requests, line.output_tokens, line.charged_tokens) for line in found]


async def test_a_purge_deletes_settled_rows_of_earlier_months_and_keeps_their_sums(store, database):
    await fill(store)
    before = ask(database, "SELECT * FROM month_usage")
    assert await store.purge(before=MONTH, limit=100) == 6
    assert await store.purge(before=MONTH, limit=100) == 0
    assert ask(database, "SELECT * FROM month_usage") == before
    assert ask(database, "SELECT id FROM usage ORDER BY id") == [
        ("new-0",), ("new-1",), ("new-2",), ("open",)
    ]  # fmt: skip
    assert await lines(store, BEFORE) == [(PURGED, 6, 30, 32)]
    assert await lines(store, BEFORE, "b") == [(PURGED, 1, 5, 7)]
    assert await lines(store, MONTH) == [("2026-11-18", 3, 15, 15)]
    assert await store.audit() == []


async def test_a_purge_in_parts_adds_up_and_a_row_that_was_open_follows(store, database):
    await fill(store)
    parts = [await store.purge(before=MONTH, limit=4) for _ in range(3)]
    assert parts == [4, 2, 0]
    await settle(store, settlement("open", charged=1))
    assert await lines(store, BEFORE) == [(PURGED, 6, 30, 32), ("2026-11-18", 1, 5, 1)]
    assert await store.audit() == []
    assert await store.purge(before=MONTH, limit=4) == 1
    assert await lines(store, BEFORE) == [(PURGED, 7, 35, 33)]
    assert await store.audit() == []


async def test_the_audit_compares_what_was_purged_too(store, database):
    await fill(store)
    await store.purge(before=MONTH, limit=100)
    ask(database, "UPDATE purged_usage SET charged_tokens = charged_tokens + 1")
    assert [line.partition(":")[0] for line in await store.audit()] == [
        "account a, 2026-10", "account b, 2026-10", "account a", "account b",
    ]  # fmt: skip


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of an installation with rows of two months; the clock is in November."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", "data")

    async def make() -> None:
        store = await open_sqlite(tmp_path / "data", clock_ms=lambda: NOW)
        await add_account(store)
        await fill(store)
        await store.close()

    asyncio.run(make())
    with time_machine.travel(NOW / 1000, tick=True):
        yield tmp_path / "data"


def shown(capsys, *arguments: str) -> str:
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_purged_month_shows_its_sums_and_says_that_its_rows_are_gone(used, capsys) -> None:
    told = shown(capsys, "purge", "--before", MONTH)
    assert told == "6 usage rows of months before 2026-11 are deleted, their sums are kept.\n"
    again = json.loads(shown(capsys, "purge", "--before", MONTH, "--json"))
    assert again == {"before": MONTH, "rows": 0}
    for by in GroupBy:
        document = json.loads(shown(capsys, "usage", "--month", BEFORE, "--by", by, "--json"))
        assert [row["group"] for row in document["rows"]] == ["(purged)"]
        assert document["total"]["requests"] == 6
        assert document["total"]["charged_tokens"] == 32
        assert "(purged)" in shown(capsys, "usage", "--month", BEFORE, "--by", by)
        assert "(purged),6," in shown(capsys, "usage", "--month", BEFORE, "--by", by, "--csv")
    assert asyncio.run(audit(used)) == []


@pytest.mark.parametrize("before", ["2026-12", "2027-01", "9999-01", "2026-13", "soon", ""])
def test_the_present_month_is_never_purged(used, capsys, before: str) -> None:
    assert main(["purge", "--before", before]) == 2
    assert "--before" in capsys.readouterr().err
    assert len(ask(used / "mintoken.db", "SELECT id FROM usage")) == 10


async def test_a_running_server_goes_on_while_old_rows_go(
    proxy: Proxy, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", str(proxy.data_dir))
    store = await open_sqlite(proxy.data_dir, clock_ms=lambda: NOW)
    await add_account(store)
    for part in range(10):
        ids = [f"{part}-{i}" for i in range(200)]
        await reserve(store, *(reservation(i, month="2020-01", started_at=DAY) for i in ids))
        await settle(store, *(settlement(i) for i in ids))
    await store.close()
    purge = asyncio.create_task(asyncio.to_thread(main, ["purge", "--before", "2020-02"]))
    asked = 0
    while not purge.done():
        assert (await proxy.post()).status == 200
        asked += 1
    assert await purge == 0
    assert asked > 1
    rows = await proxy.settled(asked)
    assert {row["month"] for row in rows} == {month_of(rows[0]["started_at"])}
    assert await audit(proxy.data_dir) == []
