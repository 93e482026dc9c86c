"""Logs: one JSON line per event on stdout, a readable form on a terminal."""

import logging
import sys
import traceback
from contextlib import suppress
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import Processor


def configure(stream: TextIO = sys.stdout) -> None:
    """Send structlog's events, and the warnings of libraries, to `stream`."""
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: Processor
    if stream.isatty():
        render = structlog.dev.ConsoleRenderer()
    else:
        render = structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Lossy(stream))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def frames(error: BaseException) -> str:
    """Where an exception came from, without its message: that may quote headers or content."""
    places = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{p.filename}:{p.lineno} {p.name}" for p in reversed(places))
    return f"{type(error).__name__} at {where}"


def _json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


class _Lossy:
    """A stream that loses what it cannot write, as on a full disk; whoever logs must go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


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
