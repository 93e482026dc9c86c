"""A short form of `make bench`: it runs, and finds what can be."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.detection import PROMPTS
from benchmarks.usage_rows import make_rows
from mintoken.clock import utc_ms
from mintoken.stores.sqlite import open_sqlite

ROOT = Path(__file__).parent.parent
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


async def quick_run(scenario: str, folder: Path) -> tuple[str, dict[str, list[dict[str, float]]]]:
    """What is printed, and what each round found, by target."""
    found = folder / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", scenario]
    before = (ROOT / "BENCHMARKS.md").read_bytes()
    running = await asyncio.create_subprocess_exec(
        *command, "--json", found, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, out.decode()
    assert (ROOT / "BENCHMARKS.md").read_bytes() == before
    return out.decode(), json.loads(found.read_bytes())["rounds"][scenario]


@needs_wrk
async def test_a_quick_run_finds_figures_of_everyone(tmp_path: Path) -> None:
    out, rounds = await quick_run("small-1", tmp_path)
    assert "small-1" in out
    assert list(rounds) == ["direct", "bare", "bare on uvloop", "mintoken"]
    for [figures] in rounds.values():
        assert figures["requests"] > 10
        assert 0 < figures["p50_ms"] <= figures["p99_ms"] < 1000
        assert 0 < figures["cpu_ms"] < 100
        assert 0 <= figures["load_share"] < 1.5
    assert rounds["bare"][0]["p50_ms"] > rounds["direct"][0]["p50_ms"]


@needs_wrk
async def test_detection_is_measured_by_the_prompts_size_and_has_a_bar(tmp_path: Path) -> None:
    out, rounds = await quick_run("detection", tmp_path)
    [line] = [line for line in out.splitlines() if line.strip().startswith("CPU µs, 4 KB  ")]
    assert "≤ 100 µs" in line
    assert list(rounds) == ["mintoken"]
    [figures] = rounds["mintoken"]
    assert figures.keys() == PROMPTS.keys()
    # Ten times the bar: other programs may run beside the tests.
    assert 0 < figures["4_kb"] < 1000
    # Linear: what is looked at of a text ends at 8 KB, so that more of it adds little.
    assert figures["64_kb"] < 16 * figures["4_kb"]


async def test_the_dashboards_questions_are_measured_on_rows_whose_sums_are_right(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "benchmarks.analytics", "--rows", "3000", "--rounds", "1"]
    running = await asyncio.create_subprocess_exec(
        *command,
        "--seconds",
        "0.5",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(running.communicate(), 60)
    assert b"requests, an unknown model" in out
    assert b"commits while two ask without a pause" in out
    assert b"/dashboard/savings" in out, out.decode()
    assert b"chats while 2 look at pages" in out
    assert b"every question and page under 200 ms: " in out
    make_rows(tmp_path, rows=3000, now_ms=utc_ms())
    store = await open_sqlite(tmp_path, clock_ms=utc_ms)
    try:
        assert await store.audit() == []
    finally:
        await store.close()
