"""`upstream.ask_stream_usage`: a stream is counted by its provider, unseen by the caller."""

import asyncio
import re
import zlib
from pathlib import Path

import openai
import orjson
import pytest
from conftest import CHAT, Proxy, StartProxy, eventually
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
    stream_head,
)
from test_streaming import STREAM, raw_stream

from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.sse import EventFilter

QUESTION = b'"stream_options":{"include_usage":true},'
SAMPLE = (Path(__file__).parent / "samples/openai_chat/stream.sse").read_bytes()
USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
USAGE_EVENT = event({"id": "c", "choices": [], "usage": USAGE})
REFUSAL = json_reply({"error": {"message": "no stream_options"}}, status="400 Bad Request")


@pytest.fixture
async def asking(start_proxy: StartProxy) -> Proxy:
    return await start_proxy(upstream_ask_stream_usage="true")


def asked(upstream: FakeUpstream) -> list[bool]:
    """Which of the requests that came were asked for their usage."""
    return [request.body.startswith(b"{" + QUESTION) for request in upstream.requests]


def streamed(stream: bytes, size: int = 1 << 20) -> list[Step]:
    """A whole answer that sends `size` bytes at a time."""
    pieces = [chunk(stream[at : at + size]) for at in range(0, len(stream), size)]
    return [stream_head(), *pieces, END]


@pytest.mark.parametrize("intensity", ["none", "full"])
async def test_the_official_client_sees_a_usual_stream_and_the_row_has_the_providers_count(
    asking: Proxy, upstream: FakeUpstream, intensity: str
) -> None:
    upstream.play(
        stream_head(), delta("Hello"), delta(" there."), delta(finish="stop"),
        chunk(USAGE_EVENT), DONE, END,
    )  # fmt: skip
    async with asking.client(default_headers={"X-Mintoken-Intensity": intensity}) as client:
        chunks = [part async for part in await client.chat.completions.create(**STREAM)]
    assert "".join(part.choices[0].delta.content or "" for part in chunks) == "Hello there."
    assert [part.usage for part in chunks] == [None] * 3
    (row,) = await asking.settled()
    assert (row["outcome"], row["counted_by"]) == ("ok", "upstream")
    counted = [row[f"{kind}_tokens"] for kind in ("input", "output", "cached", "reasoning")]
    assert counted == [19, 10, 8, 4]
    assert (row["injected_tokens"] > 0) is (intensity == "full")
    assert bool(row["prompt_version"]) is (intensity == "full")


@pytest.mark.parametrize("intensity", ["none", "full"])
async def test_only_the_question_is_added_to_the_body(
    start_proxy: StartProxy, upstream: FakeUpstream, intensity: str
) -> None:
    body = b' {\n"stream" : true, "seed":1e5,"messages":[{"role":"user","content":"\\u0061"}]}\n'
    for option in ("false", "true"):
        proxy = await start_proxy(upstream_ask_stream_usage=option)
        upstream.play(*streamed(SAMPLE))
        await proxy.post(body, X_Mintoken_Intensity=intensity)
        await proxy.settled()
    plain, with_question = (request.body for request in upstream.requests)
    assert (plain == body) is (intensity == "none")
    assert with_question == plain.replace(b" {", b" {" + QUESTION, 1)


async def test_a_large_body_gets_both_the_text_and_the_question(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    messages = [{"role": "user", "content": "x" * (2 << 20)}]
    upstream.play(*streamed(SAMPLE))
    await raw_stream(asking, STREAM | {"messages": messages})
    sent = orjson.loads(upstream.requests[0].body)
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["messages"][0]["role"] == "system"
    assert sent["messages"][1:] == messages
    (row,) = await asking.settled()
    assert row["counted_by"] == "upstream"


@pytest.mark.parametrize(
    "options", [{"include_usage": True}, {"include_usage": False}, {"x": 1}, {}, None]
)
async def test_the_callers_own_stream_options_decide(
    asking: Proxy, upstream: FakeUpstream, options: object
) -> None:
    body = orjson.dumps(STREAM | {"stream_options": options})
    upstream.play(*streamed(SAMPLE))
    answer = await asking.post(body, X_Mintoken_Intensity="none")
    assert await answer.read() == SAMPLE
    assert upstream.requests[0].body == body


@pytest.mark.parametrize("ask", ["true", "false"])
async def test_who_does_not_stream_or_did_not_switch_it_on_is_left_alone(
    start_proxy: StartProxy, upstream: FakeUpstream, ask: str
) -> None:
    proxy = await start_proxy(upstream_ask_stream_usage=ask)
    body = orjson.dumps(CHAT if ask == "true" else STREAM)
    upstream.play(json_reply(completion()) if ask == "true" else b"".join(streamed(SAMPLE)))
    answer = await proxy.post(body, X_Mintoken_Intensity="none")
    assert upstream.requests[0].body == body
    assert b'"prompt_tokens"' in await answer.read()


# --- What the caller gets ------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_recorded_stream_cut_anywhere_comes_without_its_usage_chunk(line_end: bytes) -> None:
    stream = (b": hello\n\n" + SAMPLE).replace(b"\n", line_end)
    events = stream.split(2 * line_end)
    kept = [one for one in events if b'"choices":[]' not in one]
    assert len(kept) == len(events) - 1
    wanted = (2 * line_end).join(kept)
    for at in range(len(stream) + 1):
        meter = OpenAIChat().meter()
        passed = EventFilter(meter.usage_sign, meter.only_usage)
        assert passed.feed(stream[:at]) + passed.feed(stream[at:]) == wanted
        assert passed.rest() == b""


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
async def test_every_other_byte_is_relayed_as_it_came(
    asking: Proxy, upstream: FakeUpstream, size: int
) -> None:
    before = (
        b": a comment\r\n\r\n"
        b'event: message\nid: 7\ndata: {"choices":[{"delta":{"content":"a\\u0062"}}],"x":1e5}\n\n'
        b'unknown: field\r\ndata: {"choices":[],"usage":null}\r\n\r\n'
        b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    )
    extra = (
        b'id: 8\r\ndata: {"choices": [ ],\r\n'
        b'data: "usage":{"prompt_tokens":5,"completion_tokens":6}}\r\n\r\n'
    )
    after = b": bye\n\ndata: [DONE]\n\n"
    upstream.play(*streamed(before + extra + after, size))
    answer = await asking.post(STREAM)
    assert await answer.read() == before + after
    (row,) = await asking.settled()
    assert (row["outcome"], row["bytes_out"]) == ("ok", len(before + after))
    assert (row["input_tokens"], row["output_tokens"]) == (5, 6)


async def test_each_event_goes_out_when_it_is_complete(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    upstream.play(
        stream_head(), delta("a"), gates[0], chunk(USAGE_EVENT[:30]), chunk(USAGE_EVENT[30:]),
        chunk(b'data: {"choices":[]}\n\nda'), gates[1], chunk(b"ta: [DONE]\n\n"), gates[2], END,
    )  # fmt: skip
    got = bytearray()
    async with asking.session.post(
        f"{asking.base_url}/chat/completions", json=STREAM, headers=asking.headers
    ) as answer:
        for gate, end in zip(gates, (b'"a"', b'{"choices":[]}\n\n', b"[DONE]\n\n"), strict=True):
            while end not in got:
                got += await asyncio.wait_for(answer.content.readany(), 5)
            gate.set()
        got += await answer.read()
    assert b"prompt_tokens" not in got
    assert got.endswith(b'data: {"choices":[]}\n\ndata: [DONE]\n\n')
    (row,) = await asking.settled()
    assert (row["outcome"], row["output_tokens"]) == ("ok", 10)


async def test_a_compressed_stream_keeps_its_usage_chunk(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    packer = zlib.compressobj(wbits=31)
    plain = USAGE_EVENT + b"data: [DONE]\n\n"
    packed = packer.compress(plain) + packer.flush()
    upstream.play(stream_head(("Content-Encoding", "gzip")), chunk(packed), END)
    answer = await asking.post(STREAM)
    assert await answer.read() == plain
    (row,) = await asking.settled()
    assert (row["counted_by"], row["output_tokens"], row["bytes_out"]) == (
        "upstream",
        10,
        len(packed),
    )


async def test_an_error_beside_the_usage_reaches_the_caller(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    error = event({"choices": [], "usage": USAGE, "error": {"message": "no"}})
    upstream.play(stream_head(), delta("a"), chunk(error), END)
    _, body = await raw_stream(asking)
    assert b'"message":"no"' in body
    assert body.endswith(b"0\r\n\r\n")


async def test_an_event_too_large_to_be_held_is_passed_on(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    large = b'data: {"choices":[],"usage":{},"x":"' + b"x" * (3 << 20) + b'"}\n\n'
    stream = large + USAGE_EVENT + b"data: [DONE]\n\n"
    upstream.play(*streamed(stream, 1 << 16))
    answer = await asking.post(STREAM)
    assert await answer.read() == large + b"data: [DONE]\n\n"


# --- When it goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "said", "ends"),
    [
        ((DIE,), b"upstream_broke", b""),
        ((CLOSE,), b"upstream_broke", b""),
        ((chunk(USAGE_EVENT), END), b"upstream_broke", b""),
        ((chunk(USAGE_EVENT), STALL), b"upstream_timeout", b""),
        ((chunk(USAGE_EVENT[:-1]), CLOSE), b"", USAGE_EVENT[:-1]),
        ((chunk(b'data: {"choi'), END), b"", b'data: {"choi'),
        ((chunk(b'data: {"choi'), STALL), b"", b'data: {"choi'),
    ],
    ids=["reset", "closed", "no done", "stall", "closed inside", "ended inside", "stall inside"],
)
async def test_a_broken_stream_ends_as_it_does_without_the_question(
    start_proxy: StartProxy,
    upstream: FakeUpstream,
    steps: tuple[Step, ...],
    said: bytes,
    ends: bytes,
) -> None:
    proxy = await start_proxy(upstream_ask_stream_usage="true", upstream_idle_timeout=0.3)
    seen = asyncio.Event()
    upstream.play(stream_head(), delta("one"), seen, *steps)
    asyncio.get_running_loop().call_later(0.1, seen.set)
    _, body = await raw_stream(proxy)
    assert b'"content":"one"' in body
    assert not body.endswith(b"0\r\n\r\n")
    assert (b'"error"' in body) is bool(said)
    assert said in body
    assert body.removesuffix(b"\r\n").endswith(ends)
    (row,) = await proxy.settled()
    stalled = STALL in steps
    assert row["outcome"] == ("upstream_timeout" if stalled else "upstream_broke")


async def test_silence_is_filled_with_comments_between_events_only(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(upstream_ask_stream_usage="true", upstream_keepalive_after=0.1)
    go_on, inside = asyncio.Event(), asyncio.Event()
    upstream.play(
        stream_head(), delta("a"), chunk(USAGE_EVENT), go_on, chunk(b'data: {"x"'), inside,
        chunk(b":1}\n\n"), DONE, END,
    )  # fmt: skip
    got = bytearray()
    async with proxy.session.post(
        f"{proxy.base_url}/chat/completions", json=STREAM, headers=proxy.headers
    ) as answer:
        async for data in answer.content.iter_any():
            got += data
            if got.endswith(b": keep-alive\n\n") and not go_on.is_set():
                go_on.set()
                # Three times the silence that would bring a comment between events.
                asyncio.get_running_loop().call_later(0.3, inside.set)
    head, _, tail = got.partition(b": keep-alive\n\n")
    assert head.endswith(b"\n\n")
    ending = rb'(: keep-alive\n\n)*data: \{"x":1\}\n\n(: keep-alive\n\n)*data: \[DONE\]\n\n'
    assert re.fullmatch(ending, tail)
    (row,) = await proxy.settled()
    assert (row["outcome"], row["output_tokens"]) == ("ok", 10)


async def test_the_caller_leaves_and_what_was_streamed_is_counted(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(stream_head(), delta("Hello"), delta(" there"), STALL)
    async with asking.client() as client:
        stream = await client.chat.completions.create(**STREAM)
        parts = aiter(stream)
        await anext(parts)
        await anext(parts)
        await stream.close()
        await asyncio.wait_for(upstream.requests[0].gone.wait(), 5)
    (row,) = await asking.settled()
    assert (row["outcome"], row["output_tokens"]) == ("client_closed", 2)


# --- A provider that does not take it ------------------------------------------------------------


async def test_a_provider_that_answers_400_is_asked_again_without_and_that_is_remembered(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(REFUSAL)
    for _ in range(3):
        upstream.play(*streamed(SAMPLE))
    for model in ("old", "old", "new"):
        alike = {"stream_options": {"include_usage": True}, "x": 1}
        answer = await asking.post(orjson.dumps(STREAM | {"model": model, "metadata": alike}))
        assert answer.status == 200
        assert (await answer.read() == SAMPLE) is (model == "old")
    assert asked(upstream) == [True, False, False, True]
    first, second = upstream.requests[:2]
    assert first.body == second.body.replace(b"{", b"{" + QUESTION, 1)
    assert orjson.loads(second.body)["metadata"] == alike
    assert first.header("X-Client-Request-Id") == second.header("X-Client-Request-Id")
    rows = await asking.settled(3)
    assert [(row["outcome"], row["status"]) for row in rows] == [("ok", 200)] * 3
    assert rows[0]["id"] == second.header("X-Client-Request-Id")
    assert rows[0]["injected_tokens"] == rows[2]["injected_tokens"] > 0


async def test_a_request_that_is_wrong_itself_gets_the_second_400_and_nothing_is_remembered(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    second = json_reply(
        {"error": {"message": "second"}},
        status="400 Bad Request",
        headers=[("x-should-retry", "false"), ("x-request-id", "req_2")],
    )
    upstream.play(REFUSAL)
    upstream.play(second)
    upstream.play(*streamed(SAMPLE))
    async with asking.client() as client:
        with pytest.raises(openai.BadRequestError, match="second") as caught:
            await client.chat.completions.create(**STREAM)
    assert caught.value.response.headers["x-should-retry"] == "false"
    await asking.post(STREAM)
    assert asked(upstream) == [True, False, True]
    rows = await asking.settled(2)
    assert (rows[0]["outcome"], rows[0]["status"]) == ("upstream_error", 400)
    assert rows[0]["upstream_request_id"] == "req_2"


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "429 x", "500 x"])
async def test_other_failures_are_the_callers_at_once(
    asking: Proxy, upstream: FakeUpstream, status: str
) -> None:
    upstream.play(json_reply({"error": {"message": "x"}}, status=status))
    answer = await asking.post(STREAM)
    assert f"{answer.status} " in f"{status} "
    assert len(upstream.requests) == 1
    await asking.settled()


@pytest.mark.parametrize("second", [CLOSE, json_reply({"error": {}}, status="429 x")])
async def test_a_second_answer_that_says_nothing_of_it_is_not_remembered(
    asking: Proxy, upstream: FakeUpstream, second: Step
) -> None:
    upstream.play(REFUSAL)
    upstream.play(second)
    upstream.play(*streamed(SAMPLE))
    answer = await asking.post(STREAM)
    assert answer.status == (502 if second == CLOSE else 429)
    assert answer.headers.get("x-should-retry") == ("false" if second == CLOSE else None)
    await asking.post(STREAM)
    assert asked(upstream) == [True, False, True]
    rows = await asking.settled(2)
    assert rows[0]["outcome"] == "upstream_error"


async def test_a_400_that_never_ends_holds_nothing_up(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    endless = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1000000000\r\n\r\n{"
    upstream.play(endless, STALL)
    upstream.play(*streamed(SAMPLE))
    answer = await asking.post(STREAM)
    assert await answer.read() == SAMPLE
    await eventually(upstream.requests[0].gone.is_set)
    (row,) = await asking.settled()
    assert row["outcome"] == "ok"


async def test_the_caller_leaves_while_the_provider_is_asked_again(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(REFUSAL)
    upstream.play(STALL)
    task = asyncio.create_task(asking.post(STREAM))
    await upstream.received(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(upstream.requests[1].gone.wait(), 5)
    (row,) = await asking.settled()
    assert row["outcome"] == "client_closed"


async def test_a_json_answer_to_the_question_is_relayed_as_json(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(json_reply(completion()))
    answer = await asking.post(STREAM)
    assert (await answer.json())["usage"]["completion_tokens"] == 3
    (row,) = await asking.settled()
    assert (row["outcome"], row["counted_by"]) == ("ok", "upstream")


async def test_a_provider_that_sends_no_usage_all_the_same_is_counted_here(
    asking: Proxy, upstream: FakeUpstream
) -> None:
    upstream.play(stream_head(), delta("Hello"), delta(finish="stop"), DONE, END)
    await asking.post(STREAM)
    (row,) = await asking.settled()
    assert (row["outcome"], row["counted_by"]) == ("ok", "tiktoken")
