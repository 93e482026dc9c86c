"""`make chaos`: every experiment at its full length, and a table of what was found."""

import asyncio
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from chaos import experiments
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ALL: list[experiments.Experiment] = [
    partial(experiments.kills, times=60),
    partial(experiments.disconnects, times=300),
    partial(experiments.full_disk, times=5),
    partial(experiments.reloads, times=10),
    partial(experiments.overshoot, enforcement="strict", limit=50_000),
    partial(experiments.overshoot, enforcement="soft", limit=50_000),
    partial(experiments.memory, times=100_000),
    partial(experiments.memory, times=10_000, stream=True),
]
LONG: list[experiments.Experiment] = [
    partial(experiments.memory, times=1_000_000),
    partial(experiments.memory, times=100_000, stream=True),
]


async def run(chosen: list[experiments.Experiment], progress: Progress) -> list[experiments.Result]:
    results = []
    for experiment in chosen:
        assert isinstance(experiment, partial)
        task = progress.add_task(experiment.func.__name__.replace("_", " "), total=1.0)
        with tempfile.TemporaryDirectory(prefix="mintoken-chaos-") as folder:
            results.append(
                await experiment(
                    Path(folder), lambda share, task=task: progress.update(task, completed=share)
                )
            )
        progress.update(task, completed=1.0)
    return results


def main() -> int:
    begun = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 160)
    with Progress(console=Console(stderr=True)) as progress:
        results = asyncio.run(run(LONG if "--long" in sys.argv else ALL, progress))
    table = Table(title=f"Chaos, in {time.monotonic() - begun:.0f} s")
    for name in ("What happened", "Found", "Bar", ""):
        table.add_column(name, overflow="fold")
    for result in results:
        table.add_row(result.what, result.found, result.bar, "good" if result.good else "BAD")
    console.print(table)
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
