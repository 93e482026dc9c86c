"""Logs: JSON lines, and nothing that an exception's message may quote."""

import errno
import io
import json
import logging

import structlog

from mintoken import logs


def test_an_event_is_one_json_line() -> None:
    out = io.StringIO()
    logs.configure(out)
    structlog.get_logger().info("request", id="1", ms=5)
    (line,) = out.getvalue().splitlines()
    assert {"event": "request", "id": "1", "ms": 5, "level": "info"}.items() <= json.loads(
        line
    ).items()


def test_a_librarys_record_is_logged_without_its_arguments_or_its_exceptions_text() -> None:
    out = io.StringIO()
    logs.configure(out)
    try:
        raise ValueError("sk-secret in a message")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error from %s", "sk-secret")
    record = json.loads(out.getvalue())
    assert (record["event"], record["text"]) == ("library", "Error from %s")
    assert record["error"].startswith("ValueError at ")
    assert "sk-secret" not in out.getvalue()


def test_a_terminal_gets_a_readable_form() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    logs.configure(out)
    structlog.get_logger().info("listening", public="127.0.0.1:8787")
    assert "listening" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_what_cannot_be_written_is_lost_and_stops_nobody() -> None:
    tried = []

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise BrokenPipeError

    logs.configure(Full())
    structlog.get_logger().info("request", id="1")
    structlog.get_logger().info("request", id="2")
    logs.configure(io.StringIO())
    assert [json.loads(line)["id"] for line in tried] == ["1", "2"]
