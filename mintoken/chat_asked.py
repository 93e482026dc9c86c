"""What a Chat Completions request asks, as far as detection and rules look at it."""

import json
from collections.abc import Iterable, Iterator

import msgspec

from mintoken.chat_request import ABSENT, ChatRequest, first_byte, leading
from mintoken.exchange import Asked

EDGE_CHARACTERS = 4096
"""Characters kept of each end of a text: what is to be done stands there, what with in between."""
EDGE_TURNS = 64
"""User messages kept of each end of a conversation."""

_GAP = "\n\n"
# A character takes up to 12 bytes of JSON: two escapes of a surrogate pair.
_EDGE_BYTES = 12 * EDGE_CHARACTERS
_TOOL = ("tool", "function")


class _Part(msgspec.Struct, gc=False):
    type: str
    text: msgspec.Raw = ABSENT


class _Type(msgspec.Struct):
    type: msgspec.Raw = ABSENT


_PARTS = msgspec.json.Decoder(list[_Part])
_TYPE = msgspec.json.Decoder(_Type)
_STRING = msgspec.json.Decoder(str)


def read_asked(request: ChatRequest, *, cap: int | None) -> Asked:
    """What is odd in the request asks nothing."""
    messages, lead = request.messages, leading(request.messages)
    spoken = [message for message in messages[lead:] if message.role == "user"]
    if len(spoken) > 2 * EDGE_TURNS:
        spoken = spoken[:EDGE_TURNS] + spoken[-EDGE_TURNS:]
    return Asked(
        system=_joined(text for message in messages[:lead] for text in _texts(message.content)),
        turns=tuple(_joined(_texts(message.content)) for message in spoken),
        cap=cap,
        structure=_type(request.response_format) not in ("", "text"),
        forced_tool=_is_forced(request.tool_choice) or _is_forced(request.function_call),
        logprobs=bytes(request.logprobs) == b"true",
        prediction=_is_object(request.prediction),
        audio=_is_object(request.audio) or b'"audio"' in bytes(request.modalities),
        tool_result=any(message.role in _TOOL for message in messages),
    )


def _texts(content: msgspec.Raw) -> Iterator[str]:
    """The texts of a string, or of the text parts of an array."""
    match first_byte(content):
        case b'"':
            yield _text(content)
        case b"[":
            try:
                parts = _PARTS.decode(content)
            except msgspec.ValidationError:
                return
            for part in parts:
                if part.type == "text" and first_byte(part.text) == b'"':
                    yield _text(part.text)


def _joined(texts: Iterable[str]) -> str:
    return clipped("\n".join(texts))


def clipped(text: str) -> str:
    """A text without the middle that nobody looks at."""
    if len(text) <= 2 * EDGE_CHARACTERS:
        return text
    return text[:EDGE_CHARACTERS] + _GAP + text[-EDGE_CHARACTERS:]


def _text(raw: msgspec.Raw) -> str:
    """A JSON string; of a long one only the ends are decoded."""
    view = memoryview(raw)
    if view.nbytes <= 3 * _EDGE_BYTES:
        return _STRING.decode(raw)
    head, tail = bytes(view[1 : 1 + _EDGE_BYTES]), bytes(view[-1 - _EDGE_BYTES : -1])
    start = next(_decodable(head[: len(head) - cut] for cut in range(13)), "")
    end = next(_decodable(tail[cut:] for cut in range(13)), "")
    return start[:EDGE_CHARACTERS] + _GAP + end[-EDGE_CHARACTERS:]


def _decodable(pieces: Iterable[bytes]) -> Iterator[str]:
    """Those pieces of a JSON string that are strings, too: not cut inside a character."""
    for piece in pieces:
        try:
            text: str = json.loads(b'"%b"' % piece)
        except ValueError:
            continue
        yield text.encode(errors="replace").decode()


def _is_object(raw: msgspec.Raw) -> bool:
    return first_byte(raw) == b"{"


def _type(raw: msgspec.Raw) -> str:
    """The `type` of an object; "" without one."""
    kind = _TYPE.decode(raw).type if _is_object(raw) else ABSENT
    return _STRING.decode(kind) if first_byte(kind) == b'"' else ""


def _is_forced(choice: msgspec.Raw) -> bool:
    return bytes(choice) == b'"required"' or _is_object(choice)
