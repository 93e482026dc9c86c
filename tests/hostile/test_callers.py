"""Rows 25, 31 and 32 of the table: callers that hurry, leave, or stop reading.

Rows 26 and 27 need servers of their own: they are in `test_ledger`, `test_storage`
and `test_server`.
"""

import asyncio
import socket
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import eventually
from fake_upstream import STALL, Step, completion, delta, json_reply, stream_head
from hostile.target import BODY, CLOSE, OK, Target, answers, with_length

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAM = BODY[:-1] + b',"stream":true}'


async def test_200_pipelined_requests_get_200_answers_in_order(target: Target) -> None:
    for number in range(200):
        target.upstream.play(json_reply(completion(f"answer {number:03d}")))
    before = len(target.rows())
    requests = OK + with_length(BODY)
    got = answers(await target.exchange(requests * 199 + OK + CLOSE + with_length(BODY)))
    assert len(got) == 200
    for number, answer in enumerate(got):
        assert answer.status == 200
        assert b"answer %03d" % number in answer.body
    await target.last_row()
    assert len(target.rows()) == before + 200


def fin(writer: asyncio.StreamWriter) -> None:
    writer.close()


def rst(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def half_close(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


@pytest.mark.parametrize("leave", [fin, rst, half_close])
@pytest.mark.parametrize(
    "script",
    [(STALL,), (stream_head(), STALL), (stream_head(), delta("chatcmpl"), STALL)],
    ids=["before the head", "after the head", "while streaming"],
)
async def test_a_caller_that_leaves_takes_the_upstream_along(
    target: Target, script: tuple[Step, ...], leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    """The upstream is closed within 50 ms, the row there within 500 ms: medians of five."""
    closed, recorded = [], []
    for _ in range(5):
        target.upstream.play(*script)
        count = len(target.upstream.requests) + 1
        reader, writer = await target.open()
        writer.write(target.fill(OK + with_length(STREAM)))
        await target.upstream.received(count)
        if len(script) > 1:
            await reader.readuntil(b"\r\n\r\n" if len(script) == 2 else b"content")
        left = time.perf_counter()
        leave(writer)
        await asyncio.wait_for(target.upstream.requests[-1].gone.wait(), 5)
        closed.append(time.perf_counter() - left)
        row = await target.last_row()
        recorded.append(time.perf_counter() - left)
        assert row["outcome"] == "client_closed"
        writer.close()
    assert statistics.median(closed) < 0.05
    assert statistics.median(recorded) < 0.5


async def test_a_caller_that_stops_reading_is_cut_off_and_costs_little(target: Target) -> None:
    """Row 32, with a deadline of 2 s."""
    target.upstream.play(stream_head(), *[delta("x" * 60_000)] * 4000, STALL)
    warm = target.served.rss_kb()
    reader, writer = await target.open()
    writer.transport.pause_reading()
    writer.write(target.fill(OK + with_length(STREAM)))
    await target.upstream.received(len(target.upstream.requests) + 1)
    await asyncio.wait_for(target.upstream.requests[-1].gone.wait(), 10)
    assert target.served.rss_kb() - warm < 32 * 1024  # of 240 MB
    assert (await target.last_row())["outcome"] == "client_closed"
    writer.transport.abort()
    assert not reader.at_eof()


async def test_callers_that_leave_a_last_piece_unread_are_cut_off_too(target: Target) -> None:
    """What is left is less than what pauses writing, and the answer is over: nobody waits on."""
    before = established(target.served.port)
    callers = []
    for size in range(2_500_000, 3_000_000, 16_000):
        target.upstream.play(json_reply(completion("x" * size)))
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, ("127.0.0.1", target.served.port))
        await loop.sock_sendall(caller, target.fill(OK + CLOSE + with_length(BODY)))
        callers.append(caller)
        # One after the other: this is not about a crowd.
        assert await loop.sock_recv(caller, 1) == b"H"
    assert established(target.served.port) > before
    # After the deadline of 2 s, although not one of them has read or closed anything.
    await eventually(lambda: established(target.served.port) <= before, within=15)
    for caller in callers:
        caller.close()


def established(port: int) -> int:
    """TCP connections that the server holds open (the table's state 01)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)
