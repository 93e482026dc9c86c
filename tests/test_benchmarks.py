"""A short form of `make bench`: it runs, and finds what can be."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
async def test_a_quick_run_finds_figures_of_everyone(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "small-1"]
    before = (ROOT / "BENCHMARKS.md").read_bytes()
    running = await asyncio.create_subprocess_exec(
        *command, "--json", found, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, out.decode()
    assert b"small-1" in out
    rounds = json.loads(found.read_bytes())["rounds"]["small-1"]
    assert list(rounds) == ["direct", "bare", "bare on uvloop", "mintoken"]
    for [figures] in rounds.values():
        assert figures["requests"] > 10
        assert 0 < figures["p50_ms"] <= figures["p99_ms"] < 1000
        assert 0 < figures["cpu_ms"] < 100
        assert 0 <= figures["load_share"] < 1.5
    assert rounds["bare"][0]["p50_ms"] > rounds["direct"][0]["p50_ms"]
    assert (ROOT / "BENCHMARKS.md").read_bytes() == before
