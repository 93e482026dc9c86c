"""How a run is told: a table for people, JSON for programs, BENCHMARKS.md for the repository."""

import os
import platform
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.table import Table

from benchmarks.figures import Rounds, limits
from benchmarks.processes import ROOT
from benchmarks.scenarios import Effort, Scenario
from benchmarks.targets import NAMES

HEADINGS = ("", *NAMES, "mintoken against bare", "bar", "met")
PACKAGES = ("aiohttp", "aiosqlite", "google-re2", "msgspec", "orjson", "tiktoken", "uvloop")

Found = Mapping[str, Rounds]
"""What was found, by scenario."""


def lines(scenario: Scenario, rounds: Rounds) -> list[list[str]]:
    return [figure.line(rounds) for figure in scenario.figures]


def notes(found: Found, where: Mapping[str, str]) -> list[str]:
    """What keeps figures from meaning what they say."""
    told = [note for name, rounds in found.items() for note in limits(name, rounds)]
    if where["file system"].startswith(("tmpfs", "ramfs")):
        told.append("The data directory is in memory: fsync costs nothing here.")
    return told


def table(title: str, scenarios: Sequence[Scenario], found: Found) -> Table:
    shown = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, heading in enumerate(HEADINGS):
        right = 0 < number <= len(NAMES)
        shown.add_column(heading, justify="right" if right else "left", overflow="fold")
    for scenario in scenarios:
        shown.add_row(f"[bold]{scenario.name}[/]")
        for line in lines(scenario, found[scenario.name]):
            shown.add_row(*line)
        shown.add_section()
    return shown


def markdown(scenarios: Sequence[Scenario], found: Found, where: Mapping[str, str]) -> str:
    """BENCHMARKS.md."""
    return "\n".join(_markdown(scenarios, found, where)) + "\n"


def _markdown(
    scenarios: Sequence[Scenario], found: Found, where: Mapping[str, str]
) -> Iterator[str]:
    yield INTRODUCTION
    for scenario in scenarios:
        yield f"\n## {scenario.name}: {scenario.what}\n"
        yield _row(HEADINGS)
        yield _row(["---", *["---:"] * len(NAMES), "---", "---", "---"])
        yield from map(_row, lines(scenario, found[scenario.name]))
    if told := notes(found, where):
        yield "\n## Notes\n"
        yield from (f"- {note}" for note in told)
    yield "\n## Where\n"
    yield _row(["", ""])
    yield _row(["---", "---"])
    yield from (_row([name, text]) for name, text in where.items())


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine(data: Path, effort: Effort, arguments: Sequence[str]) -> dict[str, str]:
    """Where and how it was measured; `data` is where the database was."""
    return {
        "command": f'make bench ARGS="{shlex.join(arguments)}"' if arguments else "make bench",
        "effort": f"{effort.rounds} rounds of {effort.seconds} s, "
        f"{effort.streams} paced streams of {effort.paced_seconds} s",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "load before it": f"{os.getloadavg()[0]:.1f} processes, the average of a minute",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "file system": _file_system(data),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The kind of the mount that holds the folder: the one with the longest path."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    device, _, kind, *_ = max(holding, key=lambda mount: len(mount[1]))
    return f"{kind} on {device}"


INTRODUCTION = """\
# Benchmarks

Written by `make bench`; do not edit. Mintoken with everything on (authentication, quota, injection
at level `full`, counting, a ledger with fsync; one worker) stands beside two relays that do nothing
but relay ([`benchmarks/bare.py`](benchmarks/bare.py)) and beside the provider itself, a script.

Each figure is the median of interleaved rounds; load, provider and proxy share the machine. CPU is
that of the proxy's whole process tree, and `direct` shows the script's own. What is "against bare"
is against plain asyncio, with the least and the most of a round in brackets. "Added" is what comes
on top of the provider's own time. A chunk's lateness is the time from when the provider wrote it to
when the caller had it. Latency at several connections is that under full load."""
