"""Bytes from the upstream to the caller, while a meter reads over the shoulder."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Protocol, TypeVar

import structlog

from mintoken.errors import InterruptedByShutdownError, UpstreamBrokeError
from mintoken.logs import frames
from mintoken.models import Outcome
from mintoken.protocols.base import Meter
from mintoken.sse import EventParser

PLAIN = ("", "identity")
KEEP_ALIVE = b": keep-alive\n\n"
COPY_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer kept to read its usage; a larger one is estimated."""
UNPACKED_LIMIT = 32 * 1024 * 1024
"""Bytes that such a copy may unpack to (counting.md)."""
UNPACKED_INLINE = 256 * 1024
"""Bytes of a body that are unpacked on the event loop: 0.7 ms."""
KEPT_READS, KEPT_BYTES = 16, 16 * 1024
"""So much of a stream is read at once: each on its own takes three times the CPU."""
PLAIN_STEP, PACKED_STEP = 64 * 1024, 4 * 1024
UNPACKED_STEP = 128 * 1024
"""Bytes of a stream that are read without letting others in between, and what these may unpack to,
more than honest ones do: some 1 ms."""

Unpacked = TypeVar("Unpacked", bytes, bytearray)
Write = Callable[[bytes], Awaitable[None]]


class Source(Protocol):
    """Where the bytes come from; `upstream.Answer` is one."""

    async def read(self, wait_s: float) -> bytes:
        """The next bytes; raises as `upstream.Answer.read` does."""


class EventReader:
    """Feeds the events of a stream to a meter, unpacking a copy if the stream is compressed.

    It keeps what it is given until it is worth the while, or until it has to catch up. A failure in
    here is logged and never reaches the stream.
    """

    def __init__(self, meter: Meter, encoding: str) -> None:
        self._meter = meter
        self._parser = EventParser()
        self._unpack = unpacker(encoding, UNPACKED_STEP)
        self._plain = encoding in PLAIN
        self._step = PLAIN_STEP if self._plain else PACKED_STEP
        self._kept: list[bytes] = []
        self._kept_bytes = 0

    @property
    def at_boundary(self) -> bool:
        """Whether an event of ours may be written after what has been read."""
        self.catch_up()
        return self._plain and self._parser.at_boundary

    def keep(self, data: bytes) -> None:
        """Take the next bytes."""
        self._kept.append(data)
        self._kept_bytes += len(data)

    async def keep_up(self) -> None:
        """Feed the meter what there is if it is much, step by step so that others come in."""
        if len(self._kept) < KEPT_READS and self._kept_bytes < KEPT_BYTES:
            return
        large = self._kept_bytes > KEPT_BYTES
        while self._kept:
            if large:
                await asyncio.sleep(0)
            self._read_on()

    def catch_up(self) -> None:
        """Feed the meter all that there is."""
        while self._kept:
            self._read_on()

    def _read_on(self) -> None:
        data = b"".join(self._kept)
        rest = data[self._step :]
        self._kept, self._kept_bytes = [rest] if rest else [], len(rest)
        self._feed(data[: self._step])

    def _feed(self, data: bytes) -> None:
        skipped = self._parser.skipped
        try:
            if self._unpack is None:
                self._meter.skip(len(data))
                return
            self._meter.feed(self._parser.feed(self._unpack(data)))
            self._meter.skip(self._parser.skipped - skipped)
        except Exception as error:  # noqa: BLE001 - measurement fails open
            self._unpack = None
            self._meter.skip(len(data))
            structlog.get_logger().warning("stream_unread", bytes=len(data), error=frames(error))


async def pipe_events(
    source: Source,
    write: Write,
    reader: EventReader,
    ended: Callable[[], Outcome | None],
    *,
    keepalive_after: float,
    idle_timeout: float,
) -> Outcome:
    """Relay a stream until it ends; how it ended.

    Every read is written at once and unmodified, and read by `reader` after that. `ended` says how
    the stream ended by the protocol's own state, None if it has not. After `keepalive_after`
    seconds of silence (0 is never) a comment goes out between events; after `idle_timeout` seconds
    the stream is given up.
    """
    try:
        outcome = await _pipe(source, write, reader, keepalive_after or idle_timeout, idle_timeout)
    finally:
        reader.catch_up()
    return ended() or outcome


async def _pipe(
    source: Source, write: Write, reader: EventReader, keepalive_after: float, idle_timeout: float
) -> Outcome:
    """Relay a stream until nothing more comes, and why that is, apart from what it said."""
    wait = min(keepalive_after, idle_timeout)
    silent = 0.0
    while True:
        broke = False
        try:
            data = await source.read(min(wait, idle_timeout - silent))
        except TimeoutError:
            silent += wait
            if silent >= idle_timeout:
                return Outcome.UPSTREAM_TIMEOUT
            if reader.at_boundary:
                await write(KEEP_ALIVE)
            continue
        except UpstreamBrokeError as error:
            data, broke = error.rest, True
        except InterruptedByShutdownError:
            return Outcome.SHUTDOWN
        if data:
            try:
                await write(data)
            finally:
                reader.keep(data)
            await reader.keep_up()
        if broke or not data:
            return Outcome.UPSTREAM_BROKE
        silent = 0.0


class BodyCopy:
    """A bounded copy of an answer's body, kept to read its usage."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._kept: list[bytes] = []
        self.size = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes; beyond COPY_LIMIT nothing is kept."""
        self.size += len(data)
        if self.size <= COPY_LIMIT:
            self._kept.append(data)
        else:
            self._kept.clear()

    def read_into(self, meter: Meter, *, limit: int = UNPACKED_LIMIT) -> bool:
        """Let the meter read the body, unpacked; False if it is too large for that."""
        if self.size > COPY_LIMIT:
            return False
        try:
            body = unpack(b"".join(self._kept), self._encoding, limit)
        except OverflowError:
            return False
        if body is None:
            meter.skip(self.size)
        else:
            meter.feed_body(body)
        return True


async def pipe_body(
    source: Source, write: Write, copy: BodyCopy, *, idle_timeout: float
) -> Outcome:
    """Relay a body that is not a stream of events; OK if it came to its end."""
    while True:
        try:
            data = await source.read(idle_timeout)
        except TimeoutError:
            return Outcome.UPSTREAM_TIMEOUT
        except InterruptedByShutdownError:
            return Outcome.SHUTDOWN
        except UpstreamBrokeError as broke:
            if broke.rest:
                copy.add(broke.rest)
                await write(broke.rest)
            return Outcome.UPSTREAM_BROKE
        if not data:
            return Outcome.OK
        copy.add(data)
        await write(data)


def unpacker(encoding: str, limit: int) -> Callable[[bytes], bytes] | None:
    """What undoes a Content-Encoding piece by piece; OverflowError if a piece reaches the limit.

    None if nothing here does: brotli and zstd need the extra `compression`.
    """
    if encoding in PLAIN:
        return bytes
    try:
        match encoding:
            case "gzip" | "x-gzip" | "deflate":
                inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress
                return lambda data: _below(limit, inflate(data, limit))
            case "br":
                process = import_module("brotli").Decompressor().process
                return lambda data: _below(limit, process(data, output_buffer_limit=limit))
            case "zstd":
                expand = import_module("backports.zstd").ZstdDecompressor().decompress
                return lambda data: _below(limit, expand(data, limit))
    except ImportError:
        pass
    return None


def _below(limit: int, unpacked: Unpacked) -> Unpacked:
    if len(unpacked) >= limit:
        raise OverflowError
    return unpacked


def unpack(body: bytes, encoding: str, limit: int) -> bytes | None:
    """The body without its Content-Encoding; None if that cannot be undone.

    Raises OverflowError if it unpacks to `limit` bytes or more.
    """
    try:
        unpacked = unpacker(encoding, limit)
        return unpacked(body) if unpacked is not None else None
    except OverflowError:
        raise
    except Exception as error:  # noqa: BLE001 - each library has its own; measurement fails open
        structlog.get_logger().warning("body_unread", bytes=len(body), error=frames(error))
        return None
