"""Hypothesis strategies for the bytes of JSON bodies as odd as JSON allows."""

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# A busy machine is no failure.
settings.register_profile("mintoken", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mintoken")

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "/": "\\/", "\b": "\\b"}

_TEXTS = st.text(
    st.one_of(st.sampled_from('ab"\\/\n\té漢😀{}[],:'), st.characters(), st.just("\ud83d")),
    max_size=12,
)
_SPACE = st.sampled_from(["", "", "", " ", "\n  ", "\t", "\r\n"])
_NUMBERS = st.sampled_from(["0", "-1", "1.0", "1e5", "1E+2", "1e400", "1" * 30, "-0.5e-3"])


def _escape(draw, char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    plain = _SHORT.get(char, char if char >= " " else escaped)
    if "\ud800" <= char <= "\udfff":
        return escaped
    return draw(st.sampled_from([plain, plain, plain, escaped, escaped.upper().replace("U", "u")]))


@st.composite
def strings(draw, texts=_TEXTS) -> str:
    """A JSON string, its characters escaped or not as it comes."""
    return '"' + "".join(_escape(draw, char) for char in draw(texts)) + '"'


@st.composite
def arrays(draw, items, **sizes) -> str:
    parts = [draw(_SPACE) + item + draw(_SPACE) for item in draw(st.lists(items, **sizes))]
    return "[" + (",".join(parts) or draw(_SPACE)) + "]"


@st.composite
def objects(draw, fields) -> str:
    """A JSON object of (raw key, raw value) pairs; keys may come twice."""
    parts = [
        f"{draw(_SPACE)}{key}{draw(_SPACE)}:{draw(_SPACE)}{value}{draw(_SPACE)}"
        for key, value in draw(fields)
    ]
    return "{" + (",".join(parts) or draw(_SPACE)) + "}"


def _any_objects(values):
    return objects(st.lists(st.tuples(strings(), values), max_size=3))


VALUES = st.recursive(
    st.one_of(st.sampled_from(["null", "true", "false"]), _NUMBERS, strings()),
    lambda values: st.one_of(arrays(values, max_size=3), _any_objects(values)),
    max_leaves=5,
)
_EXTRAS = st.tuples(strings(st.sampled_from(["x", "seed", "é", '"}]', "\ud800"])), VALUES)


def _field(name, values):
    return st.tuples(strings(st.just(name)), values)


def _parts():
    text = st.tuples(_field("type", st.just('"text"')), _field("text", strings()))
    return st.one_of(objects(text), VALUES)


_CONTENTS = st.one_of(strings(), strings(), arrays(_parts(), max_size=3), VALUES)
_ROLES = strings(st.sampled_from(["system", "developer", "user", "assistant", "tool", ""]))


@st.composite
def _message_fields(draw):
    fields = draw(st.lists(_EXTRAS, max_size=2))
    fields += draw(st.lists(_field("role", _ROLES), min_size=1, max_size=2))
    fields += draw(st.lists(_field("content", _CONTENTS), max_size=2))
    return draw(st.permutations(fields))


@st.composite
def _body_fields(draw):
    messages = arrays(objects(_message_fields()), max_size=3)
    fields = draw(st.lists(_EXTRAS, max_size=2))
    fields += draw(st.lists(_field("messages", messages), min_size=1, max_size=2))
    fields += draw(st.lists(_field("model", VALUES), max_size=1))
    fields += draw(st.lists(_field("stream", VALUES), max_size=1))
    return draw(st.permutations(fields))


CHAT_BODIES = objects(_body_fields()).map(str.encode)
ANY_BODIES = _any_objects(VALUES).map(str.encode)


def reserialised(body: bytes, *, ascii_only: bool, indent: int | None) -> bytes:
    """The same JSON as another writer would write it."""
    value = json.loads(body, parse_float=lambda _: 1.5)  # 1e400 has no other spelling
    try:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode()
