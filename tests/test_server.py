"""The process: its start, its limits, its memory, and a drain that loses nothing."""

import asyncio
import io
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import aiohttp
import pytest
from conftest import (
    CHAT,
    Served,
    StartProxy,
    audit,
    eventually,
)
from fake_upstream import DONE, END, STALL, FakeUpstream, delta, stream_head

from mintoken import logs
from mintoken.config import load_config
from mintoken.connection import SPARE_FILES, Crowd, crowd_of
from mintoken.errors import ConfigError

STREAMS = 500


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of all the sockets of a test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_sigterm_lets_streams_finish_and_settles_the_rest(
    served: Served, upstream: FakeUpstream
) -> None:
    served.environ["MINTOKEN_SERVER_DRAIN_TIMEOUT"] = "1"
    gate = asyncio.Event()
    upstream.play(stream_head(), delta("a"), gate, delta("b"), DONE, END)
    upstream.play(stream_head(), delta("a"), STALL)
    async with aiohttp.ClientSession(headers=served.headers) as session:
        await served.start(session)
        url, body = f"{served.url}/v1/chat/completions", CHAT | {"stream": True}
        short = await session.post(url, json=body)
        endless = await session.post(url, json=body)
        stopping = asyncio.create_task(served.stop(signal.SIGTERM))
        await eventually(lambda: b"draining" in served.log.read_bytes())
        gate.set()
        assert (await short.read()).endswith(b"data: [DONE]\n\n")
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises(aiohttp.ClientConnectorError):
                await fresh.get(f"{served.url}/healthz")
        last_words = await endless.content.readuntil(b'"server_shutting_down"')
        assert b"[DONE]" not in last_words
        with pytest.raises(aiohttp.ClientPayloadError):
            await endless.read()
        assert await stopping == 0
    with closing(sqlite3.connect(served.data_dir / "mintoken.db")) as database:
        outcomes = [row[0] for row in database.execute("SELECT outcome FROM usage ORDER BY id")]
    assert outcomes == ["ok", "shutdown"]
    assert await audit(served.data_dir) == []


async def test_readyz_says_so_at_once(served: Served, upstream: FakeUpstream) -> None:
    """On connections that were open before, and before they are asked to finish."""
    gate = asyncio.Event()
    upstream.play(stream_head(), delta("a"), gate, DONE, END)
    async with aiohttp.ClientSession(headers=served.headers) as session:
        await served.start(session)
        running = await session.post(
            f"{served.url}/v1/chat/completions", json=CHAT | {"stream": True}
        )
        opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(50)]
        for reader, writer in opened:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b'ready"}')).startswith(b"HTTP/1.1 200 OK")
        stopping = asyncio.create_task(served.stop(signal.SIGTERM))
        answer = b" 200 "
        while b" 200 " in answer:
            reader, writer = opened.pop()
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
            writer.close()
            await asyncio.sleep(0.01)
        assert b'"draining"' not in served.log.read_bytes()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Connection: close" in answer
        for _, writer in opened:
            writer.close()
        gate.set()
        assert (await running.read()).endswith(b"data: [DONE]\n\n")
        assert await stopping == 0


async def test_a_second_signal_cuts_the_drain_short(served: Served, upstream: FakeUpstream) -> None:
    upstream.play(stream_head(), delta("a"), STALL)
    async with aiohttp.ClientSession(headers=served.headers) as session:
        await served.start(session)
        url, body = f"{served.url}/v1/chat/completions", CHAT | {"stream": True}
        endless = await session.post(url, json=body)
        stopping = asyncio.create_task(served.stop(signal.SIGINT))
        await eventually(lambda: b'"draining"' in served.log.read_bytes())
        assert await served.stop(signal.SIGINT) == 0
        await stopping
        with pytest.raises(aiohttp.ClientPayloadError):
            await endless.read()
    assert b'"requests":1' in served.log.read_bytes().replace(b" ", b"")
    assert await audit(served.data_dir) == []


@pytest.mark.usefixtures("many_files")
async def test_500_open_streams_cost_less_than_100_kb_each(
    served: Served, upstream: FakeUpstream
) -> None:
    url, body = f"{served.url}/v1/chat/completions", CHAT | {"stream": True}
    connector = aiohttp.TCPConnector(limit=0)
    async with AsyncExitStack() as stack:
        session = aiohttp.ClientSession(headers=served.headers, connector=connector)
        await stack.enter_async_context(session)
        await served.start(session)
        upstream.default = [stream_head(), delta("warm"), DONE, END]
        for _ in range(50):
            async with session.post(url, json=body) as answer:
                await answer.read()
        before = served.rss_kb()
        upstream.default = [stream_head(), delta("Hello"), STALL]
        opened = await asyncio.gather(*(session.post(url, json=body) for _ in range(STREAMS)))
        for answer in opened:
            assert b"Hello" in await answer.content.readany()
        grown = served.rss_kb() - before
        for answer in opened:
            answer.close()
        assert await served.stop(signal.SIGTERM) == 0
    assert grown / STREAMS < 100, f"{grown / STREAMS:.0f} KB per stream"
    with closing(sqlite3.connect(served.data_dir / "mintoken.db")) as database:
        (left,) = database.execute("SELECT count(*) FROM usage WHERE outcome='client_closed'")
    assert left == (STREAMS,)
    assert await audit(served.data_dir) == []


@pytest.mark.parametrize(
    ("head", "code", "reason"),
    [
        ("GET /readyz HTTP/1.1\r\n", b"unavailable", b"draining"),
        ("POST /v1/chat/completions HTTP/1.1\r\n", b"server_shutting_down", b"again"),
    ],
)
async def test_a_request_that_has_begun_when_the_drain_does_is_told(
    served: Served,
    upstream: FakeUpstream,
    head: str,
    code: bytes,
    reason: bytes,
) -> None:
    gate = asyncio.Event()
    upstream.play(stream_head(), delta("a"), gate, DONE, END)
    async with aiohttp.ClientSession(headers=served.headers) as session:
        await served.start(session)
        url, body = f"{served.url}/v1/chat/completions", CHAT | {"stream": True}
        running = await session.post(url, json=body)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head.encode())
        async with session.get(f"{served.url}/healthz"):
            pass  # By now the other connection's bytes have been read too.
        stopping = asyncio.create_task(served.stop(signal.SIGTERM))
        await eventually(lambda: b"draining" in served.log.read_bytes())
        writer.write(b"Host: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert code in answer
        assert reason in answer
        assert b"Connection: close" in answer
        gate.set()
        await running.read()
        assert await stopping == 0


async def test_connections_beyond_the_cap_are_told_and_closed(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(server_max_connections=2)
    host, port = proxy.url.removeprefix("http://").split(":")
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    taken = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        taken.append(writer)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    refusal = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in refusal
    assert refusal.count(b"HTTP/1.1") == 1
    assert b'"code":"overloaded"' in refusal
    for writer in taken:
        writer.close()
    # Until the server has seen them leave, it may refuse once more.
    while (await _status(host, port, request)) != b"HTTP/1.1 200 OK\r\n":
        pass


async def _status(host: str, port: str, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    line = await reader.readline()
    writer.close()
    return line


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda files: resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_connection_needs_two_open_files(limit_files: Callable[[int], None]) -> None:
    limit_files(SPARE_FILES + 200)
    assert crowd_of(load_config(None, {})).limit == 100
    assert crowd_of(load_config(None, {"MINTOKEN_SERVER_MAX_CONNECTIONS": "50"})).limit == 50
    limit_files(SPARE_FILES)
    config = load_config(None, {})
    with pytest.raises(ConfigError, match="ulimit -n"):
        crowd_of(config)


def test_a_crowd_is_logged_when_it_comes_and_when_it_goes() -> None:
    log = io.StringIO()
    logs.configure(log)
    crowd = Crowd(10)
    assert [crowd.admits(n) for n in (9, 10, 11, 12, 10, 11, 9, 8)] == [
        True, True, False, False, True, False, True, True,
    ]  # fmt: skip
    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert events == ["too_many_connections", "connections_admitted"]


def test_without_the_parser_in_c_it_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mintoken", "serve"],
        env=os.environ
        | {
            "AIOHTTP_NO_EXTENSIONS": "1",
            "MINTOKEN_SERVER_LISTEN": "127.0.0.1:0",
            "MINTOKEN_SERVER_ADMIN_LISTEN": "127.0.0.1:0",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 78
    assert "parser in C" in done.stderr
