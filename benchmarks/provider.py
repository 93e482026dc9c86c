"""The scripted provider, `python -m benchmarks.provider PORT`: quicker than what is measured."""

import asyncio
import signal
import sys
import time
from typing import cast

import uvloop

from benchmarks import bodies

WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(bodies.answer()), bodies.answer())
)
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-request-id: req_1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
WORD = bodies.chunk(bodies.delta(" mutex"), fingerprint=bodies.STAMP)
STAMP_AT = WORD.index(bodies.STAMP.encode())
BEFORE, AFTER = WORD[:STAMP_AT], WORD[STAMP_AT + len(bodies.STAMP) :]
CHUNKS_PER_TURN = 25
TURN = WORD * CHUNKS_PER_TURN
"""What a fast stream writes before the event loop turns, which would join single writes."""


def end(tokens: int) -> bytes:
    return (
        bodies.chunk(bodies.delta("", "stop"), fingerprint="fp_end")
        + bodies.chunk(fingerprint="fp_end", usage=bodies.usage(tokens))
        + bodies.framed(b"data: [DONE]\n\n")
        + b"0\r\n\r\n"
    )


FAST_END = end(bodies.CHUNKS)


class Connection(asyncio.Protocol):
    """One request after the other; a large body is counted, not kept."""

    def __init__(self) -> None:
        self._seen = b""
        self._missing = -1
        """Bytes of the body that are still to come; -1 while the head is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class.
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._seen += data
            head, found, body = self._seen.partition(b"\r\n\r\n")
            if not found:
                return
            self._missing = _content_length(head) - len(body)
            self._seen = body[:1024]
        else:
            self._missing -= len(data)
            self._seen += data[: max(0, 1024 - len(self._seen))]
        if self._missing <= 0:
            assert self._missing == 0, "this provider answers one request at a time"
            body, self._seen, self._missing = self._seen, b"", -1
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        model = body[: body.index(b",")]
        if bodies.FAST.encode() in model:
            self._transport.write(STREAM)
            self._write_fast(bodies.CHUNKS)
        elif bodies.PACED.encode() in model:
            self._transport.write(STREAM)
            count = int(body.partition(b'"max_tokens":')[2].partition(b",")[0])
            self._tick(self._loop.time() + bodies.FIRST_CHUNK_S, count, 0)
        else:
            self._transport.write(WHOLE)

    def _write_fast(self, left: int) -> None:
        if not left:
            self._transport.write(FAST_END)
        elif not self._transport.is_closing():
            self._transport.write(TURN)
            self._loop.call_soon(self._write_fast, left - CHUNKS_PER_TURN)

    def _tick(self, at: float, count: int, number: int) -> None:
        """Wait for the time of a stream's next chunk; the times do not drift."""
        self._loop.call_at(at, self._write_paced, at, count, number)

    def _write_paced(self, at: float, count: int, number: int) -> None:
        if self._transport.is_closing():
            return
        if number == count:
            self._transport.write(end(count))
            return
        self._transport.write(b"%bfp_%019d%b" % (BEFORE, time.monotonic_ns(), AFTER))
        self._tick(at + 1 / bodies.CHUNKS_PER_S, count, number + 1)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("this provider wants to be told how long the body is")


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await loop.create_server(Connection, "127.0.0.1", port, backlog=1024)
    await stopped.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
