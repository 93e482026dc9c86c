"""Processes that are measured: started, asked until they answer, looked at in /proc, ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ENVIRON = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
} | {"PYTHONPATH": str(ROOT)}
"""What is beside this folder is measured, whatever is installed; and compiled once, as installed
programs are: where this is set, compiling ours at each start takes a sixth of it.
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and its descendants."""

    pid: int

    def pids(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def cpu_s(self) -> float:
        """User and system time since their start; exact to 10 ms."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / TICKS_PER_S

    def rss_mb(self) -> float:
        """Of the largest process."""
        return max(map(_rss_mb, self.pids()))

    def all_rss_mb(self) -> float:
        """Of all processes: too much by what they share, but right where it grows."""
        return sum(map(_rss_mb, self.pids()))

    def pss_mb(self) -> float | None:
        """Of all processes, what they share counted once; None where only root may know."""
        try:
            return sum(_kb(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in self.pids()) / 1024
        except PermissionError:
            return None


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Let all threads of these processes run on these cores only, and what they start as well."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def _cpu_ticks(pid: int) -> int:
    # The second field is the program's name in brackets, which may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _rss_mb(pid: int) -> float:
    return _kb(f"/proc/{pid}/status", "VmRSS:") / 1024


def _kb(file: str, name: str) -> int:
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def python(*arguments: str) -> list[str]:
    """The command that runs a module of ours."""
    return [sys.executable, "-m", *arguments]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running(
    command: list[str], *, port: int, probe: bytes, log: Path, environ: Mapping[str, str] = ENVIRON
) -> Iterator[tuple[Tree, float]]:
    """A server process, once it answers the probe with 200, and the seconds that it took.

    Raises RuntimeError with what it logged if it does not start, or ends before it is told to.
    """
    with log.open("ab") as out:
        begun = time.monotonic()
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environ, cwd=log.parent
        )
    try:
        while not _answers(port, probe):
            if process.poll() is not None or time.monotonic() > begun + 30:
                raise RuntimeError(f"{command} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.002)
        yield Tree(process.pid), time.monotonic() - begun
    finally:
        if process.poll() is not None:
            code, said = process.returncode, log.read_text()[-4000:]
            raise RuntimeError(f"{command} ended by itself with {code}:\n{said}")
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, probe: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(probe)
            return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
