"""Logs: one JSON line per event on stdout, a readable form on a terminal."""

import logging
import sys
import traceback
from contextlib import suppress
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, ProcessorReturnValue, WrappedLogger


def configure(stream: TextIO = sys.stdout) -> None:
    """Send structlog's events, and the warnings of libraries, to `stream`."""
    _OUT.to(stream)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _OUT.render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _OUT)),
        # Kept loggers notice no other configuration, but all that ever changes is within _OUT.
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def frames(error: BaseException) -> str:
    """Where an exception came from, without its message: that may quote headers or content."""
    # Not extract_tb, which reads every source file on the way.
    places = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    where = " < ".join(f"{c.co_filename}:{line} {c.co_name}" for c, line in reversed(places))
    return f"{type(error).__name__} at {where}"


def _json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


class _Output:
    """Where the log goes. What cannot be written, as on a full disk, is lost: who logs goes on."""

    def __init__(self) -> None:
        self.to(sys.stdout)

    def to(self, stream: TextIO) -> None:
        """From now on it goes to this stream."""
        self._stream = stream
        self._render: Processor = structlog.processors.JSONRenderer(serializer=_json)
        if stream.isatty():
            self._render = structlog.dev.ConsoleRenderer()

    def render(self, logger: WrappedLogger, name: str, event: EventDict) -> ProcessorReturnValue:
        """A structlog processor: the event as one line, fit for the stream."""
        return self._render(logger, name, event)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


_OUT = _Output()


class _LibraryHandler(logging.Handler):
    """Hands a library's record on: its fixed text and where it failed, never its arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno,
            "library",
            logger=record.name,
            text=str(record.msg).splitlines()[0] if record.msg else "",
            **({"error": frames(error)} if error is not None else {}),
        )
