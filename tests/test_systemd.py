"""The server as systemd's service: it is given its sockets, restarted, and listened to."""

import asyncio
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from conftest import CHAT, Served, audit, eventually
from fake_upstream import FakeUpstream, completion, json_reply

# What systemd does: the sockets from descriptor 3 on, and the pid of who shall take them.
STARTER = """
import fcntl, os, sys
names, *fds = sys.argv[1:]
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds]
for place, fd in enumerate(fds, 3):
    os.dup2(fd, place)
given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
os.execve(sys.executable, [sys.executable, "-m", "mintoken", "serve"], os.environ | given)
"""
UNIT = "mintoken.socket"


class Systemd:
    """Holds the sockets, which outlive the server."""

    def __init__(self, served: Served, sockets: list[socket.socket]) -> None:
        self.served = served
        self.sockets = sockets

    async def start(self, *sockets: socket.socket, names: str = f"{UNIT}:{UNIT}") -> None:
        """Start the service with these sockets, by default the public one and the admin's."""
        fds = tuple(sock.fileno() for sock in sockets or self.sockets)
        await self.served.launch(sys.executable, "-c", STARTER, names, *map(str, fds), pass_fds=fds)


@pytest.fixture
def systemd(served: Served) -> Iterator[Systemd]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
            for _ in range(2)
        ]
        served.port = sockets[0].getsockname()[1]
        served.url = f"http://127.0.0.1:{served.port}"
        yield Systemd(served, sockets)


async def ask(served: Served, session: aiohttp.ClientSession) -> int:
    url = f"{served.url}/v1/chat/completions"
    async with session.post(url, json=CHAT, headers=served.headers) as answer:
        await answer.read()
        return answer.status


async def test_it_serves_on_the_given_sockets(systemd: Systemd, served: Served) -> None:
    await systemd.start()
    async with aiohttp.ClientSession() as session:
        assert await ask(served, session) == 200
        admin = systemd.sockets[1].getsockname()[1]
        async with session.get(f"http://127.0.0.1:{admin}/healthz") as answer:
            assert answer.status == 200
    assert await served.stop(signal.SIGTERM) == 0


async def test_it_tells_its_states(systemd: Systemd, served: Served, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.setblocking(False)
        told.bind(str(tmp_path / "notify"))
        served.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        await systemd.start()
        for state in (b"READY=1", b"WATCHDOG=1"):
            await eventually(lambda state=state: heard(told, state), within=20)
        assert served.process is not None
        # A reload that is done, and one that cannot be.
        for begun in (b"RELOADING=1", b"RELOADING=1"):
            served.process.send_signal(signal.SIGHUP)
            for state in (begun, b"READY=1"):
                await eventually(lambda state=state: heard(told, state), within=20)
            (tmp_path / "config.toml").write_text("nonsense")
        assert await served.stop(signal.SIGTERM) == 0
        assert heard(told, b"STOPPING=1")


def heard(told: socket.socket, wanted: bytes) -> bool:
    try:
        while not told.recv(100).startswith(wanted):
            pass
    except BlockingIOError:
        return False
    return True


async def test_who_connects_while_nothing_runs_is_answered_by_the_next_one(
    systemd: Systemd, served: Served
) -> None:
    await systemd.start()
    async with aiohttp.ClientSession() as session:
        assert await ask(served, session) == 200
    assert await served.stop(signal.SIGTERM) == 0
    # Connected, and all of the request sent, while no process is there.
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await systemd.start()
    assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    assert await served.stop(signal.SIGTERM) == 0


async def test_restarts_under_load_refuse_and_cut_no_request(
    systemd: Systemd, served: Served, upstream: FakeUpstream
) -> None:
    upstream.default = [json_reply(completion())]
    served.environ["MINTOKEN_SERVER_WORKERS"] = "2"
    answers: Counter[int] = Counter()
    done = asyncio.Event()

    async def caller(*, fresh: bool) -> None:
        # One connection each: one that lies idle in a pool may be closed just when it is wanted.
        connector = aiohttp.TCPConnector(force_close=fresh, limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not done.is_set():
                answers[await ask(served, session)] += 1

    async def more_answers() -> None:
        before = answers[200]
        await eventually(lambda: answers[200] > before + 50, within=20)

    await systemd.start()
    callers = [asyncio.create_task(caller(fresh=number % 2 == 0)) for number in range(12)]
    await more_answers()
    for _ in range(3):
        assert await served.stop(signal.SIGTERM) == 0
        await systemd.start()
        await more_answers()
    done.set()
    await asyncio.gather(*callers)
    assert await served.stop(signal.SIGTERM) == 0
    assert set(answers) == {200}
    assert await audit(served.data_dir) == []


async def test_names_part_the_sockets_of_two_units(systemd: Systemd, served: Served) -> None:
    public, admin = systemd.sockets
    await systemd.start(admin, public, names="admin:public")
    async with aiohttp.ClientSession() as session:
        assert await ask(served, session) == 200
    told = f'"public":"127.0.0.1:{served.port}"'
    await eventually(lambda: told in served.log.read_text().replace(" ", ""))
    assert await served.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("count", "names", "told"),
    [
        (1, UNIT, "There are 1."),
        (3, f"{UNIT}:{UNIT}:{UNIT}", "There are 3."),
        (2, "one.socket:other.socket", "They are named one.socket and other.socket."),
    ],
)
async def test_sockets_that_cannot_be_told_apart_are_refused(
    systemd: Systemd, served: Served, count: int, names: str, told: str
) -> None:
    sockets = (systemd.sockets * 2)[:count]
    await systemd.start(*sockets, names=names)
    assert served.process is not None
    assert await asyncio.wait_for(served.process.wait(), 20) == 78
    complaint = served.log.read_text()
    assert "ListenStream=" in complaint
    assert told in complaint


@pytest.mark.parametrize(
    ("family", "kind"), [(socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)]
)
async def test_what_is_no_tcp_listener_is_refused(
    systemd: Systemd, served: Served, family: int, kind: int
) -> None:
    with socket.socket(family, kind) as wrong:
        await systemd.start(systemd.sockets[0], wrong)
        assert served.process is not None
        assert await asyncio.wait_for(served.process.wait(), 20) == 78
    assert "Descriptor 4 does not listen on a TCP address." in served.log.read_text()


async def test_a_systemd_that_does_not_hear_harms_nobody(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    served.environ["NOTIFY_SOCKET"] = str(path)
    async with aiohttp.ClientSession() as session:
        await served.start(session)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
            ears.bind(str(path))
            ears.setblocking(False)
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ears, 100), 5)
        # Its end of the socket is gone now, and the parent goes on telling it every second.
        await asyncio.sleep(1.5)
        async with session.get(f"{served.url}/healthz") as answer:
            assert answer.status == 200
        assert await served.stop(signal.SIGTERM) == 0
