"""Where system text goes in a Chat Completions request, and what is read off one."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_bodies import CHAT_BODIES, reserialised

from mintoken.errors import Code, MintokenError
from mintoken.exchange import Prompt
from mintoken.protocols.openai_chat import MAX_CAP, OpenAIChat

LEVELS = sorted((Path(__file__).parent.parent / "mintoken/data/prompts").glob("*.md"))
TEXTS = [path.read_text().strip() for path in LEVELS] + ['Be "brief".\n\\o/ é😀', "x"]

CHAT = OpenAIChat()


def injected(body, text):
    return CHAT.inject(body, CHAT.read(body), text)


def test_the_credential_is_a_bearer_token():
    assert CHAT.credential("sk-x") == {"Authorization": "Bearer sk-x"}


def test_an_error_has_the_shape_of_openais():
    error = MintokenError(Code.INVALID_JSON, "At byte 3.", param="messages")
    assert json.loads(CHAT.error(error, in_stream=False)) == {
        "error": {
            "message": "The request body is not a JSON object in UTF-8. At byte 3.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "invalid_json",
        }
    }


USER = '{"role":"user","content":"hi"}'


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        (f"[{USER}]", f'[{{"role":"system","content":"T"}},{USER}]'),
        (f"[ \n{USER}]", f'[{{"role":"system","content":"T"}}, \n{USER}]'),
        ('[{"role":"tool"}]', '[{"role":"system","content":"T"},{"role":"tool"}]'),
        (
            '[{"content":null,"role":"assistant"}]',
            '[{"role":"system","content":"T"},{"content":null,"role":"assistant"}]',
        ),
        (
            f'[{{"role":"system","content":"S"}},{USER}]',
            f'[{{"role":"system","content":"S\\n\\nT"}},{USER}]',
        ),
        ('[{"content":"S","role":"developer"}]', '[{"content":"S\\n\\nT","role":"developer"}]'),
        ('[{"role":"system","content":""}]', '[{"role":"system","content":"\\n\\nT"}]'),
        ('[{"role":"system","content":"a\\""}]', '[{"role":"system","content":"a\\"\\n\\nT"}]'),
        ('[{"role":"system","content":"a\\\\"}]', '[{"role":"system","content":"a\\\\\\n\\nT"}]'),
        (
            '[{"role":"system","content":[]}]',
            '[{"role":"system","content":[{"type":"text","text":"T"}]}]',
        ),
        (
            '[{"role":"system","content":[ ]}]',
            '[{"role":"system","content":[ {"type":"text","text":"T"}]}]',
        ),
        (
            '[{"role":"system","content":[{"a":"S"} ]}]',
            '[{"role":"system","content":[{"a":"S"} ,{"type":"text","text":"T"}]}]',
        ),
        (
            '[{"role":"system","content":["["]}]',
            '[{"role":"system","content":["[",{"type":"text","text":"T"}]}]',
        ),
        (
            f'[{USER},{{"role":"system","content":"late"}}]',
            f'[{{"role":"system","content":"T"}},{USER},{{"role":"system","content":"late"}}]',
        ),
        (
            '[{"role":"system","content":"a"},{"role":"system","content":"b"}]',
            '[{"role":"system","content":"a\\n\\nT"},{"role":"system","content":"b"}]',
        ),
        (
            '[{"r\\u006fle":"syst\\u0065m","c\\u006fntent":"a"}]',
            '[{"r\\u006fle":"syst\\u0065m","c\\u006fntent":"a\\n\\nT"}]',
        ),
        (
            '[{"role":"user","role":"system","content":[],"content":"a"}]',
            '[{"role":"user","role":"system","content":[],"content":"a\\n\\nT"}]',
        ),
    ],
)
def test_where_the_text_goes(messages, wanted):
    for frame in (
        '{"messages":%s}',
        ' {"model":"m" , "messages"\t: %s ,"n":1}\n',
        '{"messages":[],"messages":%s}',
    ):
        assert injected((frame % messages).encode(), "T") == (frame % wanted).encode()


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"model":"m"}',
        '{"messages":{}}',
        '{"messages":[]}',
        '{"messages":null}',
        '{"messages":"x"}',
        '{"messages":[1]}',
        '{"messages":[{}]}',
        '{"messages":[{"content":"x"}]}',
        '{"messages":[{"role":null,"content":"x"}]}',
        '{"messages":[{"role":7,"content":"x"}]}',
        f'{{"messages":[{USER},1]}}',
        f'{{"messages":[{USER},{{"content":"x"}}]}}',
        '{"messages":[{"role":"system"}]}',
        f'{{"messages":[{{"role":"system"}},{USER}]}}',
        '{"messages":[{"role":"system","content":null}]}',
        '{"messages":[{"role":"system","content":7}]}',
        '{"messages":[{"role":"developer","content":{}}]}',
        '{"messages":[{"role":"developer","content":true}]}',
    ],
)
def test_a_body_without_a_place_stays_as_it_is(body):
    body = body.encode()
    assert CHAT.read(body).inject_at is None
    assert injected(body, "T") == body


@pytest.mark.parametrize(
    ("fields", "model", "stream", "cap"),
    [
        ('"model":"gpt-4o","stream":true', "gpt-4o", True, None),
        ('"model":"../x","stream":false', "../x", False, None),
        ('"model":"\\u0067pt"', "gpt", False, None),
        ('"model":"\\ud800"', "\ufffd", False, None),
        ('"model":7,"stream":1', "", False, None),
        ('"model":null,"stream":"true"', "", False, None),
        ('"model":["x"],"stream":null', "", False, None),
        ('"stream":[true]', "", False, None),
        ('"stream":false,"stream": true ', "", True, None),
        ('"max_tokens":100', "", False, 100),
        ('"max_tokens":0', "", False, 0),
        ('"max_tokens":100,"max_completion_tokens":50', "", False, 50),
        ('"max_tokens":100,"max_completion_tokens":null', "", False, 100),
        ('"max_tokens":-1', "", False, None),
        ('"max_tokens":-0', "", False, None),
        ('"max_tokens":1.5', "", False, None),
        ('"max_tokens":1e2', "", False, None),
        ('"max_tokens":"100"', "", False, None),
        ('"max_tokens":true', "", False, None),
        ('"max_tokens":[1]', "", False, None),
        (f'"max_tokens":{2**63}', "", False, MAX_CAP),
        (f'"max_tokens":{2**40 - 1}', "", False, 2**40 - 1),
        (f'"max_tokens":{"9" * 5000}', "", False, MAX_CAP),
        ('"n":0,"temperature":1e400,"seed":' + "1" * 30, "", False, None),
        ('"n":-1,"x":1.0,"y":1e5', "", False, None),
    ],
)
@pytest.mark.parametrize("rest", ["", f',"messages":[{USER}]', ',"messages":7'])
def test_odd_settings_are_read_as_far_as_they_can_be(fields, model, stream, cap, rest):
    body = f"{{{fields}{rest}}}".encode()
    turn = CHAT.read(body)
    assert (turn.model, turn.stream, turn.cap) == (model, stream, cap)
    assert (turn.inject_at is not None) == ("user" in rest)
    assert len(injected(body, "T")) > len(body) or "user" not in rest


def naive(value, text):
    """The parsed body with the text appended, as contract §3 says; None where nothing is put in."""
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        return None
    first, rest = messages[0], messages[1:]
    content = first.get("content")
    if first["role"] not in ("system", "developer"):
        return value | {"messages": [{"role": "system", "content": text}, *messages]}
    match content:
        case str():
            added = content + "\n\n" + text
        case list():
            added = [*content, {"type": "text", "text": text}]
        case _:
            return None
    return value | {"messages": [first | {"content": added}, *rest]}


@given(CHAT_BODIES, st.sampled_from(TEXTS))
def test_any_body_gets_the_text_and_keeps_its_bytes(body, text):
    turn = CHAT.read(body)
    changed = CHAT.inject(body, turn, text)
    wanted = naive(json.loads(body), text)
    assert (wanted is None) == (turn.inject_at is None)
    if turn.inject_at is None:
        assert changed == body
        return
    at, size = turn.inject_at, len(changed) - len(body)
    assert changed[:at] + changed[at + size :] == body
    assert json.loads(changed) == wanted
    assert injected(changed, text) == changed


@given(CHAT_BODIES, st.sampled_from(TEXTS), st.booleans(), st.sampled_from([None, 0, 4]))
def test_a_text_is_known_again_when_the_caller_rewrote_the_json(body, text, ascii_only, indent):
    rewritten = reserialised(injected(body, text), ascii_only=ascii_only, indent=indent)
    assert injected(rewritten, text) == rewritten


def test_another_level_is_another_text():
    body = injected(f'{{"messages":[{USER}]}}'.encode(), "one")
    assert json.loads(injected(body, "two"))["messages"][0]["content"] == "one\n\ntwo"


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ('"stream":true', True),
        (' \t"stream" : true ', True),
        ('"stream":false,"stream":true', True),
        ('"str\\u0065am":true', True),
        ('"stream":true,"x":{"stream_options":{}}', True),
        ('"stream":true,"model":7', True),
        ("", False),
        ('"stream":false', False),
        ('"stream":true,"stream":false', False),
        ('"stream":null', False),
        ('"stream":1', False),
        ('"stream":"true"', False),
        ('"stream":true,"stream_options":{"include_usage":true}', False),
        ('"stream":true,"stream_options":{"include_usage":false}', False),
        ('"stream":true,"stream_options":{}', False),
        ('"stream":true,"stream_options":null', False),
        ('"stream_options":7,"stream":true', False),
        ('"stream":true,"stream_options":null,"stream_options":{}', False),
        ('"stream":true,"stream\\u005foptions":null', False),
    ],
)
@pytest.mark.parametrize("frame", ["{%s}", " \n{ %s } \r\n\t", '{"messages":7%s}'])
def test_usage_is_asked_for_where_a_caller_streams_and_says_nothing_of_it(fields, asked, frame):
    more = f",{fields}" if "messages" in frame and fields else fields
    body = (frame % more).encode()
    turn = CHAT.read(body)
    changed = CHAT.inject(body, turn, "T", ask_usage=True)
    assert (changed is not body) is asked
    if asked:
        question = b'"stream_options":{"include_usage":true},'
        assert turn.usage_question == question
        head, rest = body.split(b"{", 1)
        assert changed == head + b"{" + question + rest
        options = {"stream_options": {"include_usage": True}}
        assert json.loads(changed) == json.loads(body) | options


@given(CHAT_BODIES, st.sampled_from(["", *TEXTS]))
def test_any_body_gets_the_question_and_the_text_as_one_after_the_other(body, text):
    body = body.replace(b"{", b'{"stream":true,', 1) if b":" in body else body
    turn = CHAT.read(body)
    both = CHAT.inject(body, turn, text, ask_usage=True)
    alone = CHAT.inject(body, turn, text)
    question = turn.usage_question
    at = body.find(b"{") + 1
    assert both == alone[:at] + question + alone[at:]
    assert (len(both) > len(body) + len(question)) == (alone is not body)
    if question:
        assert json.loads(both) == json.loads(alone) | {"stream_options": {"include_usage": True}}


def test_a_question_is_not_asked_unless_it_is_wanted():
    body = b'{"stream":true}'
    assert CHAT.inject(body, CHAT.read(body), "") is body


def test_no_text_changes_nothing():
    body = f'{{"messages":[{USER}]}}'.encode()
    assert injected(body, "") is body


def test_the_prompt_is_read_from_the_callers_body():
    body = f'{{"messages":[{USER}]}}'.encode()
    assert CHAT.read(body).prompt() == Prompt(texts=("hi",), messages=1)


def test_a_turn_does_not_show_the_body():
    assert "hi there" not in repr(CHAT.read(b'{"messages":[{"role":"user","content":"hi there"}]}'))


IMAGE = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}' % (
    b"iVBO" * (5 << 18)
)


@pytest.mark.parametrize("lead", [b"", b'{"role":"system","content":"Be kind."},'])
def test_five_megabytes_of_image_cost_little(lead):
    body = b'{"model":"m","messages":[%b{"role":"user","content":[%b]}],"n":1}' % (lead, IMAGE)
    injected(body, TEXTS[0])
    spent = []
    for _ in range(10):
        start = time.process_time()
        injected(body, TEXTS[0])
        spent.append(time.process_time() - start)
    print(f"5 MB: {min(spent) * 1000:.2f} ms of CPU")
    assert min(spent) < 0.006  # under 3 ms on an idle machine


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[' + b"1," * (4 << 20) + b"1]}",
        b"{" + b",".join(b'"k%d":1' % number for number in range(600_000)) + b"}",
    ],
    ids=["8 MiB of 1,", "600,000 keys"],
)
def test_absurd_bodies_are_answered_quickly(body):
    start = time.process_time()
    assert injected(body, "T") is body
    assert time.process_time() - start < 0.25
