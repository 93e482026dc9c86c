"""Every row of contract §4: the status, the code, and a message that helps."""

import asyncio
from typing import Any

import openai
import orjson
import pytest
from conftest import CHAT, PROVIDER_CANARY, Proxy, StartProxy
from fake_upstream import CLOSE, STALL, FakeUpstream, json_reply, reply

from mintoken.errors import Code
from mintoken.keys import mint_key
from mintoken.rates import FAILURES_PER_MINUTE

JSON = {"Content-Type": "application/json"}


def assert_error(answer: Any, body: bytes, code: Code) -> None:
    assert answer.status == code.status
    assert answer.headers["X-Mintoken-Error"] == code.code
    error = orjson.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code.code, code.type)
    assert error["message"].startswith(code.message[:20])
    assert PROVIDER_CANARY.encode() not in body
    assert b"mt_live_" not in body.replace(b"mt_live_...", b"")


async def ask(proxy: Proxy, headers: Any, body: bytes = b"{}", path: str = "") -> Any:
    answer = await proxy.session.post(
        proxy.base_url + (path or "/chat/completions"), data=body, headers=headers
    )
    return answer, await answer.read()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Code.MISSING_API_KEY),
        ("", Code.MISSING_API_KEY),
        ("Basic abc", Code.MISSING_API_KEY),
        ("Bearer", Code.MISSING_API_KEY),
        ("Bearer sk-something", Code.INVALID_API_KEY),
        ("Bearer  mt_live_x", Code.INVALID_API_KEY),
        ("Bearer ' OR 1=1 --", Code.INVALID_API_KEY),
        (f"Bearer {mint_key()}", Code.INVALID_API_KEY),
    ],
)
async def test_who_is_not_known_gets_401(proxy: Proxy, value: str | None, code: Code) -> None:
    headers = JSON | {"X-Provider-Key": PROVIDER_CANARY}
    if value is not None:
        headers["Authorization"] = value
    answer, body = await ask(proxy, headers)
    assert_error(answer, body, code)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert proxy.rows() == []


@pytest.mark.parametrize(
    ("field", "code"),
    [("revoked_at", Code.REVOKED_API_KEY), ("expires_at", Code.EXPIRED_API_KEY)],
)
async def test_a_revoked_or_expired_key_is_told_apart(
    start_proxy: StartProxy, field: str, code: Code
) -> None:
    proxy = await start_proxy(key={field: 1})
    answer, body = await ask(proxy, JSON | proxy.headers)
    assert_error(answer, body, code)


async def test_the_official_client_raises_authentication_error(proxy: Proxy) -> None:
    async with proxy.client(api_key="sk-not-a-mintoken-key") as client:
        with pytest.raises(openai.AuthenticationError, match="This Mintoken key is not known"):
            await client.models.list()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Code.MISSING_PROVIDER_KEY),
        ("", Code.INVALID_PROVIDER_KEY),
        ("short", Code.INVALID_PROVIDER_KEY),
        ("sk-" + "x" * 510, Code.INVALID_PROVIDER_KEY),
        ("sk-with a space", Code.INVALID_PROVIDER_KEY),
        ("sk-ümlaut-key", Code.INVALID_PROVIDER_KEY),
        ("mt_live_somebody", Code.INVALID_PROVIDER_KEY),
    ],
)
async def test_the_provider_key_is_checked(proxy: Proxy, value: str | None, code: Code) -> None:
    headers = JSON | {"Authorization": f"Bearer {proxy.key}"}
    if value is not None:
        headers["X-Provider-Key"] = value
    answer, body = await ask(proxy, headers)
    assert_error(answer, body, code)


@pytest.mark.parametrize("name", ["Authorization", "X-Provider-Key", "X-Mintoken-Intensity"])
async def test_a_header_sent_twice_is_refused(proxy: Proxy, name: str) -> None:
    pairs = [*JSON.items(), *proxy.headers.items(), ("X-Mintoken-Intensity", "lite")]
    pairs.append((name, dict(pairs)[name]))
    answer, body = await ask(proxy, pairs)
    assert_error(answer, body, Code.DUPLICATE_HEADER)


async def test_an_unknown_level_is_refused(proxy: Proxy) -> None:
    for headers, query in (({"X-Mintoken-Intensity": "max"}, ""), ({}, "?intensity=max")):
        answer, body = await ask(
            proxy, JSON | proxy.headers | headers, b"{}", f"/chat/completions{query}"
        )
        assert_error(answer, body, Code.INVALID_INTENSITY)


async def test_unknown_paths_and_methods(proxy: Proxy) -> None:
    for path in (
        "/v1/nothing",
        "/v1/chat/completions/",
        "/api/nothing",
        "//v1/models",
    ):
        async with proxy.session.get(proxy.url + path) as answer:
            assert_error(answer, await answer.read(), Code.NOT_FOUND)
    for method in ("GET", "PUT", "TRACE", "HEAD"):
        async with proxy.session.request(method, f"{proxy.base_url}/chat/completions") as answer:
            assert answer.headers["Allow"] == "POST"
            if method != "HEAD":
                assert_error(answer, await answer.read(), Code.METHOD_NOT_ALLOWED)


async def test_a_body_over_the_limit_is_refused_before_it_is_read(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(server_max_body_bytes=100_000)
    head, body = await raw(proxy, ["Content-Length: 10737418240"], b"")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "100000" in orjson.loads(body)["error"]["message"]
    head, body = await raw(proxy, ["Content-Length: 10737418240", "Expect: 100-continue"], b"")
    assert head.startswith(b"HTTP/1.1 413 ")
    chunks = (b"20000\r\n" + b" " * 0x20000 + b"\r\n") + b"0\r\n\r\n"
    head, body = await raw(proxy, ["Transfer-Encoding: chunked"], chunks)
    assert head.startswith(b"HTTP/1.1 413 ")


async def test_too_many_buffered_bodies_are_refused(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(server_max_buffered_bytes=100_000, server_max_body_bytes=100_000)
    upstream.play(STALL)
    big = CHAT | {"padding": "x" * 60_000}
    first = asyncio.create_task(proxy.post(big))
    await upstream.received(1)
    second = await proxy.post(big)
    assert_error(second, await second.read(), Code.OVERLOADED)
    assert second.headers["Retry-After"] == "1"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await proxy.settled()
    assert (await proxy.post(big)).status == 200


async def test_a_missing_content_type_is_refused(proxy: Proxy) -> None:
    head, body = await raw(proxy, ["Content-Length: 2"], b"{}", content_type=None)
    assert head.startswith(b"HTTP/1.1 415 ")
    assert orjson.loads(body)["error"]["code"] == "unsupported_media_type"


async def test_a_used_up_quota_is_a_429_that_nobody_retries(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(monthly_tokens=3)
    async with proxy.client(max_retries=3) as client:
        await client.chat.completions.create(**CHAT)
        await proxy.settled()
        with pytest.raises(openai.RateLimitError, match="quota") as caught:
            await client.chat.completions.create(**CHAT)
    assert caught.value.code == "insufficient_quota"
    headers = caught.value.response.headers
    assert headers["x-should-retry"] == "false"
    assert 0 < int(headers["Retry-After"]) <= 31 * 86_400
    assert (headers["X-Mintoken-Tokens-Used"], headers["X-Mintoken-Tokens-Limit"]) == ("3", "3")
    lines = [line for line in proxy.log_lines() if line.get("status") == 429]
    assert len(lines) == 1, "the official client must not have tried again"
    assert len(proxy.rows()) == len(upstream.requests) == 1


async def test_the_rate_of_a_key_is_limited(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"rpm": 2})
    answers = [await proxy.post() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert_error(answers[2], await answers[2].read(), Code.RATE_LIMIT_EXCEEDED)
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 30


async def test_failures_of_an_address_are_limited_and_harm_no_good_key(proxy: Proxy) -> None:
    wrong = {"Authorization": f"Bearer {mint_key()}"}
    answers = [await proxy.post(**wrong) for _ in range(FAILURES_PER_MINUTE + 1)]
    assert {answer.status for answer in answers[:-1]} == {401}
    assert_error(answers[-1], await answers[-1].read(), Code.RATE_LIMIT_EXCEEDED)
    assert answers[-1].headers["x-ratelimit-limit-requests"] == str(FAILURES_PER_MINUTE)
    assert (await proxy.post()).status == 200


async def test_the_concurrency_of_a_key_is_limited(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(key={"concurrency": 1})
    gate = asyncio.Event()
    upstream.play(gate, *upstream.default)
    first = asyncio.create_task(proxy.post())
    await upstream.received(1)
    assert (await proxy.post()).status == 429
    gate.set()
    assert (await first).status == 200
    assert (await proxy.post()).status == 200


@pytest.mark.parametrize(
    ("answer_bytes", "code"),
    [
        (b"", Code.UPSTREAM_INVALID_RESPONSE),
        (b"garbage\r\n\r\n", Code.UPSTREAM_INVALID_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nX-A: \x00\r\n\r\n", Code.UPSTREAM_INVALID_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 9000 + b"\r\n\r\n", Code.UPSTREAM_INVALID_RESPONSE),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Code.UPSTREAM_INVALID_RESPONSE),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Code.UPSTREAM_INVALID_RESPONSE),
        (reply(b"<html>", content_type="text/html"), Code.UPSTREAM_INVALID_RESPONSE),
        (
            json_reply({}, status="302 Found", headers=[("Location", "http://127.0.0.1:1/")]),
            Code.UPSTREAM_REDIRECT,
        ),
    ],
)
async def test_an_upstream_that_does_not_answer_properly_is_a_502(
    proxy: Proxy, upstream: FakeUpstream, answer_bytes: bytes, code: Code
) -> None:
    upstream.play(answer_bytes, CLOSE)
    answer = await proxy.post()
    assert_error(answer, await answer.read(), code)
    assert answer.headers["x-should-retry"] == "false"
    (row,) = await proxy.settled()
    assert (row["status"], row["outcome"]) == (502, "upstream_error")


async def test_an_upstream_that_refuses_is_a_502_worth_a_retry(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(upstream_base_url="http://127.0.0.1:1/v1")
    answer = await proxy.post()
    assert_error(answer, await answer.read(), Code.UPSTREAM_UNREACHABLE)
    assert answer.headers["x-should-retry"] == "true"
    (row,) = await proxy.settled()
    assert (row["status"], row["outcome"]) == (502, "upstream_error")


async def raw(
    proxy: Proxy, lines: list[str], body: bytes, *, content_type: str | None = "application/json"
) -> tuple[bytes, bytes]:
    """A chat request over a bare socket with these header lines."""
    named = {line.split(":")[0] for line in lines}
    good = proxy.headers | ({"Content-Type": content_type} if content_type else {})
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: mintoken",
        *(f"{name}: {value}" for name, value in good.items() if name not in named),
        *lines,
        "Connection: close",
    ]
    return await send(proxy, "\r\n".join([*head, "", ""]).encode() + body)


async def send(proxy: Proxy, data: bytes) -> tuple[bytes, bytes]:
    """These bytes over a bare socket: the head of what comes back, and the rest."""
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return head, rest
