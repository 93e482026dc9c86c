"""The server under attack: one process for the whole table, looked at after every row."""

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from conftest import PROVIDER_CANARY, Served, add_key, audit, eventually, free_port, usage_rows
from fake_upstream import FakeUpstream, fake_upstream

BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Say hello."}]}'
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: mintoken\r\n"
KEYS = b"Authorization: Bearer @KEY@\r\nX-Provider-Key: @PROVIDER@\r\n"
JSON = b"Content-Type: application/json\r\n"
OK = START + KEYS + JSON
"""A valid request line and headers; @KEY@ and @PROVIDER@ become the keys when it is sent."""
CLOSE = b"Connection: close\r\n"
SECONDS = {"HEADER_TIMEOUT": 2, "BODY_TIMEOUT": 3, "WRITE_TIMEOUT": 2}
LAG_BAR_MS = 50
SLOW_CALLBACK_MS = 2
WORK_BAR_MS = 5 * SLOW_CALLBACK_MS
"""On a machine that others use too, the same work has taken three times as long."""
PROBE_EVERY_MS = 5

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*")


def with_length(body: bytes) -> bytes:
    """The end of a head, and the body that it announces."""
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@dataclass(frozen=True)
class Answer:
    """One HTTP response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error that Mintoken made, after its shape was checked."""
        if "x-mintoken-error" not in self.headers:
            return ""
        error = orjson.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == self.headers["x-mintoken-error"]
        return str(error["code"])


def answers(data: bytes) -> list[Answer]:
    """All responses in these bytes; fails if there is a byte that belongs to none."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"a head without an end: {head[:200]!r}"
        first, *lines = head.split(b"\r\n")
        status = _STATUS_LINE.fullmatch(first)
        assert status, f"no status line: {first[:200]!r}"
        headers = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(": ")
            assert colon, f"no header: {line!r}"
            headers[name.lower()] = value
        if status[1] == b"100":
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body, data = _chunks(data)
        else:
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            assert len(body) == length
        found.append(Answer(int(status[1]), headers, body))
    return found


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data


@dataclass
class Target:
    """A server process with short deadlines, its provider, and a prober of its event loop."""

    served: Served
    upstream: FakeUpstream
    probe: "Probe"
    worker: int
    """Its process id."""
    address: str = "127.0.0.1"
    """Where the requests come from: each test has its own, and so its own limit of failures."""

    def fill(self, data: bytes) -> bytes:
        """The bytes with the real keys in them."""
        keys = {b"@KEY@": self.served.key.encode(), b"@PROVIDER@": PROVIDER_CANARY.encode()}
        for name, key in keys.items():
            data = data.replace(name, key)
        return data

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.served.port, limit=2**26, local_addr=(self.address, 0)
        )

    def next_address(self) -> None:
        """Ask as somebody else from now on."""
        self.address = str(ip_address(self.address) + 1)

    async def exchange(self, *pieces: bytes, within: float = 10.0, gap: float = 0.0) -> bytes:
        """What comes back for these pieces until the server closes the connection."""
        reader, writer = await self.open()

        async def write() -> None:
            for piece in pieces:
                writer.write(self.fill(piece))
                await writer.drain()
                await asyncio.sleep(gap)

        writing = asyncio.create_task(write())
        try:
            got = await asyncio.wait_for(read_all(reader), within)
            assert PROVIDER_CANARY.encode() not in got
            assert self.served.key.encode() not in got
            return got
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            writer.transport.abort()

    async def ask(self, *pieces: bytes, within: float = 10.0, gap: float = 0.0) -> Answer:
        """The only answer to these pieces, after which the server closed the connection."""
        got = answers(await self.exchange(*pieces, within=within, gap=gap))
        assert len(got) == 1, got
        return got[0]

    async def chat(self, body: bytes, *headers: bytes) -> Answer:
        """The answer to a well-formed request with this body."""
        return await self.ask(OK + CLOSE + b"".join(headers) + with_length(body))

    def rows(self) -> list[dict[str, Any]]:
        """All usage rows, the oldest first."""
        return usage_rows(self.served.data_dir)

    async def last_row(self) -> dict[str, Any]:
        """The newest usage row, once all are settled."""

        def settled() -> list[dict[str, Any]] | None:
            rows = self.rows()
            return None if any(row["outcome"] == "reserved" for row in rows) else rows

        return (await eventually(settled))[-1]

    async def assert_unharmed(self) -> None:
        """The assertions that hold after every row of the table."""
        self.upstream.scripts.clear()
        assert (await self.chat(BODY)).status == 200
        assert (await self.last_row())["outcome"] == "ok"
        assert await audit(self.served.data_dir) == []
        log = self.served.log.read_bytes()
        for word in (
            b"Traceback",
            b"Warning",
            b"internal_error",
            b"connection_error",
            b"task_died",
        ):
            assert word not in log
        for secret in (PROVIDER_CANARY, self.served.key):
            assert secret.encode() not in log
        assert self.served.workers() == [self.worker], "the worker died and was replaced"


async def read_all(reader: asyncio.StreamReader, *, quiet_s: float | None = None) -> bytes:
    """All bytes until the other side closes, or says nothing for so long."""
    got = bytearray()
    try:
        while data := await asyncio.wait_for(reader.read(2**16), quiet_s):
            got += data
    except (ConnectionResetError, TimeoutError):
        pass  # If it closed with bytes of ours unread, what it had said before has arrived.
    return bytes(got)


class Probe:
    """Asks the server's event loop every 5 ms how long it takes, from a process of its own."""

    def __init__(self, port: int, seen: Path) -> None:
        self._port = port
        self._seen = seen

    @asynccontextmanager
    async def probing(self) -> AsyncIterator["Probe"]:
        """It probes while this lasts."""
        with self._seen.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, Path(__file__).with_name("probe.py"), str(self._port),
                stdin=asyncio.subprocess.PIPE, stdout=output,
            )  # fmt: skip
        try:
            yield self
        finally:
            await process.communicate(b"")
        assert process.returncode == 0

    def lags(self) -> list[tuple[float, float]]:
        """When each question was asked (monotonic seconds), and the milliseconds that it took."""
        *lines, _ = self._seen.read_text().split("\n")
        return [(float(asked), float(ms)) for asked, ms in map(str.split, lines)]

    async def worst_ms(self, work: Callable[[], Awaitable[None]]) -> float:
        """The longest answer while this work was done."""
        begun = time.monotonic()
        await work()
        done = time.monotonic()
        await eventually(lambda: self.lags()[-1][0] > done)
        return max(ms for asked, ms in self.lags() if begun <= asked + ms / 1000 and asked <= done)

    def p99_ms(self) -> float:
        """Of all moments: N ms of waiting are that many for whoever would have asked meanwhile."""
        lags = sorted(
            ms - waited for _, ms in self.lags() for waited in range(0, int(ms) + 1, PROBE_EVERY_MS)
        )
        return lags[len(lags) * 99 // 100]


def held_by_work(log: Path) -> list[dict[str, Any]]:
    """The callbacks that held the event loop with work of their own, once the server was started.

    The others waited for a thread that holds the GIL: 8 MiB of `1,` are one call of msgspec, and
    22 ms. How long that may be is LAG_BAR_MS. A host that serves others too takes CPU time that is
    then counted as ours (25 ms once, of 15 that the callback took), but not twice at one place.
    """
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines() if b"slow_call" in line]
    slow = [line for line in lines if line["callback"] != "_serve"]
    held = [line for line in slow if line["cpu_ms"] > WORK_BAR_MS]
    places = Counter((line["callback"], line["start"], line["end"]) for line in held)
    return [line for line in held if places[line["callback"], line["start"], line["end"]] > 1]


@asynccontextmanager
async def attacked(folder: Path, *flags: str, slow_callback_ms: float = 0) -> AsyncIterator[Target]:
    """A server in a Python with these flags; at the end, its event loop has not lagged behind."""
    async with fake_upstream() as provider, aiohttp.ClientSession() as session:
        served = Served(folder / "data", provider.base_url, free_port())
        served.key = await add_key(served.data_dir)
        served.environ |= {f"MINTOKEN_SERVER_{name}": str(s) for name, s in SECONDS.items()}
        served.environ |= {
            "MINTOKEN_UPSTREAM_FIRST_BYTE_TIMEOUT": "2",
            "MINTOKEN_UPSTREAM_IDLE_TIMEOUT": "1",
            "MINTOKEN_SERVER_SLOW_CALLBACK_MS": str(slow_callback_ms),
        }
        try:
            await served.start(session, sys.executable, *flags, "-m", "mintoken", "serve")
            async with Probe(served.port, folder / "lags").probing() as probe:
                yield Target(served, provider, probe, served.workers()[0])
            assert probe.p99_ms() < LAG_BAR_MS
            assert held_by_work(served.log) == []
        finally:
            await served.end()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tables_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """What is wrong but goes well shows in this one's log, and what tracebacks quote too."""
    async with attacked(tmp_path_factory.mktemp("hostile"), "-X", "dev") as target:
        yield target


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def plain_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """Its event loop is watched; Python's development mode would slow down what is measured."""
    folder = tmp_path_factory.mktemp("plain")
    async with attacked(folder, slow_callback_ms=SLOW_CALLBACK_MS) as target:
        yield target


@pytest_asyncio.fixture(loop_scope="session")
async def target(tables_server: Target) -> AsyncIterator[Target]:
    """The server under attack; what holds after every row is asserted when the test ends."""
    tables_server.next_address()
    yield tables_server
    await tables_server.assert_unharmed()


@pytest_asyncio.fixture(loop_scope="session")
async def plain_target(plain_server: Target) -> AsyncIterator[Target]:
    """The same as it is run for real, for what has to be fast."""
    yield plain_server
    await plain_server.assert_unharmed()
