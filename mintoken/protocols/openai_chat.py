"""The OpenAI Chat Completions protocol (contract §3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from mintoken import splice
from mintoken.chat_answer import ChatMeter
from mintoken.chat_asked import read_asked
from mintoken.chat_opening import read_opening
from mintoken.chat_prompt import read_prompt
from mintoken.chat_request import (
    SYSTEM_ROLES,
    ChatRequest,
    Message,
    OddRequest,
    Settings,
    first_byte,
)
from mintoken.errors import MintokenError
from mintoken.exchange import Turn
from mintoken.protocols.base import Meter

MAX_CAP = 1 << 40

_BLANK_LINE = "\n\n"
# Besides its text, the part we add takes this much, however a caller lays it out.
_PART_ROOM = 512
_USAGE_QUESTION = b'"stream_options":{"include_usage":true},'


class _MessagesOnly(msgspec.Struct):
    messages: msgspec.Raw


class _TextPart(msgspec.Struct):
    type: str
    text: str


_REQUEST = msgspec.json.Decoder(ChatRequest)
_ODD_REQUEST = msgspec.json.Decoder(OddRequest)
_MESSAGES_ONLY = msgspec.json.Decoder(_MessagesOnly)
_TEXT_PART = msgspec.json.Decoder(_TextPart)
_STRING = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class OpenAIChat:
    """A `protocols.base.WireProtocol`."""

    name: str = "openai_chat"
    path: str = "/v1/chat/completions"

    def credential(self, provider_key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {provider_key}"}

    def read(self, body: bytes) -> Turn:
        found = splice.decode(body, _REQUEST, _ODD_REQUEST)
        request, source = found
        stream = bytes(request.stream) == b"true"
        # Whatever a caller sets there, null included, is his decision.
        asks = stream and not first_byte(request.stream_options)
        turn = Turn(
            model=_string(request.model),
            stream=stream,
            cap=_cap(request),
            prompt=partial(read_prompt, source),
            usage_question=_USAGE_QUESTION if asks else b"",
        )
        if isinstance(request, OddRequest):
            return turn
        return msgspec.structs.replace(
            turn,
            inject_at=_inject_at(request, source),
            asked=partial(read_asked, request, cap=turn.cap),
            opening=partial(read_opening, request.messages),
        )

    def inject(self, body: bytes, turn: Turn, text: str, *, ask_usage: bool = False) -> bytes:
        additions = []
        if ask_usage and turn.usage_question:
            additions.append((body.index(b"{") + 1, turn.usage_question))
        if turn.inject_at is not None and text:
            addition = _addition(body, turn.inject_at, text)
            if addition:
                additions.append((turn.inject_at, addition))
        return splice.insert(body, *additions) if additions else body

    def meter(self) -> Meter:
        return ChatMeter()

    def error(self, error: MintokenError, *, in_stream: bool) -> bytes:
        fields = {
            "message": error.message,
            "type": error.code.type,
            "param": error.param,
            "code": error.code.code,
        }
        data = msgspec.json.encode({"error": fields})
        return b"data: %b\n\n" % data if in_stream else data


def _string(raw: msgspec.Raw) -> str:
    return _STRING.decode(raw) if first_byte(raw) == b'"' else ""


def _cap(request: Settings) -> int | None:
    """The output limit in tokens; None for what is no limit: a fraction, a negative, a string."""
    for raw in (request.max_completion_tokens, request.max_tokens):
        digits = bytes(raw)
        if digits.isdigit():
            return min(int(digits), MAX_CAP) if len(digits) < 20 else MAX_CAP
    return None


def _inject_at(request: ChatRequest, source: bytes) -> int | None:
    """Where system text goes: before the closing quote or bracket of the leading system message's
    content, or after the opening bracket of the messages if none leads.
    """
    if not request.messages:
        return None
    first = request.messages[0]
    if first.role not in SYSTEM_ROLES:
        return _first_place(first, source)
    if first_byte(first.content) in (b'"', b"["):
        return splice.span(source, first.content)[1] - 1
    return None


def _first_place(first: Message, source: bytes) -> int:
    if first_byte(first.content):
        # What follows the first content cannot move the bracket, and may hold megabytes.
        start, _ = splice.span(source, first.content)
        source = source[:start] + b"0}]}"
    messages = _MESSAGES_ONLY.decode(source).messages
    return splice.span(source, messages)[0] + 1


def _addition(body: bytes, at: int, text: str) -> bytes:
    """The bytes to put in, by what they are put before; none if the text is there already."""
    match body[at : at + 1]:
        case b'"':
            if splice.string_says(body, at, text, after=_BLANK_LINE):
                return b""
            return splice.quoted(_BLANK_LINE + text)[1:-1]
        case b"]":
            return _added_part(body, at, text)
        case _:
            return b'{"role":"system","content":%b},' % splice.quoted(text)


def _added_part(body: bytes, at: int, text: str) -> bytes:
    reach = 6 * len(splice.quoted(text)) + _PART_ROOM
    if splice.last_object(body, at, reach, _TEXT_PART) == _TextPart("text", text):
        return b""
    part = b'{"type":"text","text":%b}' % splice.quoted(text)
    is_first = body[:at].rstrip(b" \t\r\n").endswith(b"[")
    return part if is_first else b"," + part
