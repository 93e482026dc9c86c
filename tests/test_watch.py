"""The watch on the event loop: what holds it is named, and nothing else is said."""

import asyncio
import inspect
import io
import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest
import uvloop
from conftest import Served

from mintoken import logs, relay
from mintoken.models import Outcome
from mintoken.watch import watching
from mintoken.worker import runner_for

HELD_MS = 100
LIMIT_MS = 50
"""Far from what the noise of a machine takes, and from the 2 ms that are really asked for."""


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    logs.configure()


def reports(log: io.StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "slow_callback"]


def burn(_secret: object = None) -> None:
    done = time.thread_time() + HELD_MS / 1000
    while time.thread_time() < done:
        pass


def block(_secret: object = None) -> None:
    time.sleep(HELD_MS / 1000)


def nothing(_secret: object = None) -> None:
    pass


def run(*callbacks: Any) -> None:
    """Run them on a watched loop, one after the other."""

    async def main() -> None:
        for callback in callbacks:
            asyncio.get_running_loop().call_soon(callback, "sk-secret")
        await asyncio.sleep(0)

    with watching(LIMIT_MS), asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("busy", [burn, block])
def test_a_callback_that_works_or_blocks_is_reported_by_name(busy: Any, log: io.StringIO) -> None:
    run(nothing, busy, partial(busy), nothing)
    assert [report["callback"] for report in reports(log)] == [busy.__name__] * 2
    for report in reports(log):
        assert report["ms"] >= HELD_MS * 0.9
        assert (report["cpu_ms"] >= LIMIT_MS) == (busy is burn)
    assert "sk-secret" not in log.getvalue()


def test_the_step_of_a_task_is_named_by_its_coroutine_and_our_lines(log: io.StringIO) -> None:
    """From the line of ours where it stood to the one where it stands."""

    class Provider:
        steps = iter((nothing, burn, block))

        async def read(self, wait_s: float) -> bytes:
            await asyncio.sleep(0)
            if step := next(self.steps, None):
                step()
            return b"x" if step else b""

    async def write(data: bytes) -> None:
        pass

    async def answer() -> Outcome:
        return await relay.pipe_body(Provider(), write, relay.BodyCopy(""), idle_timeout=1)

    with watching(LIMIT_MS), asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(answer()) is Outcome.OK
    lines, first = inspect.getsourcelines(relay.pipe_body)
    [reading] = [number for number, line in enumerate(lines, first) if "await source.read" in line]
    assert len(reports(log)) == 2
    for report in reports(log):
        assert report["callback"].endswith("answer")
        assert report["start"] == report["end"] == f"relay.py:{reading}"


def test_nobody_watches_once_the_watch_is_over(log: io.StringIO) -> None:
    plain = asyncio.Handle._run
    run(nothing)
    assert asyncio.Handle._run is plain
    asyncio.run(asyncio.sleep(0))
    assert reports(log) == []


@pytest.mark.parametrize(("limit_ms", "watched"), [("0", False), ("0.001", True)])
async def test_a_worker_is_watched_only_if_it_is_told_to(
    served: Served, limit_ms: str, watched: bool
) -> None:
    served.environ["MINTOKEN_SERVER_SLOW_CALLBACK_MS"] = limit_ms
    async with aiohttp.ClientSession() as session:
        await served.start(session)
    assert (b'"slow_callback"' in served.log.read_bytes()) == watched


def test_a_worker_that_is_not_watched_runs_on_uvloop() -> None:
    plain = asyncio.Handle._run
    with runner_for(slow_callback_ms=0) as runner:
        assert isinstance(runner.get_loop(), uvloop.Loop)
        assert asyncio.Handle._run is plain
    with runner_for(slow_callback_ms=2) as runner:
        assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop)
        assert asyncio.Handle._run is not plain
