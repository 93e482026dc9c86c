"""Bytes from the upstream to the caller, while a meter reads over the shoulder."""

import zlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from mintoken.errors import InterruptedByShutdownError, UpstreamBrokeError
from mintoken.logs import frames
from mintoken.models import Outcome
from mintoken.protocols.base import Meter
from mintoken.sse import EventParser

KEEP_ALIVE = b": keep-alive\n\n"
COPY_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer kept to read its usage; a larger one is estimated."""
UNPACKED_LIMIT = 32 * 1024 * 1024
"""Bytes that such a copy may unpack to (counting.md)."""

Write = Callable[[bytes], Awaitable[None]]


class Source(Protocol):
    """Where the bytes come from; `upstream.Answer` is one."""

    async def read(self, wait_s: float) -> bytes:
        """The next bytes; raises as `upstream.Answer.read` does."""


class EventReader:
    """Feeds the events of a stream to a meter, unpacking a copy if the stream is compressed."""

    def __init__(self, meter: Meter, encoding: str) -> None:
        self._meter = meter
        self._parser = EventParser()
        self._inflate = unpacker(encoding)
        self._readable = self._inflate is not None or not encoding_matters(encoding)
        self._plain = not encoding_matters(encoding)

    @property
    def at_boundary(self) -> bool:
        """Whether an event of ours may be written after what has been read."""
        return self._plain and self._parser.at_boundary

    def read(self, data: bytes) -> None:
        """Take the next bytes. A failure here is logged and never reaches the stream."""
        try:
            self._read(data)
        except Exception as error:  # noqa: BLE001 - measurement fails open
            self._meter.skip(len(data))
            structlog.get_logger().warning("events_unread", bytes=len(data), error=frames(error))

    def _read(self, data: bytes) -> None:
        if not self._readable:
            self._meter.skip(len(data))
            return
        if self._inflate is not None:
            data = self._inflate.decompress(data, UNPACKED_LIMIT)
        skipped = self._parser.skipped
        for event in self._parser.feed(data):
            self._meter.feed(event)
        if self._parser.skipped > skipped:
            self._meter.skip(self._parser.skipped - skipped)


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
    the stream ended by the protocol's own state, None if it has not. After `keepalive_after` seconds
    of silence (0 is never) a comment goes out between events; after `idle_timeout` the stream is
    given up.
    """
    wait = min(keepalive_after, idle_timeout) if keepalive_after else idle_timeout
    silent = 0.0
    while True:
        try:
            data = await source.read(min(wait, idle_timeout - silent))
        except TimeoutError:
            silent += wait
            if silent >= idle_timeout:
                return ended() or Outcome.UPSTREAM_TIMEOUT
            if reader.at_boundary:
                await write(KEEP_ALIVE)
            continue
        except UpstreamBrokeError as broke:
            await _pass_on(broke.rest, write, reader)
            return ended() or Outcome.UPSTREAM_BROKE
        except InterruptedByShutdownError:
            return ended() or Outcome.SHUTDOWN
        if not data:
            return ended() or Outcome.UPSTREAM_BROKE
        silent = 0.0
        await _pass_on(data, write, reader)


async def _pass_on(data: bytes, write: Write, reader: EventReader) -> None:
    if not data:
        return
    try:
        await write(data)
    finally:
        reader.read(data)


class BodyCopy:
    """A bounded copy of an answer's body, kept to read its usage."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._kept = bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes; beyond COPY_LIMIT nothing is kept."""
        self.size += len(data)
        if self.size <= COPY_LIMIT:
            self._kept += data
        else:
            self._kept.clear()

    def read_into(self, meter: Meter) -> None:
        """Let the meter read the body, unpacked, or note it as unread."""
        body = unpack(bytes(self._kept), self._encoding) if self.size <= COPY_LIMIT else None
        if body is None:
            meter.skip(self.size)
        else:
            meter.feed_body(body)


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


def encoding_matters(encoding: str) -> bool:
    """Whether a Content-Encoding changes the bytes."""
    return encoding not in ("", "identity")


def unpacker(encoding: str) -> "zlib._Decompress | None":
    """What unpacks this Content-Encoding piece by piece; None if nothing here does."""
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    return None


def unpack(body: bytes, encoding: str) -> bytes | None:
    """The body without its Content-Encoding; None if it cannot be read or is over UNPACKED_LIMIT."""
    if not encoding_matters(encoding):
        return body
    inflate = unpacker(encoding)
    if inflate is None:
        return None
    try:
        unpacked = inflate.decompress(body, UNPACKED_LIMIT)
    except zlib.error:
        return None
    return unpacked if inflate.eof else None
