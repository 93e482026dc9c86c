"""Rows 28 to 30 of the table: what a provider, or what stands in its place, can do."""

import asyncio
import gzip
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from conftest import PROVIDER_CANARY, eventually
from fake_upstream import (
    CLOSE,
    DIE,
    DONE,
    END,
    STALL,
    Step,
    chunk,
    completion,
    delta,
    json_reply,
    reply,
    stream_head,
)
from hostile.target import BODY, LAG_BAR_MS, OK, Target, with_length
from hostile.target import CLOSE as HANG_UP

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAM = BODY[:-1] + b',"stream":true}'
SECRET = b"X-Echo: " + PROVIDER_CANARY.encode() + b"\r\n"
"""A provider may say the key back to us."""
HEAD = b"HTTP/1.1 200 OK\r\n" + SECRET + b"Content-Type: application/json\r\n"

NO_ANSWER: dict[str, tuple[Step, ...]] = {
    # row 28
    "a bad status line": (b"nonsense " + SECRET + b"\r\n",),
    "NUL in a header": (HEAD + b"X-A: \x00\r\nContent-Length: 2\r\n\r\n{}",),
    "a header of 9 KB": (HEAD + b"X-A: " + b"x" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}",),
    "302": (json_reply({}, status="302 Found", headers=[("Location", "http://127.0.0.1:1/")]),),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n",),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",),
    "HTML": (reply(b"<html>", content_type="text/html"),),
    "closes before headers": (CLOSE,),
    "closes inside the headers": (HEAD, CLOSE),
    "resets before headers": (DIE,),
    "two lengths": (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",),
    "a bad chunk size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46",),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ANSWER)
async def test_what_is_no_answer_is_a_502(target: Target, name: str) -> None:
    target.upstream.play(*NO_ANSWER[name], CLOSE)
    arrived = len(target.upstream.requests)
    answer = await target.chat(BODY)
    assert answer.status == 502
    assert answer.code == (
        "upstream_redirect" if name in ("302", "304") else "upstream_invalid_response"
    )
    assert answer.headers["x-should-retry"] == "false"
    assert len(target.upstream.requests) == arrived + 1, "it was asked again"
    row = await target.last_row()
    assert (row["status"], row["outcome"]) == (502, "upstream_error")


@pytest.mark.parametrize("method", [b"POST /v1/chat/completions", b"GET /v1/models"])
@pytest.mark.parametrize("end", [CLOSE, DIE])
async def test_nothing_is_asked_twice_on_a_connection_that_was_kept(
    target: Target, method: bytes, end: str
) -> None:
    """aiohttp itself would ask a GET again when a reused connection breaks."""
    target.upstream.play(json_reply(completion()))
    assert (await target.chat(BODY)).status == 200
    arrived = len(target.upstream.requests)
    target.upstream.play(end)
    body = with_length(BODY) if method.startswith(b"POST") else b"\r\n"
    request = OK.replace(b"POST /v1/chat/completions", method) + HANG_UP + body
    answer = await target.ask(request)
    assert (answer.status, answer.code) == (502, "upstream_invalid_response")
    assert len(target.upstream.requests) == arrived + 1


async def test_a_stall_before_the_headers_is_a_504(target: Target) -> None:
    target.upstream.play(STALL)
    answer = await target.chat(BODY)
    assert (answer.status, answer.code) == (504, "upstream_timeout")
    assert answer.headers["x-should-retry"] == "false"
    row = await target.last_row()
    assert (row["status"], row["outcome"]) == (504, "upstream_timeout")


@dataclass(frozen=True)
class Break:
    """An answer that begins well: what the provider does, what the caller is told, the row."""

    steps: tuple[Step, ...]
    outcome: str
    told: bool = False


LONG = HEAD + b"Content-Length: 500\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b'{"id":"chatcmpl-1",'
INSIDE = chunk(b'data: {"choi')
BREAKS = {
    # row 29
    "JSON of known length, closed": Break((LONG + PIECE, CLOSE), "upstream_broke"),
    "JSON of known length, reset": Break((LONG + PIECE, DIE), "upstream_broke"),
    "JSON of known length, stalled": Break((LONG + PIECE, STALL), "upstream_timeout"),
    "JSON in chunks, closed": Break((CHUNKED + chunk(PIECE), CLOSE), "upstream_broke"),
    "JSON in chunks, reset": Break((CHUNKED + chunk(PIECE), DIE), "upstream_broke"),
    "JSON in chunks, stalled": Break((CHUNKED + chunk(PIECE), STALL), "upstream_timeout"),
    "JSON in chunks, then garbage": Break((CHUNKED + chunk(PIECE), b"zz\r\n"), "upstream_broke"),
    "closed between events": Break((stream_head(), delta("a"), CLOSE), "upstream_broke", told=True),
    "reset between events": Break((stream_head(), delta("a"), DIE), "upstream_broke", told=True),
    "ended without [DONE]": Break((stream_head(), delta("a"), END), "upstream_broke", told=True),
    "stalled": Break((stream_head(), delta("a"), STALL), "upstream_timeout", told=True),
    "closed inside an event": Break((stream_head(), delta("a"), INSIDE, CLOSE), "upstream_broke"),
    "reset inside an event": Break((stream_head(), delta("a"), INSIDE, DIE), "upstream_broke"),
    "ended inside an event": Break((stream_head(), delta("a"), INSIDE, END), "upstream_broke"),
    "stalled inside one": Break((stream_head(), delta("a"), INSIDE, STALL), "upstream_timeout"),
    "a bad chunk": Break((stream_head(), delta("a"), b"zz\r\n"), "upstream_broke", told=True),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
async def test_a_broken_answer_never_ends_cleanly(target: Target, name: str) -> None:
    broken, seen = BREAKS[name], asyncio.Event()
    *begun, last = broken.steps
    target.upstream.play(*begun, seen, last, CLOSE)
    reader, writer = await target.open()
    body = STREAM if begun[0] == stream_head() else BODY
    writer.write(target.fill(OK + HANG_UP + with_length(body)))
    # What does not stream is held back until it is whole, or never will be.
    got = b""
    if body == STREAM:
        got = await reader.readuntil(b"chatcmpl-1")
    else:
        await asyncio.sleep(0.1)
    seen.set()
    got += await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    head, _, rest = got.partition(b"\r\n\r\n")
    if b"Content-Length: 500" in head:
        assert len(rest) < 500
    else:
        assert not got.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in got
    assert (broken.outcome.encode() in rest) == broken.told
    assert (b'"error"' in rest) == broken.told
    row = await target.last_row()
    assert (row["status"], row["outcome"]) == (200, broken.outcome)


def silent(step: Step) -> Step:
    """The same, without the key that the provider says back."""
    return step.replace(SECRET, b"") if isinstance(step, bytes) else step


async def test_no_fault_leaves_a_file_open(target: Target) -> None:
    """Three times all that can be played at once; one connection is kept for reuse."""
    files = Path(f"/proc/{target.worker}/fd")
    assert (await target.chat(BODY)).status == 200
    before = len(list(files.iterdir()))
    faults = [
        *NO_ANSWER.values(),
        *(one.steps for one in BREAKS.values() if STALL not in one.steps),
    ]
    for steps in faults * 3:
        target.upstream.play(*(silent(step) for step in steps), CLOSE)
        body = STREAM if steps[0] == stream_head() else BODY
        await target.exchange(OK + HANG_UP + with_length(body))
    await eventually(lambda: len(list(files.iterdir())) <= before + 1)


async def test_a_body_until_the_connection_closes_is_complete_json_or_nothing_is_promised(
    target: Target,
) -> None:
    """Without a length and without chunks, the end of the connection is the end of the body."""
    target.upstream.play(HEAD.replace(SECRET, b"") + b"\r\n" + orjson.dumps(completion()), CLOSE)
    answer = await target.chat(BODY)
    assert orjson.loads(answer.body) == completion()
    assert (await target.last_row())["output_tokens"] == 3


async def test_packed_though_nobody_asked_it_is_piped_and_counted(target: Target) -> None:
    packed = gzip.compress(orjson.dumps(completion()))
    target.upstream.play(reply(packed, headers=[("Content-Encoding", "gzip")]))
    answer = await target.chat(BODY, b"Accept-Encoding: identity\r\n")
    assert answer.body == packed
    assert answer.headers["content-encoding"] == "gzip"
    row = await target.last_row()
    assert (row["output_tokens"], row["counted_by"]) == (3, "upstream")


@pytest.mark.parametrize(
    ("kind", "body", "text", "counted_by"),
    [
        ("text/event-stream", STREAM, b"data: " + bytes(2**26), "estimate"),
        ("application/json", BODY, b'{"x":"' + b"a" * (2**25 - 100) + b'"}', "tiktoken"),
        ("application/json", BODY, b'{"x":"' + b"a" * 2**25 + b'"}', "estimate"),
    ],
    ids=["64 MiB of a stream", "JSON below the limit", "JSON above it"],
)
async def test_a_bomb_is_piped_and_holds_neither_the_loop_nor_much_memory(
    plain_target: Target, kind: str, body: bytes, text: bytes, counted_by: str
) -> None:
    packed = gzip.compress(text)
    head = stream_head(("Content-Encoding", "gzip")).replace(b"text/event-stream", kind.encode())

    async def explode() -> None:
        plain_target.upstream.play(head, chunk(packed), END)
        await plain_target.exchange(OK + HANG_UP + with_length(body))

    before = plain_target.served.forget_peak()
    for _ in range(10):
        if (worst := await plain_target.probe.worst_ms(explode)) < LAG_BAR_MS:
            break
    assert worst < LAG_BAR_MS
    assert plain_target.served.rss_kb("VmHWM") - before < 128 * 1024
    row = await plain_target.last_row()
    assert (row["counted_by"], row["bytes_out"]) == (counted_by, len(packed))


async def test_cookies_stay_here(target: Target) -> None:
    cookies = [("Set-Cookie", "a=b"), ("set-cookie2", "c=d")]
    target.upstream.play(json_reply(completion(), headers=cookies))
    answer = await target.chat(BODY)
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    await target.chat(BODY)
    assert target.upstream.requests[-1].header("Cookie") is None


PIECES = 256
MIB = bytes(b"x" * 2**20)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (stream_head(), STREAM),
        (stream_head().replace(b"text/event-stream", b"application/json"), BODY),
        (stream_head(("Content-Encoding", "gzip")), STREAM),
    ],
    ids=["one line of a stream", "one JSON text", "a packed stream"],
)
async def test_a_giant_answer_is_piped_with_memory_flat(
    target: Target, head: bytes, body: bytes
) -> None:
    """Row 30 has gibibytes; memory that is flat over 256 MiB is flat over more."""
    first = b"data: " if body is STREAM else b'{"x":"'
    target.upstream.play(head, chunk(first), *[chunk(MIB)] * PIECES, CLOSE)
    warm = target.served.rss_kb()
    reader, writer = await target.open()
    writer.write(target.fill(OK + HANG_UP + with_length(body)))
    size = most = 0
    while data := await reader.read(2**18):
        size += len(data)
        most = max(most, target.served.rss_kb() - warm)
    writer.close()
    assert size > PIECES * 2**20
    assert most < 8 * 1024
    row = await target.last_row()
    assert row["outcome"] == "upstream_broke"
    assert row["bytes_out"] >= PIECES * 2**20
    assert row["counted_by"] == "estimate"


async def test_done_is_the_end_however_the_connection_goes(target: Target) -> None:
    target.upstream.play(stream_head(), delta("a"), delta(finish="stop"), DONE, DIE)
    got = await target.exchange(OK + HANG_UP + with_length(STREAM))
    assert b"[DONE]" in got
    assert b'"error"' not in got
    assert (await target.last_row())["outcome"] == "ok"
