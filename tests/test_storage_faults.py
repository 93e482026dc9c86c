"""Storage that fails under a running server: what design §5 promises, on real failing files."""

import asyncio
import io
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import aiohttp
import disks
import pytest
from conftest import CHAT, Proxy, Served, StartProxy, add_key, audit, config_for, eventually
from disks import Disk
from fake_upstream import DONE, END, FakeUpstream, delta, stream_head

from mintoken import ledger, logs
from mintoken.errors import ForeignDatabaseError, StorageError
from mintoken.server import running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger tries again at once, so that a test sees many tries in little time."""
    monkeypatch.setattr(ledger, "RETRY_S", 0.005)
    monkeypatch.setattr(ledger, "TICK_S", 0.02)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk that holds the data directory of the first proxy."""
    with disks.small_disk(tmp_path / "data0", mib=8) as disk:
        yield disk


@asynccontextmanager
async def stream_running(proxy: Proxy, upstream: FakeUpstream) -> AsyncIterator[None]:
    """A stream that is in the middle when the body runs, and comes to its good end after it."""
    gate, before = asyncio.Event(), len(upstream.requests)
    upstream.play(stream_head(), delta("Hello"), gate, delta(" there"), DONE, END)
    caller = asyncio.create_task(proxy.post(CHAT | {"stream": True}))
    await upstream.received(before + 1)
    yield
    gate.set()
    answer = await caller
    assert answer.status == 200
    assert (await answer.read()).endswith(b"data: [DONE]\n\n")


async def assert_refuses(proxy: Proxy) -> None:
    """New requests get 503, and the server says that it is not ready."""
    refused = await proxy.post()
    assert refused.status == 503
    assert refused.headers["X-Mintoken-Error"] == "storage_unavailable"
    assert refused.headers["Retry-After"] == "1"
    async with proxy.session.get(f"{proxy.url}/readyz") as answer:
        assert answer.status == 503
        assert "storage_unavailable" in (await answer.json())["reasons"]


async def ready(proxy: Proxy) -> bool:
    async with proxy.session.get(f"{proxy.url}/readyz") as answer:
        return answer.status == 200


async def until_ready(proxy: Proxy, wanted: bool = True) -> None:
    async with asyncio.timeout(10):
        while await ready(proxy) != wanted:
            pass


async def assert_whole(proxy: Proxy, upstream: FakeUpstream) -> None:
    """Every request that reached the provider has its one row, settled, and the sums are right."""
    rows = await proxy.settled(len(upstream.requests))
    assert {row["id"] for row in rows} == {
        request.header("X-Client-Request-Id") for request in upstream.requests
    }
    assert {row["outcome"] for row in rows} == {"ok"}
    assert await audit(proxy.data_dir) == []


def events(proxy: Proxy, name: str) -> list[str]:
    return [str(line.get("error")) for line in proxy.log_lines() if line["event"] == name]


# --- A full disk --------------------------------------------------------------------------------


async def test_a_locked_database_refuses_new_requests_and_loses_no_running_one(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    with closing(sqlite3.connect(proxy.data_dir / "mintoken.db", isolation_level=None)) as other:
        async with stream_running(proxy, upstream):
            other.execute("BEGIN IMMEDIATE")
            await assert_refuses(proxy)
        assert proxy.rows()[0]["outcome"] == "reserved"
        other.execute("ROLLBACK")
    (row,) = await proxy.settled()
    assert (row["outcome"], row["output_tokens"]) == ("ok", 2)
    assert (await proxy.post()).status == 200
    assert await audit(proxy.data_dir) == []


async def test_a_full_disk_refuses_new_requests_and_loses_no_running_one(
    disk: Disk, start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy()
    async with stream_running(proxy, upstream):
        disk.fill()
        await assert_refuses(proxy)
    # The stream came to its end; its settlement waits.
    await assert_refuses(proxy)
    assert [row["outcome"] for row in proxy.rows()] == ["reserved"]
    disk.free()
    await until_ready(proxy)
    assert (await proxy.post()).status == 200
    await assert_whole(proxy, upstream)


async def test_it_is_not_ready_for_as_long_as_the_disk_is_full_though_nobody_asks(
    disk: Disk, start_proxy: StartProxy
) -> None:
    proxy = await start_proxy()
    await until_ready(proxy)
    disk.fill()
    await until_ready(proxy, False)
    assert [await ready(proxy) for _ in range(200)] == [False] * 200
    disk.free()
    await until_ready(proxy)


async def test_a_fault_is_logged_when_it_begins_and_when_it_ends_not_at_every_try(
    disk: Disk, start_proxy: StartProxy
) -> None:
    proxy = await start_proxy()
    disk.fill()
    await until_ready(proxy, False)
    for _ in range(20):
        await assert_refuses(proxy)
    disk.free()
    await until_ready(proxy)
    [error] = events(proxy, "storage_unavailable")
    assert "full" in error
    assert "See that the disk of storage.data_dir has room" in error
    assert len(events(proxy, "storage_available")) == 1


async def test_a_log_on_the_full_disk_stops_nothing(
    disk: Disk, start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy()
    with (disk.folder / "log").open("w") as log:
        logs.configure(log)
        async with stream_running(proxy, upstream):
            disk.fill()
            for _ in range(5):
                await assert_refuses(proxy)
        disk.free()
        await until_ready(proxy)
        assert (await proxy.post()).status == 200
        await assert_whole(proxy, upstream)
        logs.configure(proxy.log)


async def test_a_server_that_starts_on_a_full_disk_serves_once_there_is_room(
    disk: Disk, start_proxy: StartProxy, upstream: FakeUpstream, tmp_path: Path
) -> None:
    first = await start_proxy()
    async with stream_running(first, upstream):
        disk.fill()
        # As a worker does that takes the place of one that died.
        async with running(config_for(upstream, first.data_dir)) as listening:
            second = replace(first, url=f"http://{listening.public}")
            await assert_refuses(second)
            disk.free()
            await until_ready(second)
            assert (await second.post()).status == 200
    await assert_whole(first, upstream)


@pytest.mark.parametrize("there_is_room_in_time", [True, False])
async def test_what_waits_at_the_end_is_settled_if_the_fault_passes_soon(
    disk: Disk, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, there_is_room_in_time: bool
) -> None:
    if not there_is_room_in_time:
        monkeypatch.setattr(ledger, "LAST_TRIES_S", 0.05)
    key, log = await add_key(disk.folder), io.StringIO()
    logs.configure(log)
    async with aiohttp.ClientSession() as session, AsyncExitStack() as server:
        listening = await server.enter_async_context(running(config_for(upstream, disk.folder)))
        proxy = Proxy(f"http://{listening.public}", "", key, disk.folder, log, session)
        async with stream_running(proxy, upstream):
            await asyncio.to_thread(disk.fill)
        await until_ready(proxy, False)
        ending = asyncio.create_task(server.aclose())
        await asyncio.wait({ending}, timeout=0.02)
        assert not ending.done()
        if there_is_room_in_time:
            disk.free()
        await ending
    disk.free()
    assert outcomes(disk.folder) == ["ok" if there_is_room_in_time else "reserved"]
    assert await audit(disk.folder) == []


@pytest.mark.parametrize("leave_pages", [0, 1, 2, 5, 10])
async def test_a_first_start_on_a_full_disk_fails_and_the_next_one_begins_anew(
    disk: Disk, leave_pages: int
) -> None:
    disk.fill(leave_pages=leave_pages)
    with pytest.raises(StorageError, match="full"):
        await audit(disk.folder)
    disk.free()
    assert await audit(disk.folder) == []


# --- A file system that has become read-only, files that went away, damage -----------------------


async def test_a_file_system_that_turns_read_only_cuts_no_stream_and_ends_cleanly(
    upstream: FakeUpstream, served: Served, tmp_path: Path
) -> None:
    image, folder = tmp_path / "image", served.data_dir
    (tmp_path / "keep").mkdir()
    for path in list(folder.iterdir()):
        path.rename(tmp_path / "keep" / path.name)
    disks.make_ext4(image, mib=16)
    with disks.mounted(folder, "-o", "loop,errors=remount-ro", str(image)):
        for path in (tmp_path / "keep").iterdir():
            shutil.copy(path, folder)
        os.sync()
        gate = asyncio.Event()
        upstream.play(stream_head(), delta("Hello"), gate, delta(" there"), DONE, END)
        async with aiohttp.ClientSession(headers=served.headers) as session:
            await served.start(session)
            url = f"{served.url}/v1/chat/completions"
            async with session.post(url, json=CHAT | {"stream": True}) as stream:
                disks.break_ext4(folder)
                async with session.post(url, json=CHAT) as refused:
                    assert refused.status == 503
                async with session.get(f"{served.url}/readyz") as answer:
                    assert answer.status == 503
                gate.set()
                assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            assert await served.stop(signal.SIGTERM) == 0
    assert "storage_unavailable" in served.log.read_text()
    with disks.mounted(folder, "-o", "loop", str(image)):
        assert await audit(folder) == []
        async with aiohttp.ClientSession(headers=served.headers) as session:
            await served.start(session)
            await eventually(lambda: outcomes(folder) == ["crashed"])
            async with session.post(f"{served.url}/v1/chat/completions", json=CHAT) as answer:
                assert answer.status == 200
            assert await served.stop(signal.SIGTERM) == 0
        assert outcomes(folder) == ["crashed", "ok"]
        assert await audit(folder) == []


def outcomes(data_dir: Path) -> list[str]:
    with closing(sqlite3.connect(data_dir / "mintoken.db")) as database:
        return [row[0] for row in database.execute("SELECT outcome FROM usage ORDER BY id")]


async def test_a_read_only_file_system_is_refused_with_what_to_do(tmp_path: Path) -> None:
    image, folder = tmp_path / "image", tmp_path / "data"
    disks.make_ext4(image, mib=16)
    with disks.mounted(folder, "-o", "loop", str(image)):
        assert await audit(folder) == []
    told = r"Read-only file system.*set that to a directory"
    with (
        disks.mounted(folder, "-o", "loop,ro", str(image)),
        pytest.raises(StorageError, match=told),
    ):
        await audit(folder)


@pytest.mark.parametrize(
    "name", ["mintoken.db", "mintoken.db-wal", "mintoken.db-shm", "ledger.lock", "workers/*.lock"]
)
async def test_a_file_that_is_taken_away_is_missed_until_it_is_put_back(
    proxy: Proxy, upstream: FakeUpstream, name: str
) -> None:
    assert (await proxy.post()).status == 200
    async with stream_running(proxy, upstream):
        [path] = proxy.data_dir.glob(name)
        aside = path.with_name("aside")
        path.rename(aside)
        if name == "mintoken.db":
            path.write_bytes(aside.read_bytes())
        await assert_refuses(proxy)
    await assert_refuses(proxy)
    assert f"{path} was removed or replaced" in events(proxy, "storage_unavailable")[0]
    aside.rename(path)
    await until_ready(proxy)
    await assert_whole(proxy, upstream)


async def test_damage_cuts_no_stream_is_told_clearly_and_refused_at_the_next_start(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    path = proxy.data_dir / "mintoken.db"
    assert (await proxy.post()).status == 200
    await proxy.settled()
    async with stream_running(proxy, upstream):
        await asyncio.to_thread(damage, path)
        await assert_refuses(proxy)
    await assert_refuses(proxy)
    assert "database is damaged" in events(proxy, "storage_unavailable")[0]
    damaged = path.read_bytes()
    with pytest.raises(ForeignDatabaseError, match="damaged"):
        await audit(proxy.data_dir)
    assert path.read_bytes() == damaged


async def test_a_server_does_not_start_on_damaged_rows(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    for _ in range(2):
        assert (await proxy.post()).status == 200
    await proxy.settled(2)
    copy = proxy.data_dir.parent / "copy"
    copy.mkdir()
    with closing(sqlite3.connect(proxy.data_dir / "mintoken.db")) as database:
        database.execute("VACUUM INTO ?", [str(copy / "mintoken.db")])
    shutil.copy(proxy.data_dir / "server_secret", copy)
    with closing(sqlite3.connect(copy / "mintoken.db")) as database:
        [(page,)] = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'usage_open'")
    with (copy / "mintoken.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(ForeignDatabaseError, match="damaged"):
        async with running(config_for(upstream, copy)):
            pass


def damage(path: Path) -> None:
    """Flip every byte behind the first page, and have everybody read all pages again."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE another (x)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        rest = file.read()
        file.seek(4096)
        file.write(bytes(byte ^ 0xFF for byte in rest))
        os.fsync(file.fileno())
