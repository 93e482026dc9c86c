"""Rows 1 to 17 of the table: request lines and headers that nobody should send."""

import asyncio
import gzip
import statistics
from dataclasses import dataclass

import pytest
from conftest import add_key
from hostile.target import (
    BODY,
    CLOSE,
    JSON,
    KEYS,
    OK,
    START,
    Target,
    answers,
    chunked,
    with_length,
)

from mintoken.keys import mint_key

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: mintoken\r\n\r\n"
LENGTH = len(BODY)


def length(value: bytes) -> bytes:
    return b"Content-Length: %b\r\n" % value


def coding(value: bytes, body: bytes = b"%x\r\n%b\r\n0\r\n\r\n" % (LENGTH, BODY)) -> bytes:
    return OK + b"Transfer-Encoding: %b\r\n\r\n" % value + body


def chunks(body: bytes) -> bytes:
    return coding(b"chunked", body)


def header(line: bytes) -> bytes:
    return OK + line + b"\r\n" + with_length(BODY)


def line(first: bytes, host: bytes = b"Host: mintoken\r\n") -> bytes:
    return first + b"\r\n" + host + KEYS + JSON + with_length(BODY)


MALFORMED = {
    # row 1
    "a length and chunks": OK + length(b"%d" % LENGTH) + chunked(BODY) + SMUGGLED,
    "chunks and a length": OK + b"Transfer-Encoding: chunked\r\n" + with_length(BODY) + SMUGGLED,
    "two equal lengths": OK + length(b"%d" % LENGTH) + with_length(BODY) + SMUGGLED,
    "two lengths": OK + length(b"5") + with_length(BODY) + SMUGGLED,
    "a length with a plus": OK + length(b"+%d" % LENGTH) + b"\r\n" + BODY,
    "a negative length": OK + length(b"-1") + b"\r\n" + BODY,
    "a hexadecimal length": OK + length(b"0x2") + b"\r\n{}",
    "a list of lengths": OK + length(b"2, 2") + b"\r\n{}",
    "an overflowing length": OK + length(b"9" * 23) + b"\r\n{}",
    # row 2
    "an unknown coding": coding(b"xchunked"),
    "chunked before identity": coding(b"chunked, identity"),
    "chunked twice": coding(b"chunked, chunked"),
    "chunked in two headers": coding(b"chunked\r\nTransfer-Encoding: chunked"),
    "gzip before chunked": coding(b"gzip, chunked"),
    "a space before the colon": OK + b"Transfer-Encoding : chunked\r\n" + with_length(BODY),
    # row 3
    "a bad chunk size": chunks(b"zz\r\n{}\r\n0\r\n\r\n"),
    "a negative chunk size": chunks(b"-2\r\n{}\r\n0\r\n\r\n"),
    "an overflowing chunk size": chunks(b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n"),
    "chunks with bare line feeds": chunks(b"2\n{}\n0\n\n"),
    "a newline in a chunk extension": chunks(b"2;a\n=b\r\n{}\r\n0\r\n\r\n"),
    "a length in a trailer": chunks(b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"),
    # row 4
    "bare line feeds": OK.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
    "a folded header": header(b"X-Folded: a\r\n b"),
    "a header without a colon": header(b"X-Nothing"),
    "a control character in a name": header(b"X-\x01: a"),
    "140 headers": header(b"\r\n".join(b"X-%d: a" % number for number in range(140))),
    "9,000 bytes of header": header(b"X-Big: " + b"x" * 9000),
    "9,000 bytes of target": line(b"POST /" + b"x" * 9000 + b" HTTP/1.1"),
    "an unknown method": line(b"BREW /v1/chat/completions HTTP/1.1"),
    # row 5
    "NUL in the provider key": header(b"X-Provider-Key: @PROVIDER@\x00"),
    "CR in the provider key": header(b"X-Provider-Key: @PROVIDER@\rX: y"),
    # row 7
    "no host": line(b"POST /v1/chat/completions HTTP/1.1", b""),
    "two hosts": line(b"POST /v1/chat/completions HTTP/1.1", b"Host: a\r\nHost: b\r\n"),
    "a host with a fragment": line(b"POST /v1/chat/completions HTTP/1.1", b"Host: h/#@evil\r\n"),
    "an absolute target": line(b"POST http://evil.example/v1/chat/completions HTTP/1.1"),
    "a fragment in the target": line(b"POST /v1/chat/completions#frag HTTP/1.1"),
    # row 8
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2.0": line(b"POST /v1/chat/completions HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(range(189)),
}
STATUSES = {400, 431, 501, 505}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_not_http_is_refused_once_and_the_connection_closed(
    target: Target, name: str
) -> None:
    arrived = len(target.upstream.requests)
    answer = await target.ask(MALFORMED[name])
    assert answer.status in STATUSES
    assert answer.code in ("bad_request", "header_too_large")
    assert len(target.upstream.requests) == arrived


@dataclass(frozen=True)
class Refusal:
    """A request in good HTTP, and the answer that it gets before its body is read."""

    data: bytes
    status: int
    code: str


def as_key(value: bytes) -> bytes:
    """A request whose Authorization is this."""
    return START + b"Authorization: " + value + b"\r\nX-Provider-Key: @PROVIDER@\r\n" + JSON


def as_provider(value: bytes) -> bytes:
    return START + b"Authorization: Bearer @KEY@\r\nX-Provider-Key: " + value + b"\r\n" + JSON


END = CLOSE + with_length(BODY)
HUGE = b"Content-Length: 10737418240\r\n\r\n"
UNKNOWN = b"Bearer " + mint_key().encode()
NO_KEY = START + b"X-Provider-Key: @PROVIDER@\r\n" + JSON
NO_PROVIDER = START + b"Authorization: Bearer @KEY@\r\n" + JSON
REFUSED = {
    # row 6
    "bytes beyond ASCII": Refusal(as_provider(b"sk-12345\xff") + END, 400, "invalid_provider_key"),
    "an empty key": Refusal(as_provider(b"") + END, 400, "invalid_provider_key"),
    "5,000 characters": Refusal(as_provider(b"k" * 5000) + END, 400, "invalid_provider_key"),
    "a space in it": Refusal(as_provider(b"sk-1234 5678") + END, 400, "invalid_provider_key"),
    "a key of ours": Refusal(as_provider(b"@KEY@") + END, 400, "invalid_provider_key"),
    "no provider key": Refusal(NO_PROVIDER + END, 400, "missing_provider_key"),
    # row 12
    "10 GiB announced": Refusal(OK + HUGE, 413, "request_too_large"),
    # row 13
    "10 GiB expected": Refusal(OK + b"Expect: 100-continue\r\n" + HUGE, 413, "request_too_large"),
    "another expectation": Refusal(OK + b"Expect: 200-ok\r\n" + END, 417, "expectation_failed"),
    # row 14
    "garbage as gzip": Refusal(
        OK + b"Content-Encoding: gzip\r\n" + END, 415, "unsupported_content_encoding"
    ),
    "a gzip bomb": Refusal(
        OK + b"Content-Encoding: gzip\r\n" + CLOSE + with_length(gzip.compress(bytes(2**26))),
        415,
        "unsupported_content_encoding",
    ),
    # row 15
    "no authorization": Refusal(NO_KEY + END, 401, "missing_api_key"),
    "another scheme": Refusal(as_key(b"Basic bXQ6eA==") + END, 401, "missing_api_key"),
    "two spaces": Refusal(as_key(b"Bearer  @KEY@") + END, 401, "invalid_api_key"),
    "8 KB of token": Refusal(as_key(b"Bearer " + b"k" * 8000) + END, 401, "invalid_api_key"),
    "SQL": Refusal(as_key(b"Bearer ' OR 1=1; DROP TABLE keys --") + END, 401, "invalid_api_key"),
    "an unknown key": Refusal(as_key(UNKNOWN) + END, 401, "invalid_api_key"),
    "two authorizations": Refusal(
        OK + b"Authorization: Bearer @KEY@\r\n" + END, 400, "duplicate_header"
    ),
    "a bad key before a huge body": Refusal(
        as_key(b"Bearer x") + HUGE, 401, "invalid_api_key"
    ),
    # row 16
    "the key in the query": Refusal(
        b"POST /v1/chat/completions?api_key=@KEY@&key=@PROVIDER@ HTTP/1.1\r\nHost: mintoken\r\n"
        b"X-Provider-Key: @PROVIDER@\r\n" + JSON + END,
        401,
        "missing_api_key",
    ),
    # row 17
    "plain text": Refusal(
        START + KEYS + b"Content-Type: text/plain\r\n" + END, 415, "unsupported_media_type"
    ),
    "a form": Refusal(
        START + KEYS + b"Content-Type: multipart/form-data; boundary=x\r\n" + END,
        415,
        "unsupported_media_type",
    ),
    "UTF-16": Refusal(
        START + KEYS + b"Content-Type: application/json; charset=utf-16\r\n" + END,
        415,
        "unsupported_media_type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_let_in_is_refused_before_its_body_is_read(
    target: Target, name: str
) -> None:
    refusal = REFUSED[name]
    arrived = len(target.upstream.requests)
    answer = await target.ask(refusal.data)
    assert (answer.status, answer.code) == (refusal.status, refusal.code)
    assert len(target.upstream.requests) == arrived


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"revoked_at": 1}, "revoked_api_key"),
        ({"expires_at": 1}, "expired_api_key"),
    ],
)
async def test_a_key_that_has_ended_is_refused(
    target: Target, change: dict[str, int], code: str
) -> None:
    ended = await add_key(target.served.data_dir, **change)
    data = as_key(b"Bearer " + ended.encode()) + END
    answer = await target.ask(data)
    while answer.code == "invalid_api_key":  # The server reads the new key within a second.
        await asyncio.sleep(0.05)
        answer = await target.ask(data)
    assert (answer.status, answer.code) == (401, code)


async def test_a_wrong_key_and_an_unknown_one_get_the_same_answer(target: Target) -> None:
    key = target.served.key
    flipped = key[:-1] + ("a" if key[-1] != "a" else "b")
    wrong = await target.ask(as_key(b"Bearer " + flipped.encode()) + END)
    unknown = await target.ask(as_key(UNKNOWN) + END)
    assert (wrong.status, wrong.body) == (unknown.status, unknown.body)
    assert set(wrong.headers) == set(unknown.headers)
    took = {"wrong": [], "unknown": []}
    for _ in range(20):
        for name, value in (("wrong", b"Bearer " + flipped.encode()), ("unknown", UNKNOWN)):
            answer = await target.ask(as_key(value) + END)
            took[name].append(int(answer.headers["x-mintoken-duration-ms"]))
    assert abs(statistics.median(took["wrong"]) - statistics.median(took["unknown"])) <= 1


@pytest.mark.parametrize(
    ("first", "status", "allow"),
    [
        # row 9
        (b"POST //v1/chat/completions", 404, None),
        (b"POST /v1/chat/completions/", 404, None),
        (b"POST /v1/%2e%2e/v1/chat/completions", 404, None),
        (b"POST /v1%2fchat%2fcompletions", 404, None),
        (b"POST /v1/../healthz", 404, None),
        # row 10
        (b"GET /v1/chat/completions", 405, "POST"),
        (b"PUT /v1/chat/completions", 405, "POST"),
        (b"TRACE /v1/chat/completions", 405, "POST"),
        (b"OPTIONS /v1/chat/completions", 405, "POST"),
    ],
)
async def test_other_paths_and_methods(
    target: Target, first: bytes, status: int, allow: str | None
) -> None:
    head = first + b" HTTP/1.1\r\nHost: mintoken\r\n" + KEYS + JSON
    answer = await target.ask(head + CLOSE + with_length(BODY))
    assert answer.status == status
    assert answer.code == {404: "not_found", 405: "method_not_allowed"}[status]
    assert answer.headers.get("allow") == allow


async def test_expectations_are_refused_alike_wherever(target: Target) -> None:
    for path in (b"/nothing", b"/healthz", b"/v1/models"):
        head = b"GET " + path + b" HTTP/1.1\r\nHost: mintoken\r\nExpect: 200-ok\r\n"
        answer = await target.ask(head + CLOSE + b"\r\n")
        assert (answer.status, answer.code) == (417, "expectation_failed")


async def test_a_host_decides_nothing(target: Target) -> None:
    data = OK.replace(b"Host: mintoken", b"Host: [2001:db8::1]:99") + CLOSE + with_length(BODY)
    assert (await target.ask(data)).status == 200


async def test_a_header_just_under_the_limit_is_taken(target: Target) -> None:
    assert (await target.chat(BODY, b"X-Big: " + b"x" * 8100 + b"\r\n")).status == 200


async def test_an_expectation_is_met_once_the_keys_are_good(target: Target) -> None:
    """Row 13: no `100 Continue` before that."""
    expecting = b"Expect: 100-continue\r\n" + CLOSE + with_length(BODY)
    go_on, answer = answers(await target.exchange(OK + expecting))
    assert (go_on.status, answer.status) == (100, 200)
    assert (await target.ask(as_key(b"Bearer x") + expecting)).status == 401


async def test_an_expectation_in_http_1_0_is_ignored(target: Target) -> None:
    head = OK.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\n"
    assert (await target.ask(head + with_length(BODY))).status == 200


async def test_slow_headers_are_given_up(target: Target) -> None:
    """Row 11, with a deadline of 2 s: a byte each half second does not put it off."""
    head = [OK[at : at + 1] for at in range(40)]
    answer = await target.ask(*head, gap=0.5, within=5)
    assert (answer.status, answer.code) == (408, "request_timeout")


async def test_a_slow_body_is_given_up(target: Target) -> None:
    """Row 11, with a deadline of 3 s."""
    body = [BODY[at : at + 1] for at in range(len(BODY))]
    announced = OK + b"Content-Length: %d\r\n\r\n" % len(BODY)
    answer = await target.ask(announced, *body, gap=0.5, within=7)
    assert (answer.status, answer.code) == (408, "request_timeout")


async def test_64_mib_in_chunks_are_refused_at_the_limit(target: Target) -> None:
    """Row 12: what is buffered beyond the limit is what is on its way, no more."""
    before = target.served.forget_peak()
    piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    following = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: mintoken\r\n" + CLOSE + b"\r\n"
    refusal, next_one = answers(await target.exchange(head, *[piece] * 64, following))
    assert (refusal.status, refusal.code) == (413, "request_too_large")
    assert next_one.status == 200
    assert target.served.rss_kb("VmHWM") - before < (32 + 16) * 1024
