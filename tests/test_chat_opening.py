"""How a conversation begins: the same in each of its turns, and different from others'."""

import json

import pytest

from mintoken.exchange import Opening
from mintoken.protocols.openai_chat import OpenAIChat

SYSTEM = {"role": "system", "content": "Be kind."}
ANSWER = {"role": "assistant", "content": "Well."}
PNG = {"url": "data:image/png;base64,iVBORw0KGgo="}


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def part(text: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": text} | more


def opening(*messages: object, **fields: object) -> Opening:
    return OpenAIChat().read(json.dumps({"messages": messages} | fields).encode()).opening()


BEGIN = opening(SYSTEM, user("one"))


def test_it_is_the_leading_system_text_and_the_first_user_message() -> None:
    assert [bytes(piece) for piece in BEGIN.pieces] == [b'"Be kind."', b"", b'"one"']
    assert BEGIN.text_bytes == len("Be kind.one")


@pytest.mark.parametrize(
    "messages",
    [
        (SYSTEM, user("one"), ANSWER, user("two")),
        (SYSTEM, user("one"), ANSWER, SYSTEM, user("two"), ANSWER, user("three")),
        (SYSTEM | {"role": "developer"}, user("one")),
        (SYSTEM, user([part("one")]), ANSWER, user("two")),
        (SYSTEM, user([part("one", cache_control={"type": "ephemeral"})])),
        (SYSTEM | {"content": [part("Be kind.")], "name": "x"}, user("one") | {"name": "y"}),
        (SYSTEM, ANSWER, user("one")),
    ],
)
def test_what_comes_later_or_says_how_it_is_sent_does_not_change_it(messages) -> None:
    assert opening(*messages, model="m", temperature=1) == BEGIN


@pytest.mark.parametrize(
    "messages",
    [
        (user("one"),),
        (SYSTEM,),
        (SYSTEM, user("One")),
        (user("Be kind."), user("one")),
        (SYSTEM, SYSTEM, user("one")),
        (SYSTEM, {"role": "system", "content": "one"}),
        (SYSTEM, user([part("one"), {"type": "image_url", "image_url": PNG}])),
        (SYSTEM, user([part("o"), part("ne")])),
        (SYSTEM, user("one\n" + 20_000 * "x" + "two")),
        ({"role": "system", "content": "Be kind. " + 20_000 * "x"}, user("one")),
    ],
)
def test_other_beginnings_are_others(messages) -> None:
    assert opening(*messages) != BEGIN


def test_long_texts_count_in_their_middle_too() -> None:
    long = 20_000 * "x"
    assert opening(user(f"{long}one{long}")) != opening(user(f"{long}two{long}"))


def test_pictures_tell_conversations_apart_but_are_no_text() -> None:
    shown = [
        opening(user([part("What is this?"), {"type": kind, kind: content}]))
        for kind, content in (
            ("image_url", PNG),
            ("image_url", {"url": "https://x.example/1"}),
            ("input_audio", {"data": "AA==", "format": "wav"}),
            ("file", {"file_id": "f1"}),
        )
    ]
    assert len({tuple(map(bytes, one.pieces)) for one in shown}) == 4
    assert {one.text_bytes for one in shown} == {len("What is this?")}


@pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (b'{"messages":[]}', [b""]),
        (b"{}", [b""]),
        (b'{"messages":5}', []),
        (b'{"messages":[5]}', []),
        (b'{"messages":[{"role":"user"}]}', [b""]),
        (b'{"messages":[{"role":"user","content":null}]}', [b""]),
        (b'{"messages":[{"role":"user","content":[5]}]}', [b"", b"[5]"]),
        (b'{"messages":[{"role":"user","content":[{"text":5}, {}]}]}', [b"", b"5"]),
    ],
)
def test_what_is_odd_is_read_as_far_as_it_goes(body: bytes, pieces: list[bytes]) -> None:
    found = OpenAIChat().read(body).opening()
    assert [bytes(piece) for piece in found.pieces] == pieces
    assert found.text_bytes == 0
