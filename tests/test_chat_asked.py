"""What is read of a Chat Completions request for detection: little of it, and nothing fails."""

import json

import pytest
from hypothesis import given
from json_bodies import ANY_BODIES, CHAT_BODIES

from mintoken.chat_asked import EDGE_CHARACTERS, EDGE_TURNS, clipped
from mintoken.exchange import Asked
from mintoken.protocols.openai_chat import OpenAIChat

MOST = 2 * EDGE_CHARACTERS + 2


def asked(*messages, **fields):
    return OpenAIChat().read(json.dumps({"messages": messages} | fields).encode()).asked()


def user(content):
    return {"role": "user", "content": content}


def part(text):
    return {"type": "text", "text": text}


def test_the_leading_system_texts_and_all_user_messages_are_read():
    found = asked(
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [part("Use metres."), part("No jokes.")]},
        user("one"),
        {"role": "assistant", "content": "ignored"},
        {"role": "system", "content": "not leading"},
        user([part("two"), {"type": "image_url", "image_url": {"url": "x"}}, part("three")]),
    )
    assert found == Asked(system="Be kind.\nUse metres.\nNo jokes.", turns=("one", "two\nthree"))


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"max_tokens": 10}, {"cap": 10}),
        ({"max_completion_tokens": 7, "max_tokens": 10}, {"cap": 7}),
        ({"response_format": {"type": "json_object"}}, {"structure": True}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"structure": True}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": None}, {}),
        ({"tool_choice": "required"}, {"forced_tool": True}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"forced_tool": True}),
        ({"tool_choice": "auto"}, {}),
        ({"tool_choice": "none"}, {}),
        ({"function_call": {"name": "f"}}, {"forced_tool": True}),
        ({"logprobs": True}, {"logprobs": True}),
        ({"logprobs": False}, {}),
        ({"prediction": {"type": "content", "content": "x"}}, {"prediction": True}),
        ({"prediction": None}, {}),
        ({"modalities": ["text", "audio"]}, {"audio": True}),
        ({"audio": {"voice": "a", "format": "wav"}}, {"audio": True}),
        ({"modalities": ["text"], "audio": None}, {}),
    ],
)
def test_how_a_request_is_made_is_read(fields, read):
    assert asked(user("x"), **fields) == Asked(turns=("x",), **read)


@pytest.mark.parametrize("role", ["tool", "function"])
def test_the_result_of_a_tool_is_seen(role):
    assert asked(user("x"), {"role": role, "content": "12"}) == Asked(
        turns=("x",), tool_result=True
    )


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀", "\\", '"', "\n", "\x01", "\ufffd"])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("shift", range(7))
def test_of_a_long_text_only_the_ends_are_kept(character, ascii_only, shift):
    text = "b" * shift + character * 200_000 + "e"
    body = json.dumps({"messages": [user(text)]}, ensure_ascii=ascii_only).encode()
    [found] = OpenAIChat().read(body).asked().turns
    assert len(found) == MOST
    assert found[:EDGE_CHARACTERS] == text[:EDGE_CHARACTERS]
    assert found[-EDGE_CHARACTERS:] == text[-EDGE_CHARACTERS:]


def test_a_long_conversation_keeps_its_ends():
    turns = [str(number) for number in range(3 * EDGE_TURNS)]
    assert asked(*map(user, turns)).turns == (*turns[:EDGE_TURNS], *turns[-EDGE_TURNS:])


def test_what_is_looked_at_is_bounded_whatever_the_size_of_the_body():
    parts = [part("x" * 100_000)] * 50
    found = asked({"role": "system", "content": parts}, user(parts), user("y" * 10_000_000))
    assert [len(text) for text in (found.system, *found.turns)] == [MOST] * 3


def test_short_texts_are_kept_whole():
    text = "x" * 2 * EDGE_CHARACTERS
    assert clipped(text) == text
    assert len(clipped(text + "yyy")) == MOST


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"messages":null}',
        b'{"messages":[]}',
        b'{"messages":[7]}',
        b'{"messages":[{}]}',
        b'{"messages":{"role":"user"}}',
        b'{"messages":[{"role":"user"},{"role":7}]}',
    ],
)
def test_odd_messages_ask_nothing(body):
    assert OpenAIChat().read(body).asked() == Asked()


@pytest.mark.parametrize("content", [None, 7, {}, [7], [{"type": "text", "text": 7}], [{}]])
def test_odd_contents_are_empty_texts(content):
    assert asked(user(content)) == Asked(turns=("",))


@given(CHAT_BODIES)
def test_no_chat_body_makes_the_reading_fail(body):
    found = OpenAIChat().read(body).asked()
    assert all(isinstance(text.encode(), bytes) for text in (found.system, *found.turns))


@given(ANY_BODIES)
def test_no_json_object_makes_the_reading_fail(body):
    odd = b'{"messages":[{"role":"user","content":[%b]},%b],"response_format":%b}' % (
        body,
        body,
        body,
    )
    assert isinstance(OpenAIChat().read(odd).asked(), Asked)
