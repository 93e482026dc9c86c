"""What a Chat Completions answer says."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_bodies import ANY_BODIES

from mintoken import chat_answer
from mintoken.chat_answer import ChatMeter
from mintoken.exchange import Spoken
from mintoken.models import CountedBy, TokenUsage


def event(delta=None, *, index=0, finish=None, **fields) -> bytes:
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "gpt-4o", "choices": [choice], **fields}).encode()


def body(message, **fields) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": message}], **fields}).encode()


def heard(*events: bytes) -> Spoken:
    meter = ChatMeter()
    for one in events:
        meter.feed([one])
    return meter.spoken()


def call(index=None, name=None, arguments="", call_id=None):
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"function": function} | {
        key: value for key, value in (("index", index), ("id", call_id)) if value is not None
    }


@pytest.mark.parametrize(
    ("data", "only"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":1}}', True),
        (b' {"usage" : {} , "choices"\n:\t[ \r\n] }', True),
        (b'{"id":"c","model":"m","choices":[],"usage":{"x":[]},"service_tier":null,"x":1}', True),
        (b'{"choices":[],"usage":{"total_tokens":"\\ud800"},"error":null}', True),
        (b'{"choices":[],"usage":null}', False),
        (b'{"choices":[],"usage":7}', False),
        (b'{"choices":[]}', False),
        (b'{"choices":[],"prompt_filter_results":[]}', False),
        (b'{"usage":{"prompt_tokens":1}}', False),
        (b'{"choices":null,"usage":{"prompt_tokens":1}}', False),
        (b'{"choices":{},"usage":{"prompt_tokens":1}}', False),
        (b'{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}', False),
        (b'{"choices":[{"x":{"choices":[]}}],"usage":{"prompt_tokens":1}}', False),
        (b'{"choices":[],"usage":{},"error":{"message":"no"}}', False),
        (b'{"choices":[],"usage":{}', False),
        (b'[{"choices":[],"usage":{}}]', False),
        (b'"choices":[]', False),
        (b"[DONE]", False),
        (b"", False),
    ],
)
def test_the_event_that_holds_usage_and_no_choices_is_told_from_every_other(data, only):
    meter = ChatMeter()
    assert meter.only_usage(data) is only
    assert meter.spoken() == ChatMeter().spoken()


@pytest.mark.parametrize(
    ("deltas", "text", "calls"),
    [
        ([{"content": "a"}, {"content": "b"}], "ab", (0,)),
        ([{"reasoning_content": "why "}, {"content": "b"}], "why b", (0,)),
        ([{"reasoning": "why ", "reasoning_content": "why "}, {"content": "b"}], "why b", (0,)),
        ([{"refusal": "no"}], "no", (0,)),
        ([{"content": None}, {"content": ""}, {"role": "assistant"}], "", (0,)),
        ([{"content": 'q"\\\n\té漢😀'}], 'q"\\\n\té漢😀', (0,)),
        ([{"function_call": {"name": "f"}}, {"function_call": {"arguments": "{}"}}], "f{}", (1,)),
        (
            [
                {"tool_calls": [call(0, "f", "", "id0")]},
                {"tool_calls": [call(0, None, "{")]},
                {"tool_calls": [call(0, None, "}")]},
                {"tool_calls": [call(1, "g", "{}", "id1")]},
            ],
            "f{}g{}",
            (2,),
        ),
        ([{"tool_calls": [call(0, "f", "1", "a")]}] * 3, "f1f1f1", (1,)),
        (
            [{"tool_calls": [call(0, "f", "1", name)]} for name in "abc"],
            "f1f1f1",
            (3,),
        ),
        ([{"tool_calls": [call(None, "f"), call(None, "g")]}], "fg", (2,)),
        ([{"tool_calls": [{"custom": {"name": "c", "input": "in"}}]}], "cin", (1,)),
        (
            [{"content": [{"type": "thinking", "thinking": [{"text": "t"}]}, {"text": "x"}]}],
            "tx",
            (0,),
        ),
        ([{"content": 7}, {"content": {"a": 1}}, {"tool_calls": 3}], "", (0,)),
        ([{"tool_calls": [1, None, {"function": 5}]}], "", (3,)),
    ],
)
def test_everything_visible_is_heard(deltas, text, calls):
    spoken = heard(*map(event, deltas))
    assert spoken.text == text
    assert spoken.tool_calls == calls
    assert spoken.unread_bytes == 0


def test_a_body_says_what_its_message_says():
    meter = ChatMeter()
    message = {
        "content": "a",
        "tool_calls": [call(None, "f", "{}", "1"), call(None, "g", "{}", "2")],
    }
    meter.feed_body(body(message, model="m"))
    spoken = meter.spoken()
    assert (spoken.text, spoken.tool_calls, spoken.model) == ("af{}g{}", (2,), "m")
    assert spoken.done


def test_choices_are_kept_apart():
    spoken = heard(
        event({"content": "a1 "}),
        event({"content": "b1 "}, index=1),
        event({"content": "a2 "}),
        event({"tool_calls": [call(0, "f")]}, index=1),
    )
    assert spoken.text == "a1 a2 b1 f"
    assert spoken.tool_calls == (0, 1)


@pytest.mark.parametrize("index", [-1, 10**6, 2**70, None, "1", 1.5, True, []])
def test_an_odd_choice_index_is_still_a_choice(index):
    spoken = heard(event({"content": "a"}, index=index))
    assert (spoken.text, spoken.tool_calls) == ("a", (0,))


@pytest.mark.parametrize(
    "odd",
    [b"", b"{", b"not json", b"\xff", b"[]", b"1", b"null", b'"x"', b"[DONE", b"[" * 100_000],
)
def test_what_is_not_understood_is_unread(odd):
    spoken = heard(odd)
    assert spoken.unread_bytes == len(odd)
    assert not spoken.done
    meter = ChatMeter()
    meter.feed_body(odd)
    assert meter.spoken().unread_bytes == len(odd)
    assert not meter.spoken().done


@pytest.mark.parametrize(
    "odd",
    [
        b"{}",
        b'{"choices":null,"model":null,"usage":null,"error":null}',
        b'{"choices":7,"model":7,"usage":7}',
        b'{"choices":[1,null,[],{}]}',
        b'{"choices":[{"delta":7,"finish_reason":7,"index":{}}]}',
        b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[],"created":1e400,"usage":[]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":1e400}]}}]}',
    ],
)
def test_odd_types_are_no_reason_to_fail(odd):
    spoken = heard(odd)
    assert not spoken.failed
    assert spoken.usage is None
    assert spoken.unread_bytes == 0
    spoken.text.encode()


def test_a_surrogate_half_in_an_answer_costs_no_more_than_itself():
    assert heard(b'{"choices":[{"delta":{"content":"a\\ud83d"}}]}').text == "a?"


@given(ANY_BODIES)
def test_no_json_object_makes_the_meter_fail(odd):
    meter = ChatMeter()
    meter.feed([odd])
    meter.feed_body(odd)
    meter.feed_body(b'{"choices":[{"message":' + odd + b',"delta":' + odd + b"}]}")
    meter.feed([b'{"usage":' + odd + b',"choices":[{"delta":{"tool_calls":[' + odd + b"]}}]}"])
    assert isinstance(meter.spoken(), Spoken)


@given(st.binary(max_size=40))
def test_no_bytes_make_the_meter_fail(data):
    spoken = heard(data, event({"content": "a"}), data)
    assert spoken.text == "a"


def test_done_failed_and_the_last_words_are_noted():
    spoken = heard(
        event({"content": "a"}, model="served-1"),
        event(finish="length", model=""),
        b'{"error":{"message":"overloaded"}}',
        b" [DONE]\n",
    )
    assert (spoken.model, spoken.finish_reason) == ("served-1", "length")
    assert spoken.failed
    assert spoken.done


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, (5, 3, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 3}, (5, 3, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 20}, (5, 15, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 2}, (5, 3, 0, 0)),
        ({"completion_tokens": 3, "total_tokens": 20}, (0, 3, 0, 0)),
        ({"prompt_tokens": -5, "completion_tokens": -3, "total_tokens": 9}, (0, 0, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2**40 + 1}, (5, 0, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 2**60}, (5, 3, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 10**30}, (5, 0, 0, 0)),
        ({"prompt_tokens": 5.0, "completion_tokens": "3"}, (0, 0, 0, 0)),
        ({"prompt_tokens": True, "completion_tokens": [3]}, (0, 0, 0, 0)),
        (
            {
                "prompt_tokens": 50,
                "completion_tokens": 30,
                "total_tokens": 80,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            (50, 30, 40, 20),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 99},
                "completion_tokens_details": 7,
            },
            (5, 3, 5, 0),
        ),
    ],
)
def test_usage_is_the_providers_as_far_as_it_can_be(usage, expected):
    counts = dict(zip(("input", "output", "cached", "reasoning"), expected, strict=True))
    wanted = TokenUsage(**counts, counted_by=CountedBy.UPSTREAM)
    assert heard(event(usage=usage)).usage == wanted
    assert heard(event(usage={"completion_tokens": 999}), event(usage=usage)).usage == wanted
    assert heard(event(usage=usage), event(usage=None), event(usage={})).usage == wanted


@pytest.mark.parametrize("usage", [None, {}, 7, [], "x", {"total_tokens": 5}])
def test_what_is_no_usage_is_ignored(usage):
    assert heard(event(usage=usage)).usage is None


CONTENTS = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from([" word", '"', "\\", "}", '"}', "é", ""])),
    min_size=1,
    max_size=12,
)


@given(CONTENTS, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_events_that_differ_in_their_content_only_are_read_like_any_other(
    contents, separators, ascii_only
):
    meter = ChatMeter()
    for content in contents:
        value = json.loads(event({"content": content}))
        text = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
        meter.feed([text.encode(errors="replace")])
    expected = "".join(contents).encode(errors="replace").decode()
    assert meter.spoken().text.replace("\ufffd", "?") == expected.replace("\ufffd", "?")


def test_an_event_that_only_looks_plain_is_read_in_full():
    plain = event({"content": "a"})
    head, tail = plain.split(b'"a"')
    sly = head + b'"b"},"finish_reason":"stop","x":{"y":"z"' + tail
    spoken = heard(plain, plain, sly, plain)
    assert spoken.text == "aaba"


def test_two_values_of_the_same_name_do_not_mislead():
    line = b'{"x":{"content":"q"},"choices":[{"delta":{"content":"%b"}}]}'
    assert heard(line % b"q", line % b"r", line % b"s").text == "qrs"


def test_text_beyond_the_cap_is_unread_and_not_kept(monkeypatch):
    monkeypatch.setattr(chat_answer, "MAX_TEXT_BYTES", 10)
    spoken = heard(*[event({"content": "abcd"})] * 4)
    assert (spoken.text, spoken.unread_bytes) == ("abcdabcdab", 6)


def test_a_stream_is_kept_in_little_more_than_its_text():
    events = [event({"content": f" w{number}"}) for number in range(2_000)]
    meter = ChatMeter()
    tracemalloc.start()
    for one in events:
        meter.feed([one])
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 30_000


ODD_DELTAS = [
    {"content": None},
    {"role": "assistant", "content": "r"},
    {"content": "c", "reasoning_content": "why"},
    {"reasoning_content": "why"},
    {"content": "c", "tool_calls": [call(0, "f", "{}", "id0")]},
    {"refusal": "no"},
]
ODD_EVENTS = [
    event({"content": "z"}, index=1),
    event({"content": "stop"}, finish="stop"),
    event({"content": "u"}, usage={"prompt_tokens": 3, "completion_tokens": 4}),
    event({"content": "e"}, error={"message": "overloaded"}),
    b'{"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"half \\ud83d"},'
    b'"logprobs":null,"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"\xff"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null},'
    b'{"index":1,"delta":{"content":"b"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"broken',
    b"[DONE]",
]


def compact(one: bytes) -> bytes:
    """As OpenAI writes it: no blanks between names and values."""
    try:
        return json.dumps(json.loads(one), separators=(",", ":"), ensure_ascii=False).encode()
    except ValueError:
        return one


WORDS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n:{}[],'))


@given(
    st.lists(
        WORDS.map(lambda text: event({"content": text}))
        | st.sampled_from([*map(event, ODD_DELTAS), *ODD_EVENTS]),
        max_size=60,
    ),
    st.booleans(),
)
def test_what_is_heard_together_is_what_is_heard_one_by_one(events, with_blanks):
    if not with_blanks:
        events = [*map(compact, events)]
    events.insert(0, event({"role": "assistant", "content": ""}))
    together, one_by_one = ChatMeter(), ChatMeter()
    together.feed(events[:1])
    together.feed(events[1:])
    for one in events:
        one_by_one.feed([one])
    assert together.spoken() == one_by_one.spoken()
    assert together.ended() == one_by_one.ended()


def test_mere_words_are_heard_without_decoding_each(monkeypatch):
    words = ["say ", '"hi"', " – ", "\\n", "\n", "漢😀"]
    events = [compact(event({"content": word})) for word in words] * 5
    meter = ChatMeter()
    meter.feed([event({"role": "assistant", "content": ""})])
    monkeypatch.setattr(chat_answer, "_decode", None)
    meter.feed(events)
    assert meter.spoken().text == "".join(words) * 5


def test_skipped_bytes_are_unread():
    meter = ChatMeter()
    meter.skip(5)
    meter.skip(7)
    assert meter.spoken() == Spoken(unread_bytes=12)
