"""Several processes on one socket: their deaths, reloads and limits."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from conftest import CHAT, Served, add_key, audit, eventually
from fake_upstream import DONE, END, FakeUpstream, completion, delta, json_reply, stream_head


@pytest.fixture
def served(served: Served) -> Served:
    served.environ["MINTOKEN_SERVER_WORKERS"] = "2"
    return served


async def serving(served: Served, session: aiohttp.ClientSession) -> list[int]:
    """Start it; the workers once all of them serve."""
    await served.start(session)
    await eventually(lambda: b'"listening"' in served.log.read_bytes())
    return served.workers()


async def asked(served: Served, session: aiohttp.ClientSession, body: object = CHAT) -> int:
    url = f"{served.url}/v1/chat/completions"
    patience = aiohttp.ClientTimeout(10)
    async with session.post(url, json=body, headers=served.headers, timeout=patience) as answer:
        await answer.read()
        return answer.status


async def afresh(served: Served, body: object = CHAT) -> int:
    async with aiohttp.ClientSession() as session:
        return await asked(served, session, body)


async def test_a_worker_that_dies_is_replaced_within_a_second_and_its_rows_are_settled(
    served: Served, upstream: FakeUpstream
) -> None:
    gate = asyncio.Event()
    upstream.play(stream_head(), delta("a"), gate, DONE, END)
    async with aiohttp.ClientSession(headers=served.headers) as session:
        before = await serving(served, session)
        assert len(before) == 2
        stream = await session.post(
            f"{served.url}/v1/chat/completions", json=CHAT | {"stream": True}
        )
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        await eventually(lambda: len(set(served.workers()) - set(before)) == 2, within=1.0)
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.read()
        assert await afresh(served) == 200
        assert time.monotonic() - begun < 2.0
        assert await served.stop(signal.SIGTERM) == 0
    assert served.log.read_bytes().count(b"worker_died") == 2
    assert await audit(served.data_dir) == []


async def test_it_outlives_workers_that_die_before_they_serve(served: Served) -> None:
    """All of them at once, so that for a moment there is nobody left."""
    async with aiohttp.ClientSession() as session:
        await serving(served, session)
    for _ in range(3):
        workers = await eventually(served.workers)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda before=workers: not set(served.workers()) & set(before))
    await eventually(lambda: len(served.workers()) == 2)
    assert await afresh(served) == 200
    assert await served.stop(signal.SIGTERM) == 0


async def test_a_reload_lets_streams_finish_and_takes_the_new_configuration(
    served: Served, upstream: FakeUpstream, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[server]\nmax_body_bytes = 1048576\n")
    gate = asyncio.Event()
    upstream.play(stream_head(), delta("a"), gate, delta("b"), DONE, END)
    url = f"{served.url}/v1/chat/completions"
    async with aiohttp.ClientSession(headers=served.headers) as session:
        await serving(served, session)
        stream = await session.post(url, json=CHAT | {"stream": True})
        config.write_text("[server]\nmax_body_bytes = 1024\n")
        served.signal(signal.SIGHUP)
        await eventually(lambda: b'"reloaded"' in served.log.read_bytes())
        # Until they have heard of it, the old workers may still be asked.
        while await afresh(served, CHAT | {"user": "x" * 2000}) != 413:
            assert not stream.content.at_eof()
        gate.set()
        assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        assert await served.stop(signal.SIGTERM) == 0


@contextmanager
def a_bad_secret(served: Served, how: str) -> Iterator[None]:
    """No worker can start meanwhile, because of the configuration or of the file system."""
    secret = served.data_dir / "server_secret"
    kept = secret.read_bytes()
    secret.unlink()
    if how == "unreadable":
        secret.mkdir()
    yield
    if how == "unreadable":
        secret.rmdir()
    secret.write_bytes(kept)


@pytest.mark.parametrize("how", ["missing", "unreadable"])
async def test_a_reload_whose_workers_cannot_start_leaves_everything_as_it_is(
    served: Served, how: str
) -> None:
    async with aiohttp.ClientSession() as session:
        workers = await serving(served, session)
        with a_bad_secret(served, how):
            served.signal(signal.SIGHUP)
            await eventually(lambda: b"the old ones stay" in served.log.read_bytes())
            await eventually(lambda: served.workers() == workers)
            # Long enough for whoever thinks that it is the parent now.
            for _ in range(20):
                assert await afresh(served) == 200
                await asyncio.sleep(0.1)
            assert served.workers() == workers
            assert processes_of(served) == {*workers, served.process.pid}
        served.signal(signal.SIGHUP)
        await eventually(lambda: b'"reloaded"' in served.log.read_bytes())
        assert await served.stop(signal.SIGTERM) == 0


def processes_of(served: Served) -> set[int]:
    """All processes of the server's session."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[3]) == served.process.pid:
                found.add(int(path.parent.name))
    return found


@pytest.mark.parametrize("how", ["missing", "unreadable"])
async def test_workers_that_cannot_start_are_tried_until_they_can(served: Served, how: str) -> None:
    async with aiohttp.ClientSession() as session:
        workers = await serving(served, session)
        with a_bad_secret(served, how):
            os.kill(workers[0], signal.SIGKILL)
            await eventually(lambda: served.log.read_bytes().count(b"worker_died") >= 3)
            assert await afresh(served) == 200
            assert len(processes_of(served)) <= 3
        await eventually(lambda: len(served.workers()) == 2)
        await eventually(lambda: len(processes_of(served)) == 3)
        assert await served.stop(signal.SIGTERM) == 0


async def test_a_reload_says_what_it_cannot_change(
    served: Served, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    del served.environ["MINTOKEN_SERVER_ADMIN_LISTEN"], served.environ["MINTOKEN_STORAGE_DATA_DIR"]
    config = tmp_path / "config.toml"
    admin = f"127.0.0.1:{unused_tcp_port_factory()}"
    config.write_text(f'[server]\nadmin_listen = "{admin}"\n[storage]\ndata_dir = "data"\n')
    async with aiohttp.ClientSession() as session:
        workers = await serving(served, session)
        config.write_text(f'[server]\nadmin_listen = "{admin}"\n[storage]\ndata_dir = "other"\n')
        served.signal(signal.SIGHUP)
        await eventually(lambda: b"reload_failed" in served.log.read_bytes())
        assert b"storage.data_dir: a change needs a restart" in served.log.read_bytes()
        config.write_text('[server]\nnonsense = 1\n[storage]\ndata_dir = "data"\n')
        served.signal(signal.SIGHUP)
        await eventually(lambda: served.log.read_bytes().count(b"reload_failed") == 2)
        assert b"nonsense" in served.log.read_bytes()
        assert served.workers() == workers
        assert await asked(served, session) == 200
        assert not (tmp_path / "other").exists()
        assert await served.stop(signal.SIGTERM) == 0


async def test_it_is_ready_all_through_a_reload_and_one_that_dies_leaving_is_forgiven(
    served: Served, upstream: FakeUpstream
) -> None:
    served.key = await add_key(served.data_dir, concurrency=1)
    upstream.play(stream_head(), delta("a"), asyncio.Event())
    async with aiohttp.ClientSession(headers=served.headers) as session:
        before = await serving(served, session)
        url = f"{served.url}/v1/chat/completions"
        await session.post(url, json=CHAT | {"stream": True})
        served.signal(signal.SIGHUP)
        while b'"reloaded"' not in served.log.read_bytes():
            async with (
                aiohttp.ClientSession() as fresh,
                fresh.get(f"{served.url}/readyz") as answer,
            ):
                assert answer.status == 200
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        # The stream that it had is over, so the key may ask again.
        await eventually(lambda: not set(before) & set(served.workers()))
        assert await afresh(served) == 200
        assert await served.stop(signal.SIGTERM) == 0


async def test_a_first_start_that_fails_says_why_and_ends(served: Served) -> None:
    (served.data_dir / "workers" / "odd.lock").mkdir(parents=True)
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "mintoken", "serve"], env=served.environ,
        cwd=served.log.parent, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "odd.lock" in ran.stderr
    assert "Traceback" not in ran.stderr


async def test_the_limits_of_a_key_hold_across_workers(
    served: Served, upstream: FakeUpstream
) -> None:
    url = f"{served.url}/v1/chat/completions"

    async def statuses(key: str, count: int) -> Counter[int]:
        """Each on a connection of its own, so that all workers are asked."""
        headers = served.headers | {"Authorization": f"Bearer {key}"}
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        found: Counter[int] = Counter()
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

            async def ask() -> None:
                async with session.post(url, json=CHAT) as answer:
                    found[answer.status] += 1
                if found[429] == count - 3:
                    gate.set()

            await asyncio.gather(*(ask() for _ in range(count)))
        return found

    gate = asyncio.Event()
    gate.set()
    rate = await add_key(served.data_dir, rpm=20)
    width = await add_key(served.data_dir, concurrency=3)
    async with aiohttp.ClientSession() as session:
        await serving(served, session)
        assert await statuses(rate, 60) == {200: 20, 429: 40}
        gate.clear()
        upstream.default = [gate, json_reply(completion())]
        # Three wait for the provider, which answers once all the others were refused.
        assert await statuses(width, 20) == {200: 3, 429: 17}
        upstream.default = [json_reply(completion())]
        assert await statuses(width, 3) == {200: 3}
        assert await served.stop(signal.SIGTERM) == 0


async def test_a_revoked_key_is_refused_by_all_workers_within_a_second(served: Served) -> None:
    key = await add_key(served.data_dir, name="leaked")
    headers = served.headers | {"Authorization": f"Bearer {key}"}
    url = f"{served.url}/v1/chat/completions"

    async def statuses() -> set[int]:
        found = set()
        for _ in range(12):
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json=CHAT, headers=headers) as answer,
            ):
                found.add(answer.status)
        return found

    async with aiohttp.ClientSession() as session:
        await serving(served, session)
        assert await statuses() == {200}
        ran = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "mintoken", "keys", "revoke", "leaked"],
            env=served.environ, check=True, capture_output=True,
        )  # fmt: skip
        assert ran.stdout
        await asyncio.sleep(1)
        assert await statuses() == {401}
        assert await served.stop(signal.SIGTERM) == 0


async def test_workers_leave_when_their_parent_is_killed(served: Served) -> None:
    async with aiohttp.ClientSession() as session:
        workers = await serving(served, session)
        served.signal(signal.SIGKILL)
        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


async def test_a_hung_worker_is_killed_and_replaced(served: Served) -> None:
    served.environ["MINTOKEN_SERVER_WORKERS"] = "1"
    async with aiohttp.ClientSession() as session:
        [hung] = await serving(served, session)
        os.kill(hung, signal.SIGSTOP)
        await eventually(lambda: hung not in served.workers(), within=40)
        assert b"worker_hung" in served.log.read_bytes()
        assert await asked(served, session) == 200
        assert await served.stop(signal.SIGTERM) == 0


async def test_the_admin_listener_has_a_process_of_its_own_that_holds_up_no_chat(
    served: Served, unused_tcp_port_factory: Callable[[], int]
) -> None:
    admin = f"127.0.0.1:{unused_tcp_port_factory()}"
    served.environ["MINTOKEN_SERVER_ADMIN_LISTEN"] = admin
    served.key = await add_key(served.data_dir)
    async with aiohttp.ClientSession() as session:
        *public, own = await serving(served, session)
        assert len(public) == 2

        async def looked() -> int:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as fresh,
                fresh.get(f"http://{admin}/dashboard/sign-in") as page,
            ):
                return page.status

        assert await looked() == 200
        os.kill(own, signal.SIGSTOP)
        waiting = asyncio.create_task(looked())
        assert [await afresh(served) for _ in range(10)] == [200] * 10
        assert not waiting.done()
        os.kill(own, signal.SIGKILL)
        await eventually(lambda: own not in served.workers() and len(served.workers()) == 3)
        with suppress(aiohttp.ClientError):
            await waiting
        for pid in public:
            os.kill(pid, signal.SIGSTOP)
        assert await looked() == 200
        for pid in public:
            os.kill(pid, signal.SIGCONT)
        served.signal(signal.SIGHUP)
        await eventually(lambda: not {own, *public} & set(served.workers()), within=20)
        assert len(served.workers()) == 3
        assert await looked() == await afresh(served) == 200
        assert await served.stop(signal.SIGTERM) == 0
