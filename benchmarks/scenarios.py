"""What is measured: each scenario, and one round of it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bodies, detection
from benchmarks.figures import Figure, Rounds, at_most, more, times
from benchmarks.load import Figures, Load, accounted, streams, wrk
from benchmarks.targets import (
    BARE,
    BARE_UVLOOP,
    DIRECT,
    MINTOKEN,
    Target,
    bare,
    everyone,
    mintoken,
    provider,
)

Told = Callable[[float], None]
"""Called with the share that is done."""
FAST_STREAMS_WATCHED = 50


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured."""

    rounds: int
    seconds: int
    streams: int
    paced_seconds: int
    warm_rounds: int = 0
    """Short ones before, that do not count."""


FULL = Effort(rounds=3, seconds=4, streams=500, paced_seconds=20, warm_rounds=1)
WARM = Effort(rounds=1, seconds=1, streams=10, paced_seconds=1)
QUICK = Effort(rounds=1, seconds=1, streams=100, paced_seconds=2)

Round = Callable[[Target, Target, Effort, Path], Figures]
"""Of a target, before a provider."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A part of the run, and the lines that it gives the table."""

    name: str
    what: str
    figures: tuple[Figure, ...]
    measure: Callable[[Effort, Path, Told], Rounds]


def interleaved(once: Round) -> Callable[[Effort, Path, Told], Rounds]:
    """Every target in each round, in another order each time."""

    def measure(effort: Effort, folder: Path, told: Told) -> Rounds:
        with everyone(folder) as targets:
            found: dict[str, list[Figures]] = {target.name: [] for target in targets}
            for number in range(-effort.warm_rounds, effort.rounds):
                for place in range(len(targets)):
                    told(max(0, number + place / len(targets)) / effort.rounds)
                    target = targets[(place + number) % len(targets)]
                    figures = once(target, targets[0], WARM if number < 0 else effort, folder)
                    if number >= 0:
                        found[target.name].append(figures)
        return found

    return measure


def requests(load: Load) -> Round:
    def once(target: Target, upstream: Target, effort: Effort, folder: Path) -> Figures:
        with accounted(target, upstream) as account:
            figures = wrk(target, load, seconds=effort.seconds, folder=folder)
        cpu_ms = account["cpu_s"] * 1000 / figures["requests"]
        return figures | account | {"cpu_ms": cpu_ms}

    return once


def fast_streams(target: Target, upstream: Target, effort: Effort, folder: Path) -> Figures:
    load = Load(bodies.fast(), connections=8, answer_bytes=bodies.CHUNKS * 100)
    figures = requests(load)(target, upstream, effort, folder)
    # How soon chunks come is looked at on streams that do not wait for each other.
    watched = streams(
        target, load.body, count=FAST_STREAMS_WATCHED, chunks=bodies.CHUNKS, folder=folder
    )
    first = {key: watched[key] for key in ("first_p50_ms", "first_p99_ms")}
    return figures | first | {"cpu_us": figures["cpu_ms"] * 1000 / bodies.CHUNKS}


def paced_streams(target: Target, upstream: Target, effort: Effort, folder: Path) -> Figures:
    # 2.1 ms apart, and ticking every 50 ms: as evenly spread as a timer of 1 ms can.
    spacing_ms = 2.1
    chunks = effort.paced_seconds * bodies.CHUNKS_PER_S
    rss_mb: list[float] = []
    before_mb = target.tree.all_rss_mb()
    all_run_s = effort.streams * spacing_ms / 1000 + effort.paced_seconds / 2
    with accounted(target, upstream) as account:
        figures = streams(
            target, bodies.paced(effort.paced_seconds), count=effort.streams, chunks=chunks,
            folder=folder, spacing_ms=spacing_ms,
            midway=(all_run_s, lambda: rss_mb.append(target.tree.all_rss_mb())),
        )  # fmt: skip
    cpu_us = account["cpu_s"] * 1e6 / (effort.streams * chunks)
    return figures | account | {"cpu_us": cpu_us, "rss_mb": rss_mb[0], "rss_before_mb": before_mb}


def with_memory(effort: Effort, folder: Path, told: Told) -> Rounds:
    """Paced streams; what they take is counted from before the first round: freed memory stays."""
    rounds = interleaved(paced_streams)(effort, folder, told)
    for name, found in rounds.items():
        for figures in found if name != DIRECT else ():
            grown_mb = figures["rss_mb"] - found[0]["rss_before_mb"]
            figures["stream_kb"] = grown_mb * 1024 / effort.streams
    return rounds


def start_up(effort: Effort, folder: Path, told: Told) -> Rounds:
    """From the start of the process to the first 200, and the memory a second later."""
    found: dict[str, list[Figures]] = {name: [] for name in (BARE, BARE_UVLOOP, MINTOKEN)}
    with provider(folder) as upstream:
        starts: dict[str, Callable[[], AbstractContextManager[Target]]] = {
            BARE: lambda: bare(folder, upstream),
            BARE_UVLOOP: lambda: bare(folder, upstream, name=BARE_UVLOOP),
            MINTOKEN: lambda: mintoken(folder, upstream),
        }
        for number in range(effort.rounds):
            for place, (name, start) in enumerate(starts.items()):
                told((number + place / len(starts)) / effort.rounds)
                with start() as target:
                    time.sleep(1)
                    found[name].append(
                        {"start_s": target.start_s, "rss_mb": target.tree.rss_mb()} | _pss(target)
                    )
            found[MINTOKEN][-1] |= _another_worker(folder, upstream)
    return found


def _pss(target: Target) -> Figures:
    pss_mb = target.tree.pss_mb()
    return {} if pss_mb is None else {"pss_mb": pss_mb}


def _another_worker(folder: Path, upstream: Target) -> Figures:
    """What a second worker adds once both have worked: pages are shared until they are written."""
    pss_mb: list[float] = []
    for workers in (1, 2):
        with mintoken(folder, upstream, workers=workers) as target:
            wrk(target, SMALL_32, seconds=1, folder=folder)
            time.sleep(0.5)
            pss_mb += _pss(target).values()
    return {"worker_mb": pss_mb[1] - pss_mb[0]} if pss_mb else {}


def detecting(effort: Effort, _: Path, told: Told) -> Rounds:
    return detection.measure(effort.rounds, told)


ANSWER_BYTES = len(bodies.answer())
SMALL_32 = Load(bodies.small(), connections=32, answer_bytes=ANSWER_BYTES)

ALL = (
    Scenario(
        "small-1",
        "1 KB in, 1 KB out, 1 connection",
        (
            Figure("cpu_ms", "CPU ms/request"),
            Figure("requests_s", "requests/s"),
            Figure("p50_ms", "p50 ms"),
            Figure("p50_ms", "added p50 ms", more(1, "ms"), added=True),
            Figure("p99_ms", "p99 ms"),
            Figure("p99_ms", "added p99 ms", added=True),
        ),
        interleaved(requests(Load(bodies.small(), connections=1, answer_bytes=ANSWER_BYTES))),
    ),
    Scenario(
        "small-32",
        "1 KB in, 1 KB out, 32 connections",
        (
            Figure("cpu_ms", "CPU ms/request", times(1.5)),
            Figure("requests_s", "requests/s"),
            Figure("p50_ms", "p50 ms"),
            Figure("p99_ms", "p99 ms"),
        ),
        interleaved(requests(SMALL_32)),
    ),
    Scenario(
        "vision",
        "1 MB in, 1 KB out, 4 connections",
        (
            Figure("cpu_ms", "CPU ms/request", times(1.3)),
            Figure("requests_s", "requests/s"),
            Figure("p50_ms", "p50 ms"),
            Figure("p99_ms", "p99 ms"),
        ),
        interleaved(requests(Load(bodies.vision(), connections=4, answer_bytes=ANSWER_BYTES))),
    ),
    Scenario(
        "fast-stream",
        "500 chunks at once, 8 connections; the first chunk on 1",
        (
            Figure("cpu_us", "CPU µs/chunk", times(1.2)),
            Figure("requests_s", "streams/s"),
            Figure("first_p50_ms", "first chunk p50 ms"),
            Figure("first_p50_ms", "added to it ms", added=True),
            Figure("first_p99_ms", "first chunk p99 ms"),
        ),
        interleaved(fast_streams),
    ),
    Scenario(
        "paced-streams",
        "500 streams, first chunk after 200 ms, then 20 chunks/s for 20 s",
        (
            Figure("cpu_us", "CPU µs/chunk", times(1.1)),
            Figure("first_p50_ms", "first chunk p50 ms"),
            Figure("first_p99_ms", "first chunk p99 ms", more(5, "ms")),
            Figure("late_p50_ms", "chunk lateness p50 ms"),
            Figure("late_p99_ms", "chunk lateness p99 ms", more(5, "ms")),
            Figure("stream_kb", "RSS KB/stream", at_most(60, "KB")),
        ),
        with_memory,
    ),
    Scenario(
        "start-up",
        "process start to first 200; memory a second later",
        (
            Figure("start_s", "start s", at_most(1, "s")),
            Figure("rss_mb", "idle RSS MB, largest process", at_most(150, "MB")),
            Figure("pss_mb", "idle PSS MB, all processes"),
            Figure("worker_mb", "one more worker PSS MB", at_most(60, "MB")),
        ),
        start_up,
    ),
    Scenario(
        "detection",
        "smart detection of a new conversation, in the process that measures",
        detection.FIGURES,
        detecting,
    ),
)
