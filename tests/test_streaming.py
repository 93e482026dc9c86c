"""Streams: unmodified, watched, and never taken for complete when they are not."""

import asyncio
import statistics
import time
import zlib

import openai
import pytest
from conftest import CHAT, Proxy, StartProxy
from fake_upstream import (
    CLOSE,
    DIE,
    DONE,
    END,
    STALL,
    FakeUpstream,
    Step,
    chunk,
    completion,
    delta,
    event,
    json_reply,
    reply,
    stream_head,
    usage_chunk,
)

from mintoken.models import Intensity
from mintoken.prompts import load_prompts
from mintoken.tokens import Tokenizer

STREAM = CHAT | {"stream": True}


async def raw_stream(proxy: Proxy, body: object = STREAM) -> tuple[bytes, bytes]:
    """One streamed request over a bare socket: the head and everything after it."""
    import orjson

    data = orjson.dumps(body)
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: mintoken",
        *(f"{name}: {value}" for name, value in proxy.headers.items()),
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        "Connection: close",
    ]
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return head, rest


async def test_every_byte_of_a_stream_is_relayed_as_it_came(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    odd = (
        b": a comment\r\n\r\n"
        b'event: message\nid: 7\ndata: {"choices":[{"delta":{"content":"a\\u0062"}}],"x":1e5}\n\n'
        b'unknown: field\r\ndata: {"choices":[]}\r\n\r\n'
        b"data: [DONE]\n\n"
    )
    upstream.play(stream_head(), *(chunk(odd[i : i + 7]) for i in range(0, len(odd), 7)), END)
    answer = await proxy.post(STREAM)
    assert await answer.read() == odd
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Cache-Control"] == "no-cache"
    (row,) = await proxy.settled()
    assert (row["outcome"], row["bytes_out"]) == ("ok", len(odd))


async def test_chunks_of_one_byte_lose_none_however_many_come_at_once(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    whole = b"".join(event({"n": number}) for number in range(10_000)) + b"data: [DONE]\n\n"
    upstream.play(stream_head(), b"".join(chunk(whole[i : i + 1]) for i in range(len(whole))), END)
    answer = await proxy.post(STREAM)
    assert await answer.read() == whole
    assert (await proxy.settled())[0]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("steps", "said", "ends_inside"),
    [
        ((delta("one"), DIE), b"upstream_broke", False),
        ((delta("one"), CLOSE), b"upstream_broke", False),
        ((delta("one"), END), b"upstream_broke", False),
        ((delta("one"), STALL), b"upstream_timeout", False),
        ((delta("one"), chunk(b'data: {"choi'), CLOSE), b"", True),
        ((delta("one"), chunk(b'data: {"choi'), END), b"", True),
    ],
    ids=["reset", "closed", "no done", "stall", "closed inside", "ended inside"],
)
async def test_a_broken_stream_never_ends_cleanly(
    start_proxy: StartProxy,
    upstream: FakeUpstream,
    steps: tuple[Step, ...],
    said: bytes,
    ends_inside: bool,
) -> None:
    proxy = await start_proxy(upstream_idle_timeout=0.3)
    seen = asyncio.Event()
    upstream.play(stream_head(), steps[0], seen, *steps[1:])
    asyncio.get_running_loop().call_later(0.1, seen.set)
    head, body = await raw_stream(proxy)
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b'"content":"one"' in body
    assert not body.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in body
    assert (b"event" not in body and b'"error"' not in body) == ends_inside
    assert said in body
    (row,) = await proxy.settled()
    assert row["outcome"] == (said.decode() or "upstream_broke")
    assert row["output_tokens"] >= 1


async def test_the_official_client_raises_on_a_broken_stream(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    gate = asyncio.Event()
    upstream.play(stream_head(), delta("one"), gate, CLOSE)
    async with proxy.client() as client:
        stream = await client.chat.completions.create(**STREAM)
        parts = aiter(stream)
        assert (await anext(parts)).choices[0].delta.content == "one"
        gate.set()
        with pytest.raises(openai.APIError, match="broke off"):
            await anext(parts)


async def test_what_arrived_before_a_break_is_passed_on_although_the_caller_reads_slowly(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    pieces = [delta(f"{number:06d}" + "x" * 1000) for number in range(2000)]
    upstream.play(stream_head(), *pieces, CLOSE)
    _, body = await raw_stream(proxy)
    assert b"001999xxx" in body
    assert b"upstream_broke" in body


async def test_silence_is_filled_with_comments_between_events_only(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(upstream_keepalive_after=0.1)
    go_on, inside = asyncio.Event(), asyncio.Event()
    upstream.play(
        stream_head(), delta("a"), go_on, chunk(b'data: {"x"'), inside, chunk(b":1}\n\n"), DONE, END
    )
    got = bytearray()
    async with proxy.session.post(
        f"{proxy.base_url}/chat/completions", json=STREAM, headers=proxy.headers
    ) as answer:
        async for data in answer.content.iter_any():
            got += data
            if got.endswith(b": keep-alive\n\n"):
                go_on.set()
            if got.endswith(b'{"x"'):
                # Three times the silence that would bring a comment between events.
                asyncio.get_running_loop().call_later(0.3, inside.set)
    assert b": keep-alive\n\n" in got
    assert b'data: {"x":1}\n\n' in got
    (row,) = await proxy.settled()
    assert row["outcome"] == "ok"


async def test_the_caller_leaves_and_the_upstream_is_closed_within_50_ms(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    took = []
    async with proxy.client() as client:
        for number in range(20):
            upstream.play(stream_head(), delta("Hello"), delta(" there"), STALL)
            stream = await client.chat.completions.create(**STREAM)
            parts = aiter(stream)
            await anext(parts)
            await anext(parts)
            await stream.close()
            left = time.perf_counter()
            await asyncio.wait_for(upstream.requests[number].gone.wait(), 5)
            took.append(time.perf_counter() - left)
    rows = await proxy.settled(20)
    assert {(row["outcome"], row["output_tokens"]) for row in rows} == {("client_closed", 2)}
    # The median: a single one of them may fall into a pause of the machine.
    assert statistics.median(took) < 0.05


async def test_the_caller_leaves_while_waiting_for_the_head(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(STALL)
    task = asyncio.create_task(proxy.post(STREAM))
    await upstream.received(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(upstream.requests[0].gone.wait(), 5)
    (row,) = await proxy.settled()
    assert (row["outcome"], row["first_byte_ms"]) == ("client_closed", None)


async def test_a_caller_that_closes_right_after_done_got_everything(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(stream_head(), delta("x"), DONE, STALL)
    async with proxy.client() as client:
        stream = await client.chat.completions.create(**STREAM)
        assert [p.choices[0].delta.content async for p in stream] == ["x"]
        await stream.close()
    (row,) = await proxy.settled()
    assert row["outcome"] == "ok"


async def test_a_json_answer_to_a_stream_request_is_relayed_as_json(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(json_reply(completion()))
    answer = await proxy.post(STREAM)
    assert answer.content_type == "application/json"
    assert (await answer.json())["usage"]["completion_tokens"] == 3
    (row,) = await proxy.settled()
    assert (row["outcome"], row["counted_by"]) == ("ok", "upstream")


async def test_the_providers_own_error_event_ends_a_stream_as_it_is(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(stream_head(), delta("a"), chunk(event({"error": {"message": "no"}})), END)
    _, body = await raw_stream(proxy)
    assert body.endswith(b"0\r\n\r\n")
    assert b"upstream_broke" not in body
    (row,) = await proxy.settled()
    assert row["outcome"] == "upstream_error"


async def test_a_compressed_stream_is_counted_and_stays_compressed(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    packer = zlib.compressobj(wbits=31)
    plain = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}})
    packed = packer.compress(plain + b"data: [DONE]\n\n") + packer.flush()
    upstream.play(stream_head(("Content-Encoding", "gzip")), chunk(packed), END)
    answer = await proxy.post(STREAM)
    assert await answer.read() == plain + b"data: [DONE]\n\n"
    (row,) = await proxy.settled()
    assert (row["output_tokens"], row["bytes_out"]) == (6, len(packed))


async def test_all_choices_reasoning_and_tool_calls_are_counted(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    call = {"index": 0, "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    upstream.play(
        stream_head(), delta(reasoning_content="Let me think."), delta("Hi"), delta(refusal="No."),
        delta(tool_calls=[call]), usage_chunk(1, 0)[:0] or delta(finish="stop"), DONE, END,
    )  # fmt: skip
    await proxy.post(STREAM)
    (row,) = await proxy.settled()
    assert row["output_tokens"] >= 12
    assert row["input_tokens"] > 0


async def test_the_prompt_is_counted_as_it_was_sent(proxy: Proxy, upstream: FakeUpstream) -> None:
    for intensity in ("none", "full"):
        upstream.play(stream_head(), delta("Hi"), delta(finish="stop"), DONE, END)
        await proxy.post(STREAM, X_Mintoken_Intensity=intensity)
    plain, injected = await proxy.settled(2)
    text = load_prompts().text(Intensity.FULL)
    tokenizer = Tokenizer(None)
    tokenizer.load()
    added = tokenizer.count(text, "gpt-4o")
    # A message of its own costs 3 tokens and its role 1, as OpenAI's cookbook counts.
    assert injected["input_tokens"] - plain["input_tokens"] == added + 4


async def test_odd_names_from_the_provider_do_not_upset_the_ledger(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    odd = b'{"model":"\\ud800%s","choices":[{"delta":{},"finish_reason":"\\udfff"}]}' % (
        b"m" * 9000
    )
    upstream.play(
        stream_head(("x-request-id", "req_\xff")), chunk(b"data: " + odd + b"\n\n"), DONE, END
    )
    await proxy.post(STREAM)
    (row,) = await proxy.settled()
    assert row["outcome"] == "ok"
    assert len(row["model_served"]) <= 200


@pytest.mark.parametrize("length_known", [True, False])
async def test_a_body_that_breaks_off_is_seen_as_incomplete(
    proxy: Proxy, upstream: FakeUpstream, length_known: bool
) -> None:
    whole = reply(b'{"id": "chatcmpl-1", "choices": []}')
    cut = whole[:-10]
    if not length_known:
        head = stream_head().replace(b"text/event-stream", b"application/json")
        cut = head + chunk(b'{"id": "chatcmpl-1", ')
    upstream.play(cut, CLOSE)
    head, body = await raw_stream(proxy, CHAT)
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"chatcmpl-1" in body
    assert not body.endswith(b"0\r\n\r\n")
    assert not body.endswith(b"}")
    (row,) = await proxy.settled()
    assert row["outcome"] == "upstream_broke"
