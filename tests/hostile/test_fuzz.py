"""What nobody thought of: requests made of the table's pieces, cut, swapped and repeated.

`make test` tries a hundred of each, `make fuzz` many thousand.
"""

import pytest
from fake_upstream import completion, json_reply
from hostile.target import (
    BODY,
    KEYS,
    OK,
    START,
    Target,
    answers,
    chunked,
    read_all,
    with_length,
)
from hostile.test_bodies import DEEP, INJECTED, NOT_JSON, UNTOUCHED, USER
from hostile.test_heads import MALFORMED, REFUSED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_bodies import ANY_BODIES, CHAT_BODIES

pytestmark = pytest.mark.asyncio(loop_scope="session")

GENTLE = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FIRST_LINES = [
    line + b"\r\n"
    for line in (
        b"POST /v1/chat/completions HTTP/1.1",
        b"POST /v1/chat/completions?intensity=lite HTTP/1.1",
        b"GET /v1/models HTTP/1.1",
        b"GET /v1/models/a%2Fb?x=%ff HTTP/1.1",
        b"GET /healthz HTTP/1.0",
        b"POST /nothing HTTP/1.1",
        b"DELETE /v1/chat/completions HTTP/1.1",
    )
]
HEADERS = [
    line + b"\r\n"
    for line in (
        b"Content-Type: application/json",
        b"content-type: Application/JSON",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: upgrade",
        b"Connection: authorization, x-provider-key",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Expect: 200-ok",
        b"X-Mintoken-Intensity: ultra",
        b"Accept-Encoding: gzip",
        b"X-Mintoken-Intensity: \xff",
        b"X-Caf\xc3\xa9: \xe9",
        b"X-Odd: \xff\xfe\t ",
        b"Content-Encoding: identity",
        b"Cookie: a=b",
        b"Range: bytes=0-1",
        b"TE: trailers",
        b"If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Content-Type: application/json;charset=",
    )
]
ENDS = [with_length(BODY), chunked(BODY), with_length(b""), chunked(b"{"), b"\r\n", b"\r\n" + BODY]
PIECES = [
    START, KEYS, OK, b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"Content-Length: ", b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0\r\n", b"\xff", b"Host: a\r\n", *HEADERS,
]  # fmt: skip
SEEDS = [*MALFORMED.values(), *(r.data for r in REFUSED.values() if len(r.data) < 20_000)]
STATUSES = {100, 200, 400, 401, 404, 405, 408, 413, 415, 417, 429, 431, 501, 503, 505}


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    """One to three requests that could be answered, on one connection."""
    asked = b""
    for _ in range(draw(st.integers(1, 3))):
        headers = draw(st.lists(st.sampled_from(HEADERS), max_size=4, unique=True))
        asked += draw(st.sampled_from(FIRST_LINES)) + b"Host: mintoken\r\n" + KEYS
        asked += b"".join(headers) + draw(st.sampled_from(ENDS))
    return asked


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A row of the table, or requests that are good; some spans are cut, doubled or replaced."""
    data = draw(st.sampled_from(SEEDS) | good_requests() | good_requests())
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        middle = draw(st.sampled_from([b"", data[start:end] * 2, piece]))
        data = data[:start] + middle + data[end:]
    return data


@GENTLE
@given(data=requests())
async def test_no_request_gets_more_than_an_answer(target: Target, data: bytes) -> None:
    """Whatever comes, what goes back is HTTP, and no mistake of ours."""
    target.next_address()
    reader, writer = await target.open()
    writer.write(target.fill(data))
    got = await read_all(reader, quiet_s=0.03)
    # Whoever still waits for more of the request learns that there is none.
    writer.write_eof()
    got += await read_all(reader, quiet_s=5)
    writer.transport.abort()
    for answer in answers(got):
        assert answer.status in STATUSES
        assert bool(answer.code) == (answer.status >= 400)
        assert b"canary" not in answer.body


def bodies() -> st.SearchStrategy[bytes]:
    known = [b.replace(b"@", USER) for b in (*NOT_JSON.values(), *UNTOUCHED.values(), BODY)]
    known += [b.replace(b"@", USER) for b in INJECTED.values()]
    known += [body[:2000] for body in DEEP.values()]
    return st.sampled_from(known) | CHAT_BODIES | ANY_BODIES


@st.composite
def damaged_bodies(draw: st.DrawFn) -> bytes:
    data = draw(bodies())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
    return data


@GENTLE
@given(body=damaged_bodies())
async def test_a_body_is_refused_or_reaches_the_provider_as_it_was(
    target: Target, body: bytes
) -> None:
    """But for the system text, which can be at one place only."""
    target.upstream.scripts.clear()
    target.upstream.play(json_reply(completion()))
    arrived = len(target.upstream.requests)
    answer = await target.chat(body)
    if answer.status == 400:
        assert answer.code in ("invalid_json", "json_too_deep")
        assert len(target.upstream.requests) == arrived
        return
    assert answer.status == 200
    sent = target.upstream.requests[-1].body
    assert len(target.upstream.requests) == arrived + 1
    if answer.headers["x-mintoken-intensity"] == "none":
        assert sent == body
    else:
        assert len(sent) > len(body)
        assert is_one_insertion(body, sent)


def is_one_insertion(short: bytes, long: bytes) -> bool:
    """Can `long` be made of `short` by putting one piece in?"""
    same = 0
    while same < len(short) and short[same] == long[same]:
        same += 1
    return long.endswith(short[same:])
