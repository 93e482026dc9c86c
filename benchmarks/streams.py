"""The load client for streams: when each chunk came, by the clock that the provider stamps with.

`python -m benchmarks.streams PORT REQUEST_FILE STREAMS CHUNKS SPACING_MS` prints JSON. Without
spacing, each stream begins when the one before it has ended.
"""

import asyncio
import re
import statistics
import sys
import time
from array import array
from pathlib import Path
from typing import cast

import orjson
import uvloop

STAMPED = re.compile(rb'"fp_(\d{19})"')


class Stream(asyncio.Protocol):
    """One stream on a connection of its own."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._begun_ns = time.monotonic_ns()
        self._seen = b""
        self._answered = False
        """With all that belongs to a stream."""
        self.first_ms = 0.0
        """From before connecting to the first chunk."""
        self.late_ms = array("d")
        """Of each chunk: from its stamp to its arrival."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class.
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._seen += data
        if not self.first_ms and not self._seen.startswith(b"HTTP/1.1 200 "):
            self._transport.abort()
            return
        whole = self._seen.rfind(b"\n\n") + 2
        if whole < 2:
            return
        events, self._seen = self._seen[:whole], self._seen[whole:]
        if not self.first_ms:
            self.first_ms = (now - self._begun_ns) / 1e6
        for stamp in STAMPED.findall(events):
            self.late_ms.append((now - int(stamp)) / 1e6)
        if b"data: [DONE]" in events:
            self._answered = True
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(ConnectionError(f"a stream broke: {exc}, {self._seen!r}"))


async def take(port: int, request: bytes, count: int, spacing_s: float) -> list[Stream]:
    """So many streams, each read to its end. Raises OSError if one is refused or breaks."""
    loop = asyncio.get_running_loop()

    async def one(number: int) -> Stream:
        await asyncio.sleep(number * spacing_s)
        _, stream = await loop.create_connection(lambda: Stream(request), "127.0.0.1", port)
        await stream.ended
        return stream

    if spacing_s:
        return await asyncio.gather(*map(one, range(count)))
    return [await one(0) for _ in range(count)]


def figures(streams: list[Stream], chunks: int) -> dict[str, float]:
    """What the streams of so many chunks each were like."""
    late = [ms for stream in streams for ms in stream.late_ms]
    expected = len(streams) * chunks
    # A relay may cut a chunk's own bytes in two, and then it is not recognised. That is rare.
    if not 0.999 * expected <= len(late) <= expected:
        raise ConnectionError(f"{len(late)} chunks came, not {expected}")
    first = percentiles([stream.first_ms for stream in streams])
    lateness = percentiles(late)
    return {
        "first_p50_ms": first[49], "first_p99_ms": first[98],
        "late_p50_ms": lateness[49], "late_p99_ms": lateness[98],
    }  # fmt: skip


def percentiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=100, method="inclusive")


def main(port: str, file: str, streams: str, chunks: str, spacing_ms: str) -> None:
    request = Path(file).read_bytes()
    taken = uvloop.run(take(int(port), request, int(streams), float(spacing_ms) / 1000))
    print(orjson.dumps(figures(taken, int(chunks))).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
