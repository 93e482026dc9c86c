"""Load from outside: wrk for requests and fast streams, our own client for when chunks come."""

import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import bodies
from benchmarks.processes import ENVIRON, python
from benchmarks.targets import Target

Figures = dict[str, float]
"""What one round found, by name and unit."""

# wrk hands out microseconds. The errors it counts as `status` are those of 400 and more.
SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency, requests)
  local e = summary.errors
  local line = '{{"requests": %d, "us": %d, "bytes": %d, "errors": %d, "p50": %d, "p99": %d}}'
  print(string.format(line,
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class LoadError(Exception):
    """An answer was not what it has to be, or a connection broke: the figures mean nothing."""


def missing_wrk() -> bool:
    return shutil.which("wrk") is None


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, over how many connections, and the least bytes that an answer has."""

    body: bytes
    connections: int
    answer_bytes: int


def wrk(target: Target, load: Load, *, seconds: int, folder: Path) -> Figures:
    """Requests per second and latency under this load. Raises LoadError."""
    body, script = folder / "body", folder / "script.lua"
    body.write_bytes(load.body)
    headers = [f'wrk.headers["{name}"] = "{value}"' for name, value in target.headers.items()]
    script.write_text(SCRIPT.format(body=body, headers="\n".join(headers)))
    url = f"http://127.0.0.1:{target.port}{bodies.PATH}"
    out = _output(
        ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "-s", str(script), url], target
    )
    found = orjson.loads(out.splitlines()[-1])
    if found["errors"] or found["bytes"] < found["requests"] * load.answer_bytes:
        raise LoadError(f"{target.name} gave wrong answers:\n{out}")
    return {
        "requests": found["requests"],
        "requests_s": found["requests"] / found["us"] * 1e6,
        "p50_ms": found["p50"] / 1000,
        "p99_ms": found["p99"] / 1000,
    }


def streams(
    target: Target,
    body: bytes,
    *,
    count: int,
    chunks: int,
    folder: Path,
    spacing_ms: float = 0,
    midway: tuple[float, Callable[[], None]] | None = None,
) -> Figures:
    """When the chunks of so many streams came; `midway` is called after so many seconds.

    Raises LoadError.
    """
    request = folder / "request"
    request.write_bytes(target.request(body))
    arguments = [target.port, request, count, chunks, spacing_ms]
    command = python("benchmarks.streams", *map(str, arguments))
    figures: Figures = orjson.loads(_output(command, target, midway))
    return figures


def _output(
    command: list[str], target: Target, midway: tuple[float, Callable[[], None]] | None = None
) -> str:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRON
    ) as process:
        if midway:
            time.sleep(midway[0])
            midway[1]()
        out, _ = process.communicate()
    if process.returncode:
        raise LoadError(f"{target.name}: {command[0]} ended with {process.returncode}:\n{out}")
    return out


@contextmanager
def accounted(target: Target, provider: Target) -> Iterator[Figures]:
    """The CPU seconds that this took the target, and which share of a core it took the others."""
    found: Figures = {}
    begun, before = time.monotonic(), (target.tree.cpu_s(), provider.tree.cpu_s(), _load_cpu_s())
    yield found
    after = (target.tree.cpu_s(), provider.tree.cpu_s(), _load_cpu_s())
    took = time.monotonic() - begun
    of_target, of_provider, of_load = (b - a for a, b in zip(before, after, strict=True))
    found["cpu_s"] = of_target
    found["provider_share"] = of_provider / took
    found["load_share"] = of_load / took


def _load_cpu_s() -> float:
    # Only load clients end, and are waited for, while somebody is looked at.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
