"""What is read of a Chat Completions request for detection: little of it, and nothing fails."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from json_bodies import ANY_BODIES, CHAT_BODIES

from mintoken.chat_asked import EDGE_CHARACTERS, clipped
from mintoken.exchange import MOST_TURNS, Asked
from mintoken.protocols.openai_chat import OpenAIChat

MOST = 2 * EDGE_CHARACTERS + 2


def asked(*messages, **fields):
    return OpenAIChat().read(json.dumps({"messages": messages} | fields).encode()).asked()


def user(content):
    return {"role": "user", "content": content}


def system(content):
    return {"role": "system", "content": content}


ANSWER = {"role": "assistant", "content": "ignored"}


def part(text):
    return {"type": "text", "text": text}


def test_the_leading_system_texts_and_all_user_messages_are_read():
    found = asked(
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [part("Use metres."), part("No jokes.")]},
        user("one"),
        ANSWER,
        user([part("two"), {"type": "image_url", "image_url": {"url": "x"}}, part("three")]),
    )
    assert found == Asked(
        system="Be kind.\nUse metres.\nNo jokes.", turns=("one", "two\nthree"), last="two\nthree"
    )


@pytest.mark.parametrize(
    ("messages", "turns", "later"),
    [
        ([user("a"), ANSWER, system("s"), user("b")], ("a", "b"), ("s",)),
        ([user("a"), system("s")], ("a", "s"), ("s",)),
        ([user("a"), system("s"), ANSWER, user("b")], ("a", "s", "b"), ("s",)),
        ([user("a"), ANSWER, system("s"), system("t")], ("a", "s", "t"), ("s", "t")),
        ([ANSWER, system("s"), user("a")], ("a",), ("s",)),
    ],
)
def test_a_later_system_text_is_a_turn_if_the_answer_is_to_it(messages, turns, later):
    last = [one["content"] for one in messages if one["role"] == "user"][-1]
    assert asked(*messages) == Asked(turns=turns, later=later, last=last)


def test_what_was_a_turn_stays_one():
    messages = [user("a"), ANSWER, system("s"), user("b"), system("t"), ANSWER, system("u"), ANSWER]
    messages += [user("c"), ANSWER]
    ends = [at for at, one in enumerate(messages) if one is ANSWER]
    turns = [asked(*messages[:end]).turns for end in ends]
    assert all(some == more[: len(some)] for some, more in pairwise(turns))


def test_without_a_user_the_system_text_is_what_is_asked():
    lead = system("Count to ten.")
    assert asked(lead) == Asked(
        system="Count to ten.", turns=("Count to ten.",), last="Count to ten."
    )
    assert asked(lead, ANSWER, system("go on")).turns == ("Count to ten.", "go on")


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
    assert asked(user("x"), **fields) == Asked(turns=("x",), last="x", **read)


@pytest.mark.parametrize("role", ["tool", "function"])
def test_the_result_of_a_tool_is_seen_and_counts_for_what_follows(role):
    result = {"role": role, "content": "12"}
    assert asked(user("x"), result).tool_result
    assert asked(user("x"), result, system("Now answer.")).tool_result
    assert asked(system("x"), ANSWER, result).tool_result
    assert asked(user("x"), result, ANSWER, user("y")).tool_result
    assert not asked(user("x"), ANSWER, user("y")).tool_result


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


@pytest.mark.parametrize("message", [user, system])
def test_of_a_long_conversation_is_kept_what_shows_that_it_is(message):
    found = asked(user("x"), *[message(str(number)) for number in range(3 * MOST_TURNS)])
    assert MOST_TURNS < len(found.turns) <= MOST_TURNS + 2
    assert found.turns[-1] == str(3 * MOST_TURNS - 1)


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


@pytest.mark.parametrize(
    "content",
    [
        ["one", "two"],
        [{"text": "one"}, {"type": "input_text", "text": "two"}],
        [part("one"), None, part("two")],
        [{"type": None}, part("one"), 7, [], {"type": "text", "text": {}}, part("two")],
        [part("one\ntwo"), 10**40, -1.5, True, [[part("no")]], {"text": None}],
    ],
)
def test_one_odd_part_hides_no_other(content):
    assert asked(user(content)).turns == ("one\ntwo",)


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
