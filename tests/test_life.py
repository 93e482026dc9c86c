"""Whole requests over sockets, by the official client."""

import asyncio
import gzip
import zlib
from collections.abc import Callable

import brotli
import openai
import orjson
import pytest
from backports import zstd
from conftest import PROVIDER_CANARY, Proxy, StartProxy
from fake_upstream import (
    DONE,
    END,
    STALL,
    FakeUpstream,
    completion,
    delta,
    json_reply,
    reply,
    stream_head,
    usage_chunk,
)
from openai import OpenAI

from mintoken.models import Intensity
from mintoken.prompts import load_prompts

PROMPTS = load_prompts()
HELLO = [{"role": "user", "content": "Say hello."}]


async def test_a_chat_comes_back_as_the_provider_gave_it(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    async with proxy.client() as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == "Hello there."
    assert answer.usage.completion_tokens == 3
    sent = upstream.requests[0]
    assert (sent.method, sent.target) == ("POST", "/v1/chat/completions")
    assert sent.header("Authorization") == f"Bearer {PROVIDER_CANARY}"
    assert sent.header("X-Provider-Key") is None
    messages = orjson.loads(sent.body)["messages"]
    assert messages == [{"role": "system", "content": PROMPTS.text(Intensity.FULL)}, *HELLO]


async def test_the_synchronous_client_chats_and_streams(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    def talk() -> tuple[str, str]:
        headers = {"X-Provider-Key": PROVIDER_CANARY}
        with OpenAI(
            base_url=proxy.base_url, api_key=proxy.key, default_headers=headers, max_retries=0
        ) as client:
            whole = client.chat.completions.create(model="gpt-4o", messages=HELLO)
            stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            pieces = [part.choices[0].delta.content or "" for part in stream]
            return whole.choices[0].message.content, "".join(pieces)

    upstream.play(json_reply(completion("One.")))
    upstream.play(stream_head(), delta("Tw"), delta("o."), delta(finish="stop"), DONE, END)
    assert await asyncio.to_thread(talk) == ("One.", "Two.")
    rows = await proxy.settled(2)
    assert [row["outcome"] for row in rows] == ["ok", "ok"]
    assert [row["counted_by"] for row in rows] == ["upstream", "tiktoken"]


async def test_a_stream_arrives_chunk_by_chunk(proxy: Proxy, upstream: FakeUpstream) -> None:
    go_on = [asyncio.Event() for _ in range(3)]
    steps = [stream_head()]
    for number, gate in enumerate(go_on):
        steps += [delta(f"part {number}"), gate]
    upstream.play(*steps, delta(finish="stop"), usage_chunk(7, 9), DONE, END)
    async with proxy.client() as client:
        stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        parts = aiter(stream)
        for number, gate in enumerate(go_on):
            # The next chunk is not sent before this one has been seen here.
            part = await asyncio.wait_for(anext(parts), 5)
            assert part.choices[0].delta.content == f"part {number}"
            gate.set()
        rest = [part async for part in parts]
    assert rest[-1].usage.completion_tokens == 9
    (row,) = await proxy.settled()
    assert (row["input_tokens"], row["output_tokens"]) == (7, 9)
    assert (row["counted_by"], row["outcome"], row["finish_reason"]) == ("upstream", "ok", "stop")
    assert row["model_served"] == "gpt-4o-2024-08-06"


async def test_tools_json_mode_and_vision_pass_through(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    upstream.play(json_reply(completion(choices=[choice])))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": "Where is this?"}, image]
    async with proxy.client() as client:
        answer = await client.chat.completions.create(
            model="gpt-4o",
            messages=[
                {"role": "system", "content": "You see."},
                {"role": "user", "content": content},
            ],
            tools=[tool],
            response_format={"type": "json_object"},
        )
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Oslo"}'
    sent = orjson.loads(upstream.requests[0].body)
    assert sent["messages"][0]["content"] == f"You see.\n\n{PROMPTS.text(Intensity.FULL)}"
    assert sent["messages"][1]["content"] == content
    assert sent["tools"] == [tool]


async def test_headers_come_back_both_ways(proxy: Proxy, upstream: FakeUpstream) -> None:
    upstream.play(
        json_reply(
            completion(),
            headers=[
                ("x-request-id", "req_1"),
                ("x-ratelimit-remaining-requests", "99"),
                ("openai-processing-ms", "12"),
                ("Set-Cookie", "a=b"),
                ("X-Mintoken-Reason", "forged"),
                ("Connection", "x-secret-hop"),
                ("x-secret-hop", "1"),
            ],
        )
    )
    async with proxy.client(organization="org-1", project="proj-1") as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="gpt-4o",
            messages=HELLO,
            extra_headers={
                "X-Mintoken-Intensity": "ultra",
                "traceparent": "00-1",
                "Cookie": "c=1",
                "X-Forwarded-For": "1.2.3.4",
                "Idempotency-Key": "idem-1",
            },
            extra_query={"intensity": "lite", "beta": "a%2Fb"},
        )
    assert raw.headers["x-request-id"] == "req_1"
    assert raw.headers["x-ratelimit-remaining-requests"] == "99"
    assert raw.headers["openai-processing-ms"] == "12"
    assert raw.headers["X-Mintoken-Intensity"] == "ultra"
    assert raw.headers["X-Mintoken-Reason"] == "header"
    assert int(raw.headers["X-Mintoken-Duration-Ms"]) >= 0
    assert "X-Mintoken-Error" not in raw.headers
    assert raw.headers["Server"] == "mintoken"
    assert "X-Mintoken-Tokens-Used" not in raw.headers
    for name in ("set-cookie", "x-secret-hop"):
        assert name not in raw.headers
    sent = upstream.requests[0]
    assert sent.header("OpenAI-Organization") == "org-1"
    assert sent.header("OpenAI-Project") == "proj-1"
    assert sent.header("traceparent") == "00-1"
    assert sent.header("Idempotency-Key") == "idem-1"
    assert sent.header("X-Stainless-Lang") == "python"
    assert "openai" in (sent.header("User-Agent") or "").lower()
    assert sent.header("X-Client-Request-Id") == raw.headers["X-Mintoken-Request-Id"]
    for name in ("Cookie", "X-Forwarded-For", "X-Mintoken-Intensity"):
        assert sent.header(name) is None
    assert sent.target == "/v1/chat/completions?beta=a%252Fb"
    (row,) = await proxy.settled()
    assert row["id"] == raw.headers["X-Mintoken-Request-Id"]
    assert row["upstream_request_id"] == "req_1"


async def test_no_header_is_added_to_the_request(proxy: Proxy, upstream: FakeUpstream) -> None:
    data = b'{"model":"gpt-4o","messages":[]}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {proxy.key}\r\n"
        f"X-Provider-Key: {PROVIDER_CANARY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + data)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    sent = {name.lower() for name, _ in upstream.requests[0].headers}
    assert sent == {
        "host", "authorization", "content-type", "content-length", "x-client-request-id",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "query", "level", "reason"),
    [
        ({"X-Mintoken-Intensity": "lite"}, "", "lite", "header"),
        ({"X-Mintoken-Intensity": "none"}, "?intensity=ultra", "none", "header"),
        ({}, "?intensity=ultra", "ultra", "query"),
        ({}, "", "full", "key"),
    ],
)
async def test_the_level_is_chosen_by_header_then_query_then_key(
    proxy: Proxy,
    upstream: FakeUpstream,
    headers: dict[str, str],
    query: str,
    level: str,
    reason: str,
) -> None:
    body = b'{ "model": "gpt-4o", "messages": [{"role":"user","content":"x"}], "n": 1e0 }'
    answer = await proxy.session.post(
        f"{proxy.base_url}/chat/completions{query}",
        data=body,
        headers={"Content-Type": "application/json"} | proxy.headers | headers,
    )
    assert answer.headers["X-Mintoken-Intensity"] == level
    assert answer.headers["X-Mintoken-Reason"] == reason
    text = PROMPTS.text(Intensity(level))
    added = b'{"role":"system","content":' + orjson.dumps(text) + b"},"
    expected = body if level == "none" else body.replace(b"[", b"[" + added, 1)
    assert upstream.requests[0].body == expected
    (row,) = await proxy.settled()
    assert (row["intensity"], row["reason"]) == (level, reason)
    assert (row["injected_tokens"] > 0) == (level != "none")


async def test_broken_messages_go_upstream_untouched(proxy: Proxy, upstream: FakeUpstream) -> None:
    error = {"error": {"message": "bad", "type": "invalid_request_error", "code": None}}
    upstream.play(json_reply(error, status="400 Bad Request"))
    answer = await proxy.post(b'{"model":5,"messages":[ ]}')
    assert answer.status == 400
    assert await answer.json() == error
    assert answer.headers["X-Mintoken-Intensity"] == "none"
    assert answer.headers["X-Mintoken-Reason"] == "no_messages"
    assert upstream.requests[0].body == b'{"model":5,"messages":[ ]}'


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        ("400 Bad Request", openai.BadRequestError),
        ("401 Unauthorized", openai.AuthenticationError),
        ("429 Too Many Requests", openai.RateLimitError),
        ("500 Internal Server Error", openai.InternalServerError),
    ],
)
async def test_upstream_errors_are_relayed_with_body_and_headers(
    proxy: Proxy, upstream: FakeUpstream, status: str, exception: type[openai.APIStatusError]
) -> None:
    body = b'{ "error": {"message": "Of the provider", "type": "t", "param": null, "code": "c"}}'
    headers = [("retry-after", "7"), ("x-request-id", "req_9")]
    upstream.play(reply(body, status=status, headers=headers))
    async with proxy.client() as client:
        with pytest.raises(exception) as caught:
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert caught.value.response.content == body
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id == "req_9"
    assert "X-Mintoken-Error" not in caught.value.response.headers
    (row,) = await proxy.settled()
    assert row["status"] == int(status.split()[0])
    assert (row["outcome"], row["output_tokens"]) == ("upstream_error", 0)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstd.compress),
    ],
)
async def test_a_compressed_answer_stays_compressed_and_is_counted(
    proxy: Proxy, upstream: FakeUpstream, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(orjson.dumps(completion()))
    upstream.play(reply(packed, headers=[("Content-Encoding", encoding)]))
    async with proxy.session.post(
        f"{proxy.base_url}/chat/completions",
        json={"model": "gpt-4o", "messages": HELLO},
        headers=proxy.headers | {"Accept-Encoding": encoding},
        auto_decompress=False,
    ) as answer:
        assert answer.headers["Content-Encoding"] == encoding
        assert await answer.read() == packed
    assert upstream.requests[0].header("Accept-Encoding") == encoding
    (row,) = await proxy.settled()
    assert (row["output_tokens"], row["counted_by"]) == (3, "upstream")
    assert row["bytes_out"] == len(packed)


@pytest.mark.parametrize("encoding", ["gzip", "compress"])
async def test_an_answer_that_cannot_be_unpacked_is_relayed_and_estimated(
    proxy: Proxy, upstream: FakeUpstream, encoding: str
) -> None:
    upstream.play(reply(b"not packed at all", headers=[("Content-Encoding", encoding)]))
    async with proxy.session.post(
        f"{proxy.base_url}/chat/completions",
        json={"model": "gpt-4o", "messages": HELLO},
        headers=proxy.headers,
        auto_decompress=False,
    ) as answer:
        assert await answer.read() == b"not packed at all"
    (row,) = await proxy.settled()
    assert (row["outcome"], row["counted_by"]) == ("ok", "estimate")
    assert row["output_tokens"] > 0


async def test_models_are_relayed_and_leave_no_row(proxy: Proxy, upstream: FakeUpstream) -> None:
    model = {"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "openai"}
    upstream.play(json_reply({"object": "list", "data": [model]}))
    upstream.play(json_reply(model))
    async with proxy.client() as client:
        listed = await client.models.list()
        one = await client.models.retrieve("ft:gpt-4o:org::id")
    assert [m.id for m in listed.data] == ["gpt-4o"]
    assert one.id == "gpt-4o"
    assert [r.target for r in upstream.requests] == ["/v1/models", "/v1/models/ft:gpt-4o:org::id"]
    assert proxy.rows() == []


async def test_both_listeners_serve_health(proxy: Proxy) -> None:
    for url in (proxy.url, proxy.admin_url):
        for path in ("/healthz", "/readyz"):
            async with proxy.session.get(url + path) as answer:
                assert answer.status == 200
        async with proxy.session.get(f"{url}/metrics") as answer:
            assert answer.status == 404


async def test_a_stalled_upstream_is_a_504_in_time(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(upstream_first_byte_timeout=0.2)
    upstream.play(STALL)
    async with proxy.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert caught.value.status_code == 504
    assert caught.value.code == "upstream_timeout"
    assert caught.value.response.headers["x-should-retry"] == "false"
    (row,) = await proxy.settled()
    assert (row["status"], row["outcome"]) == (504, "upstream_timeout")


async def test_the_log_says_who_and_how_much_and_nothing_else(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    answer = await proxy.post()
    await proxy.settled()
    (line,) = [line for line in proxy.log_lines() if line["event"] == "request"]
    assert line["id"] == answer.headers["X-Mintoken-Request-Id"]
    assert line["key"].startswith("key_")
    assert (line["status"], line["code"], line["outcome"]) == (200, None, "ok")
    assert (line["input_tokens"], line["output_tokens"]) == (10, 3)
    assert "hello" not in str(line).lower()


# --- Which level runs -----------------------------------------------------------------------------


def conversation(*turns: str) -> dict[str, object]:
    messages = []
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "Well."}]
    return {"model": "gpt-4o", "messages": messages[:-1]}


async def test_the_level_follows_what_is_asked_and_the_reason_is_told_and_recorded(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(key={"smart": True, "intensity": Intensity.ULTRA})
    told = []
    for text in ("Translate this into German: hello", "What is a mutex?", "Name my cat."):
        answer = await proxy.post(conversation(text))
        told.append((answer.headers["X-Mintoken-Intensity"], answer.headers["X-Mintoken-Reason"]))
    assert told == [("none", "detect:translate"), ("full", "detect:explanation"), ("ultra", "key")]
    rows = await proxy.settled(3)
    assert [(row["intensity"], row["reason"]) for row in rows] == told
    translated, explained, _ = (orjson.loads(sent.body)["messages"] for sent in upstream.requests)
    assert translated == conversation("Translate this into German: hello")["messages"]
    assert explained[0]["content"] == PROMPTS.text(Intensity.FULL)


async def test_the_level_holds_for_the_conversation_on_every_worker(
    start_proxy: StartProxy,
) -> None:
    turns = ("What is a mutex?", "Name my cat.", "Write a letter to my aunt.", "What is a cat?")
    wanted = ["detect:explanation"] * 2 + ["detect:draft"] * 2
    key = {"smart": True}
    first = await start_proxy(key=key)
    told = [
        (await first.post(conversation(*turns[:at]))).headers["X-Mintoken-Reason"]
        for at in range(1, 5)
    ]
    assert told == wanted
    for at in range(1, 5):  # each of these has seen nothing of the conversation
        another = await start_proxy(key=key)
        answer = await another.post(conversation(*turns[:at]))
        assert answer.headers["X-Mintoken-Reason"] == wanted[at - 1]


@pytest.mark.parametrize(
    ("key", "headers", "reason"),
    [
        ({"smart": False}, {}, "key"),
        ({"smart": True}, {"X_Mintoken_Intensity": "full"}, "header"),
        ({"smart": True}, {}, "detect:translate"),
    ],
)
async def test_detection_is_asked_only_where_nothing_stronger_speaks(
    start_proxy: StartProxy, key: dict[str, bool], headers: dict[str, str], reason: str
) -> None:
    proxy = await start_proxy(key=key)
    answer = await proxy.post(conversation("Translate this into German: hello"), **headers)
    assert answer.headers["X-Mintoken-Reason"] == reason


async def test_a_large_body_is_understood_too(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"smart": True})
    answer = await proxy.post(conversation("x " * 400_000 + "\nTranslate this into German."))
    assert answer.headers["X-Mintoken-Reason"] == "detect:translate"


async def test_where_nothing_can_be_added_nothing_is_detected(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"smart": True})
    answer = await proxy.post({"model": "gpt-4o", "messages": []})
    assert answer.headers["X-Mintoken-Reason"] == "no_messages"
