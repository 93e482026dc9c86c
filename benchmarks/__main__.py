"""`make bench`: measure, print a table, write JSON; a full run rewrites BENCHMARKS.md too."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import Progress, TaskID

from benchmarks import report, scenarios
from benchmarks.load import LoadError, missing_wrk
from benchmarks.processes import ROOT
from benchmarks.scenarios import Effort, Scenario
from mintoken.process import raise_file_limit


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [scenario.name for scenario in scenarios.ALL]
    parser.add_argument("--only", action="append", choices=names, help="may be given repeatedly")
    parser.add_argument("--quick", action="store_true", help="short rounds; the figures are rough")
    parser.add_argument("--rounds", type=int, help="of each scenario")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "last.json", metavar="PATH",
        help="where every round's figures go (default: benchmarks/last.json)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def run(chosen: Sequence[Scenario], effort: Effort, folder: Path) -> report.Found:
    """What each scenario found. Raises LoadError, RuntimeError."""
    found = {}
    with Progress(console=Console(stderr=True)) as progress:
        for scenario in chosen:
            task = progress.add_task(scenario.name, total=1.0)
            there = folder / scenario.name
            there.mkdir()
            told = partial(_tell, progress, task)
            found[scenario.name] = scenario.measure(effort, there, told)
            told(1.0)
    return found


def _tell(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def main(arguments: Sequence[str]) -> int:
    asked = options(arguments)
    if missing_wrk():
        print("The load is wrk's. Run this first: sudo apt-get install wrk", file=sys.stderr)
        return 1
    raise_file_limit()
    begun = time.monotonic()
    chosen = [s for s in scenarios.ALL if not asked.only or s.name in asked.only]
    effort = scenarios.QUICK if asked.quick else scenarios.FULL
    if asked.rounds:
        effort = replace(effort, rounds=asked.rounds)
    # Beside the code, because /tmp often is in memory, where fsync costs nothing.
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as folder:
        where = report.machine(Path(folder), effort, arguments)
        try:
            found = run(chosen, effort, Path(folder))
        except (LoadError, RuntimeError) as error:
            print(f"The run is void. {error}", file=sys.stderr)
            return 1
    document = {"where": where, "notes": report.notes(found, where), "rounds": found}
    asked.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(report.table(f"Benchmarks, in {time.monotonic() - begun:.0f} s", chosen, found))
    for note in report.notes(found, where):
        console.print(note)
    if chosen == list(scenarios.ALL) and effort == scenarios.FULL:
        (ROOT / "BENCHMARKS.md").write_text(report.markdown(chosen, found, where))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
