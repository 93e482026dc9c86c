"""What a Chat Completions prompt holds."""

import base64
import json
import struct

import pytest
from hypothesis import given
from json_bodies import ANY_BODIES, CHAT_BODIES

from mintoken.chat_prompt import read_prompt
from mintoken.exchange import Image, Prompt
from mintoken.protocols.openai_chat import OpenAIChat

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 640, 480, 8, 2, 0, 0, 0)
GIF = b"GIF89a" + struct.pack("<HH", 32, 16) + bytes(8)
EXIF = b"\xff\xe1" + struct.pack(">H", 40_002) + bytes(40_000)
JPEG = b"\xff\xd8" + EXIF + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 768, 1024, 3) + bytes(9)
VP8 = b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 550 | 0x4000, 368)
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00" + VP8
WEBP_X = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + b"\x1f\x03\x00\x57\x02\x00"
SVG = b"<svg width='10' height='10'/>"


def prompt(*messages, **fields) -> Prompt:
    return read_prompt(json.dumps({"messages": messages, **fields}).encode())


def user(*parts):
    return {"role": "user", "content": list(parts)}


def image(url, **fields):
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def data_url(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def test_a_prompt_of_plain_text_is_exact():
    assert prompt(
        {"role": "system", "content": "Be é."},
        user({"type": "text", "text": "one"}, {"type": "text", "text": "two"}),
        {"role": "assistant", "content": None},
        {"role": "user", "content": ""},
    ) == Prompt(texts=("Be é.", "one", "two", ""), messages=4)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (PNG, (640, 480)),
        (PNG + bytes(300_000), (640, 480)),
        (GIF, (32, 16)),
        (JPEG, (1024, 768)),
        (WEBP, (550, 368)),
        (WEBP_X, (800, 600)),
        (PNG[:20], (0, 0)),
        (JPEG[:100], (0, 0)),
        (b"RIFF\x00\x00\x00\x00WAVE", (0, 0)),
        (SVG, (0, 0)),
        (b"", (0, 0)),
    ],
)
def test_the_size_of_an_image_is_read_from_its_header(data, size):
    wanted = Image(width=size[0], height=size[1])
    found = prompt(user({"type": "text", "text": "x"}, image(data_url(data))))
    assert found == Prompt(texts=("x",), messages=1, images=(wanted,), exact=False)


def test_a_data_url_with_escaped_slashes_is_read():
    body = json.dumps({"messages": [user(image(data_url(PNG)))]}).replace("/", "\\/")
    assert read_prompt(body.encode()).images == (Image(width=640, height=480),)


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (image("https://example.com/a.png", detail="low"), Image(low=True)),
        (image("https://example.com/a.png", detail="high"), Image()),
        (image(data_url(PNG), detail="low"), Image(width=640, height=480, low=True)),
        ({"type": "image_url", "image_url": data_url(PNG)}, Image(width=640, height=480)),
        ({"type": "image_url", "image_url": 7}, Image()),
        ({"type": "image_url", "image_url": {"url": 7, "detail": 7}}, Image()),
        ({"type": "image_url"}, Image()),
        (image("data:image/png;base64,!!!!"), Image()),
        (image("data:image/png;base64,é"), Image()),
    ],
)
def test_an_image_of_unknown_size_is_still_an_image(part, wanted):
    assert prompt(user(part)).images == (wanted,)
    assert not prompt(user(part)).exact


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"tools": TOOLS}, len(json.dumps(TOOLS))),
        ({"functions": TOOLS}, len(json.dumps(TOOLS))),
        ({"response_format": SCHEMA}, len(json.dumps(SCHEMA["json_schema"]))),
        ({"tools": [], "functions": None, "response_format": {"type": "json_object"}}, 0),
        ({"response_format": 7}, 0),
    ],
)
def test_tools_and_schemas_count_by_their_json(fields, size):
    found = prompt({"role": "user", "content": "x"}, **fields)
    assert found == Prompt(texts=("x",), messages=1, extra_bytes=size, exact=not size)


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ({"content": "x", "name": "Ann"}, 0),
        ({"content": "x", "tool_calls": [{"id": "1"}]}, len('[{"id": "1"}]')),
        ({"content": [{"type": "text", "text": "x"}, {"type": "file", "file": {}}]}, 0),
        ({"content": [{"type": "text", "text": "x"}, {"type": "text", "text": 7}]}, 0),
        ({"content": 12345}, 5),
        ({"content": {"a": 1}}, len('{"a": 1}')),
        ({"content": [1, 2]}, len("[1, 2]")),
    ],
)
def test_what_is_not_plain_text_makes_an_estimate(message, extra):
    found = prompt({"role": "user", **message})
    assert not found.exact
    assert found.messages == 1
    assert found.extra_bytes == extra


@pytest.mark.parametrize("messages", [b"7", b"[1,2]", b"[{}]", b'{"a":1}', b'"x"', b'[{"role":1}]'])
def test_odd_messages_count_by_their_size(messages):
    found = read_prompt(b'{"messages":' + messages + b"}")
    assert found == Prompt(extra_bytes=len(messages), exact=False)


@pytest.mark.parametrize("body", [b"{}", b'{"messages":null}', b'{"messages":[]}'])
def test_no_messages_are_nothing(body):
    assert read_prompt(body) == Prompt()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (rb"\ud800 alone", "\ufffd alone"),
        (rb"\u0000", "\x00"),
        (rb"<|endoftext|>", "<|endoftext|>"),
        ("e\u0301".encode() * 1000, "e\u0301" * 1000),
        (b" " * 1_000_000, " " * 1_000_000),
    ],
)
def test_odd_texts_are_texts_that_can_be_encoded(content, text):
    body = b'{"messages":[{"role":"user","content":"%b"}]}' % content
    (found,) = OpenAIChat().read(body).prompt().texts
    assert found == text
    found.encode()


@given(CHAT_BODIES)
def test_no_chat_body_makes_the_reading_fail(body):
    prompt = OpenAIChat().read(body).prompt()
    assert isinstance(prompt, Prompt)
    assert all(isinstance(text.encode(), bytes) for text in prompt.texts)


@given(ANY_BODIES)
def test_no_json_object_makes_the_reading_fail(body):
    odd = b'{"messages":[{"role":"user","content":[%b]},%b],"tools":%b}' % (body, body, body)
    assert isinstance(OpenAIChat().read(odd).prompt(), Prompt)
