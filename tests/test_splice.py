"""System text into JSON, every other byte kept."""

import json
import re
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from json_bodies import ANY_BODIES, strings

from mintoken import splice
from mintoken.errors import Code, MintokenError


class Strict(msgspec.Struct):
    here: str
    raw: msgspec.Raw = msgspec.Raw()


class Loose(msgspec.Struct):
    here: msgspec.Raw = msgspec.Raw()
    raw: msgspec.Raw = msgspec.Raw()


STRICT, LOOSE = msgspec.json.Decoder(Strict), msgspec.json.Decoder(Loose)
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def without_surrogates(body):
    """Naively: escape by escape."""
    text, at, result = body.decode(), 0, ""
    while at < len(text):
        size = 1 if text[at] != "\\" else 6 if text[at + 1] == "u" else 2
        token = text[at : at + size]
        result += r"\ufffd" if re.fullmatch(r"\\u[dD][89a-fA-F]..", token) else token
        at += size
    return result.encode()


def decode(body):
    return splice.decode(body, STRICT, LOOSE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "byte 0"),
        (b"   ", "byte 3"),
        (b"{", "byte 1"),
        (b"{'a':1}", "byte 1"),
        (b'{"a":1,}', "byte 7"),
        (b'{"a":[1,]}', "byte 8"),
        (b'{"a":1} x', "byte 9"),
        (b'{"a":1}{}', "byte 8"),
        (b'{"a":1}// no', "byte 8"),
        (b'{"a":"\n"}', "byte 6"),
        (b'{"a":"\x00"}', "byte 6"),
        (b'{"a":1}\x00', "byte 8"),
        (b'{"a\tb":1}', "byte 3"),
        ('{"a":1}'.encode("utf-16"), "byte 0"),
        ('{"a":1}'.encode("utf-16-le"), "byte 1"),
        (b'\xef\xbb\xbf{"a":1}', "byte 0"),
        (b'{"a":"\xff"}', "byte 6"),
        (b'{"\xc0\x80":1}', "byte 2"),
        (b'{"a":"\xed\xa0\x80"}', "byte 6"),
        (b'{"a":NaN}', "byte 5"),
        (b'{"a":-Infinity}', "byte 6"),
        (b'{"a":01}', "byte 6"),
        (b'{"a":1.}', "byte 7"),
        (b'{"a":"\\x"}', "byte 7"),
        (b'{"a":"\\ud80"}', "byte"),
        (b'{"a":"\\ud800"', "byte 13"),
        (b'{"here":1,"a":', "byte 14"),
        (b"[]", "not an object"),
        (b"[{}]", "not an object"),
        (b'"a"', "not an object"),
        (b"1", "not an object"),
        (b"null", "not an object"),
        (b"[1,", "byte 3"),
    ],
)
def test_what_is_not_a_json_object_is_refused_with_its_place(body, says):
    with pytest.raises(MintokenError) as caught:
        decode(body)
    assert caught.value.code is Code.INVALID_JSON
    assert says in caught.value.message
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"here":' + b"[" * 100_000,
        b'{"here":"x","raw":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":"\\ud800","raw":' + b"[" * 100_000,
    ],
)
def test_what_is_too_deep_is_refused_at_once(body):
    start = time.perf_counter()
    with pytest.raises(MintokenError) as caught:
        decode(body)
    assert caught.value.code is Code.JSON_TOO_DEEP
    assert time.perf_counter() - start < 0.05


def test_128_levels_are_not_too_deep():
    for body in (b'{"a":' * 128 + b"1" + b"}" * 128, b'{"a":' + b"[" * 127 + b"]" * 127 + b"}"):
        found, source = decode(body)
        assert isinstance(found, Loose)
        assert source == body


@pytest.mark.parametrize(
    "value",
    [
        rb'"\ud800"',
        rb'"\uDC00 text"',
        rb'"\ud83d\ud83d\ude00"',
        rb'"\\\ud800\\ud800"',
        rb'"\u0000"',
        b"1e400",
        b"1" * 30,
        b"-0",
        b'"\x7f"',
        '"😀"'.encode(),
    ],
)
def test_what_json_allows_is_taken(value):
    body = b'{"a":%b,"here":"x","b":{"\\udfff":%b},"raw":%b}' % (value, value, value)
    found, source = decode(body)
    start, end = splice.span(source, found.raw)
    assert body[start:end] == value


@given(ANY_BODIES)
def test_every_json_object_is_taken_and_its_values_are_found(body):
    _, source = decode(body)
    assert len(source) == len(body)
    for value in FIELDS.decode(source).values():
        start, end = splice.span(source, value)
        assert source[start:end] == bytes(value)


@given(ANY_BODIES)
def test_a_body_with_halves_of_surrogate_pairs_is_read_without_them(body):
    _, source = decode(body)
    halves = any(
        "\ud800" <= char <= "\udfff"
        for char in json.dumps(json.loads(body, object_pairs_hook=list), ensure_ascii=False)
    )
    assert source == (without_surrogates(body) if halves else body)


@pytest.mark.parametrize("stretch", [1, 7, 1 << 18])
def test_surrogates_are_found_wherever_the_body_is_cut(stretch, monkeypatch):
    monkeypatch.setattr(splice, "_STRETCH_BYTES", stretch)
    body = rb'{"a":"\ud800\ud800\\ud800\\\ud800\n\\\\\uDFFF\\\\ud800\uD83D\uDE00\ufffd"}'
    wants = rb'{"a":"\ufffd\ufffd\\ud800\\\ufffd\n\\\\\ufffd\\\\ud800\ufffd\ufffd\ufffd"}'
    assert decode(body)[1] == wants


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_bytes_that_are_not_json_never_raise_anything_else(head, tail):
    try:
        found, _ = decode(b'{"here":"' + head + b'"' + tail + b"}")
    except MintokenError as error:
        found = error.code
    assert isinstance(found, Strict | Loose) or found is Code.INVALID_JSON


def test_a_value_of_other_bytes_is_not_looked_for():
    value = LOOSE.decode(b'{"raw":"elsewhere"}').raw
    with pytest.raises(ValueError, match="not decoded out of these"):
        splice.span(b'{"raw": "elsewhere"}', value)


@given(st.binary(max_size=20), st.binary(max_size=5), st.integers(0, 20))
def test_insert_keeps_every_other_byte(body, addition, at):
    at = min(at, len(body))
    assert splice.insert(body, (at, addition)) == body[:at] + addition + body[at:]


@given(
    st.binary(max_size=20), st.binary(max_size=5), st.binary(max_size=5), *[st.integers(0, 20)] * 2
)
def test_two_insertions_are_as_one_after_the_other(body, first, second, one, other):
    one, other = sorted(min(at, len(body)) for at in (one, other))
    both = splice.insert(body, (one, first), (other, second))
    assert both == body[:one] + first + body[one:other] + second + body[other:]


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)


@given(strings(), strings(TEXTS), TEXTS)
@example('"' + "\\\\" * 300 + '"', '"\\n\\nb"', "b")
@example('"' + '\\"' * 300 + '"', '"\\n\\nb"', "b")
@example('"' + "é" * 300 + '"', '"\\u000a\\n\\u0062"', "b")
@example('""', '"b"', "b")
@example('""', '"\\n\\nb"', "b")
def test_a_string_says_a_text_however_it_is_escaped(before, end, text):
    raw = b"[" + (before[:-1] + end[1:]).encode() + b"]"
    value = json.loads(raw)[0]
    expected = value == text or value.endswith("\n\n" + text)
    assert splice.string_says(raw, len(raw) - 2, text, after="\n\n") is expected


@given(TEXTS, strings(), st.booleans())
def test_a_text_that_was_appended_is_found(text, before, escaped):
    tail = json.dumps("\n\n" + text, ensure_ascii=escaped)[1:]
    raw = (before[:-1] + tail).encode()
    assert splice.string_says(raw, len(raw) - 1, text, after="\n\n")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'[{"here":"x"} ', "x"),
        (b'[1,{"raw":{"here":"y"},"here":"x"}', "x"),
        (b'[{"here":"{\\"here\\":\\"y\\"}"}', '{"here":"y"}'),
        (b'[{"raw":{"here":"y"}}', None),
        (b'["{}"', None),
        (b"[", None),
        (b'[{"here":"' + b"x" * 100 + b'"}', None),
    ],
)
def test_the_last_object_is_read_backwards(body, found):
    last = splice.last_object(body, len(body), 60, STRICT)
    assert (last and last.here) == found
