"""A look at the serving processes from outside, as a plain user's other program would take it."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from conftest import CHAT, Served, add_key, eventually
from fake_upstream import FakeUpstream

NOBODY = 65534
PLAIN = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
"""Root without root's capabilities: as good as a plain user, but one who sees root's files."""
LOOK = """
import sys
for pid in sys.argv[1:]:
    for name in ("mem", "environ", "maps"):
        try:
            open(f"/proc/{pid}/{name}", "rb")
            print("let in", end=" ")
        except PermissionError:
            print("kept out", end=" ")
"""


@pytest.fixture
def as_user() -> list[str]:
    """What to put before a command so that it runs as a plain user; nothing if we are one."""
    if os.geteuid() != 0:
        return []
    tried = [*PLAIN, sys.executable, "-c", "import mintoken.cli"]
    reached = subprocess.run(tried, check=False, cwd="/", capture_output=True).returncode == 0
    return PLAIN if reached else POWERLESS


@pytest.fixture
async def users_server(
    as_user: list[str], upstream: FakeUpstream, unused_tcp_port: int
) -> AsyncIterator[Served]:
    """Two workers of a plain user, and a key whose limits they share."""
    with tempfile.TemporaryDirectory() as folder:
        server = Served(Path(folder) / "data", upstream.base_url, unused_tcp_port)
        server.environ["MINTOKEN_SERVER_WORKERS"] = "2"
        server.key = await add_key(server.data_dir, rpm=1000, concurrency=10)
        if as_user == PLAIN:
            for path in (Path(folder), *Path(folder).rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield server
        await server.end()


async def test_the_same_users_other_programs_are_kept_out_of_parent_and_workers(
    users_server: Served, as_user: list[str]
) -> None:
    async with aiohttp.ClientSession() as session:
        pids = await serving(users_server, session, as_user)
        looked = subprocess.run(
            [*as_user, sys.executable, "-c", LOOK, *map(str, pids)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert looked.stdout == "kept out " * 3 * len(pids)
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"Max core file size +0 +0 ", limits)
        assert await users_server.stop(signal.SIGTERM) == 0


async def test_a_plain_users_workers_serve_and_reload_all_the_same(
    users_server: Served, as_user: list[str]
) -> None:
    url = f"{users_server.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session:
        before = await serving(users_server, session, as_user)
        for reloads in range(1, 3):
            async with session.post(url, json=CHAT, headers=users_server.headers) as answer:
                assert answer.status == 200
            assert users_server.process is not None
            users_server.process.send_signal(signal.SIGHUP)
            await eventually(
                lambda n=reloads: users_server.log.read_bytes().count(b'"reloaded"') == n
            )
        assert not set(before[1:]) & set(users_server.workers()[-2:])
        assert await users_server.stop(signal.SIGTERM) == 0
    assert (b"runs_as_root" in users_server.log.read_bytes()) == (as_user == POWERLESS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as root")
async def test_root_is_told_that_a_user_of_its_own_is_better(served: Served) -> None:
    async with aiohttp.ClientSession() as session:
        await served.start(session)
    assert await served.stop(signal.SIGTERM) == 0
    assert b"runs_as_root" in served.log.read_bytes()


async def serving(served: Served, session: aiohttp.ClientSession, as_user: list[str]) -> list[int]:
    """Start it as that user; the parent and its workers once all of them serve."""
    await served.start(session, *as_user, sys.executable, "-m", "mintoken", "serve")
    await eventually(lambda: b'"listening"' in served.log.read_bytes())
    assert served.process is not None
    return [served.process.pid, *served.workers()]
