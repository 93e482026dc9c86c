"""A fake provider, the real proxy before it, and the eye that looks for leaked secrets."""

import asyncio
import io
import json
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
from fake_upstream import FakeUpstream, fake_upstream
from openai import AsyncOpenAI
from store_cases import NOW, Open, add_account

from mintoken import keys, logs
from mintoken.clock import utc_ms
from mintoken.config import Config, load_config
from mintoken.models import Account, Intensity, Key
from mintoken.server import running
from mintoken.stores.base import Store
from mintoken.stores.sqlite import open_sqlite

hypothesis.settings.register_profile("fuzz", max_examples=20_000)

pytest_plugins = ("browser", "hostile.target")

PROVIDER_CANARY = "sk-canary-0f8d3b1c9a7e5d2f4b6a8c0e"
"""The provider key that every test sends and that may show up nowhere."""

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]}


async def eventually(check: Callable[[], Any], *, within: float = 5.0) -> Any:
    """What `check` answers once it is true; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {within} s: {check}"
        await asyncio.sleep(0.005)
    return found


def usage_rows(data_dir: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(data_dir / "mintoken.db")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM usage ORDER BY id")]


@dataclass
class Proxy:
    """A running proxy, a key of its account `default`, and what it wrote."""

    url: str
    admin_url: str
    key: str
    data_dir: Path
    log: io.StringIO
    session: aiohttp.ClientSession
    keys: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "X-Provider-Key": PROVIDER_CANARY}

    def client(self, **options: Any) -> AsyncOpenAI:
        """The official client, as an application sets it up."""
        options = {"max_retries": 0, "api_key": self.key} | options
        headers = {"X-Provider-Key": PROVIDER_CANARY} | options.pop("default_headers", {})
        return AsyncOpenAI(base_url=self.base_url, default_headers=headers, **options)

    async def post(self, body: object = CHAT, **headers: str) -> aiohttp.ClientResponse:
        """A chat request with good keys; the whole answer is read."""
        data = body if isinstance(body, bytes) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.session.post(
            f"{self.base_url}/chat/completions",
            data=data,
            headers={"Content-Type": "application/json"} | self.headers | named,
        )
        await answer.read()
        return answer

    def rows(self) -> list[dict[str, Any]]:
        return usage_rows(self.data_dir)

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def settled(self, count: int = 1) -> list[dict[str, Any]]:
        """The usage rows once there are so many, all of them settled."""

        def check() -> list[dict[str, Any]] | None:
            rows = self.rows()
            done = len(rows) >= count and all(row["outcome"] != "reserved" for row in rows)
            return rows if done else None

        rows = await eventually(check)
        assert len(rows) == count
        return rows

    def assert_no_secret(self) -> None:
        """No key that was sent is in a file, a log line or a traceback."""
        secrets = [PROVIDER_CANARY, self.key, *self.keys]
        places = {"log": self.log.getvalue().encode()}
        places |= {str(p): p.read_bytes() for p in self.data_dir.rglob("*") if p.is_file()}
        for place, content in places.items():
            for secret in secrets:
                assert secret.encode() not in content, f"a key leaked into {place}"
        assert b"Traceback" not in places["log"]


async def add_key(data_dir: Path, *, monthly_tokens: int = 0, **changes: Any) -> str:
    """Put a fresh key of the account `default` into the store; the key itself."""
    token = keys.mint_key()
    store = await open_sqlite(data_dir, clock_ms=utc_ms)
    try:
        directory = await store.directory()
        assert directory is not None
        account = directory.accounts[0]
        if monthly_tokens:
            account = Account(
                id=account.id,
                name=account.name,
                monthly_tokens=monthly_tokens,
                created_at=account.created_at,
            )
            await store.save(account)
        fields: dict[str, Any] = {
            "id": f"key_{token[-8:]}",
            "account_id": account.id,
            "name": f"test {token[-8:]}",
            "prefix": keys.prefix(token),
            "hash": keys.hash_key(keys.server_secret(data_dir), token),
            "intensity": Intensity.FULL,
            "created_at": utc_ms(),
        }
        await store.save(Key(**(fields | changes)))
    finally:
        await store.close()
    return token


def config_for(upstream: FakeUpstream, data_dir: Path, **options: object) -> Config:
    """The configuration of a proxy before the fake provider; options are `section_name=value`."""
    environ = {
        "MINTOKEN_UPSTREAM_BASE_URL": upstream.base_url,
        "MINTOKEN_SERVER_LISTEN": "127.0.0.1:0",
        "MINTOKEN_SERVER_ADMIN_LISTEN": "127.0.0.1:0",
        "MINTOKEN_STORAGE_DATA_DIR": str(data_dir),
    } | {f"MINTOKEN_{name.upper()}": str(value) for name, value in options.items()}
    return load_config(None, environ)


@pytest.fixture(scope="session", autouse=True)
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """When all tests have run, no file that they left behind holds a provider's key."""
    yield
    for file in tmp_path_factory.getbasetemp().rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert PROVIDER_CANARY.encode() not in file.read_bytes(), f"a key leaked into {file}"


StartProxy = Callable[..., Awaitable[Proxy]]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as provider:
        yield provider


@pytest.fixture
async def start_proxy(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[StartProxy]:
    """Starts proxies before the fake provider; options are `section_name=value`."""
    async with AsyncExitStack() as stack:
        started: list[Proxy] = []

        async def start(
            *,
            monthly_tokens: int = 0,
            key: dict[str, Any] | None = None,
            clock: Callable[[], int] = utc_ms,
            **options: object,
        ) -> Proxy:
            data_dir = tmp_path / f"data{len(started)}"
            config = config_for(upstream, data_dir, **options)
            log = io.StringIO()
            logs.configure(log)
            token = await add_key(data_dir, monthly_tokens=monthly_tokens, **(key or {}))
            listening = await stack.enter_async_context(running(config, clock=clock))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            proxy = Proxy(
                url=f"http://{listening.public}",
                admin_url=f"http://{listening.admin}",
                key=token,
                data_dir=data_dir,
                log=log,
                session=session,
            )
            started.append(proxy)
            return proxy

        yield start
        for proxy in started:
            proxy.assert_no_secret()
    for proxy in started:
        proxy.assert_no_secret()


@pytest.fixture
async def proxy(start_proxy: StartProxy) -> Proxy:
    return await start_proxy()


async def audit(data_dir: Path) -> list[str]:
    store = await open_sqlite(data_dir, clock_ms=utc_ms)
    try:
        return await store.audit()
    finally:
        await store.close()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Served:
    """`python -m mintoken serve` as its own process."""

    def __init__(self, data_dir: Path, base_url: str, port: int) -> None:
        self.data_dir = data_dir
        self.key = ""
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environ = os.environ | {
            "MINTOKEN_UPSTREAM_BASE_URL": base_url,
            "MINTOKEN_SERVER_LISTEN": f"127.0.0.1:{port}",
            "MINTOKEN_SERVER_ADMIN_LISTEN": f"127.0.0.1:{port}",
            "MINTOKEN_STORAGE_DATA_DIR": str(data_dir),
        }
        self.log = data_dir.parent / "serve.log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "X-Provider-Key": PROVIDER_CANARY}

    async def launch(self, *command: str, pass_fds: tuple[int, ...] = ()) -> None:
        """Run a command, by default `mintoken serve`, as the server's process."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(command or (sys.executable, "-m", "mintoken", "serve")),
                env=self.environ, stdout=log, stderr=log, cwd=self.log.parent,
                start_new_session=True, pass_fds=pass_fds,
            )  # fmt: skip

    async def start(self, session: aiohttp.ClientSession, *command: str) -> None:
        """The same, and wait until it answers."""
        await self.launch(*command)
        assert self.process is not None
        for _ in range(2000):
            assert self.process.returncode is None, self.log.read_text()
            try:
                async with session.get(f"{self.url}/healthz"):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)
        pytest.fail("the server did not start in 20 s")

    def workers(self) -> list[int]:
        """The process ids of the parent's children."""
        assert self.process is not None
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def rss_kb(self, measure: str = "VmRSS") -> int:
        """The memory of the only worker now; `VmHWM` is the most since `forget_peak`."""
        [pid] = self.workers()
        status = Path(f"/proc/{pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if measure in line)

    def forget_peak(self) -> int:
        """Begin to look for the most memory anew; what it is now, in KiB."""
        [pid] = self.workers()
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self.rss_kb()

    def signal(self, number: int) -> None:
        """Send the signal to the parent."""
        assert self.process is not None
        self.process.send_signal(number)

    async def stop(self, number: int) -> int:
        """Send the signal to the parent, SIGKILL to its workers too; the exit code."""
        assert self.process is not None
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def end(self) -> None:
        """Kill it if it still runs; nothing that it left behind holds a key or a traceback."""
        if self.process is not None and self.process.returncode is None:
            await self.stop(signal.SIGKILL)
        for file in [self.log, *self.data_dir.rglob("*")]:
            if file.is_file():
                content = file.read_bytes()
                assert PROVIDER_CANARY.encode() not in content
                assert self.key.encode() not in content
                assert b"Traceback" not in content


@pytest.fixture
async def served(
    upstream: FakeUpstream, tmp_path: Path, unused_tcp_port: int
) -> AsyncIterator[Served]:
    """A server process that a test starts, and that does not outlive it."""
    server = Served(tmp_path / "data", upstream.base_url, unused_tcp_port)
    server.key = await add_key(server.data_dir)
    yield server
    await server.end()


@pytest.fixture(params=[open_sqlite], ids=["sqlite"])
async def open_store(request, tmp_path) -> AsyncIterator[Open]:
    """Opens stores of one kind on one folder, and closes them after the test."""
    opened: list[Store] = []

    async def open_one() -> Store:
        opened.append(await request.param(tmp_path / "data", clock_ms=lambda: NOW))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Open) -> Store:
    store = await open_store()
    await add_account(store)
    return store


@pytest.fixture
def database(tmp_path) -> Path:
    return tmp_path / "data" / "mintoken.db"
