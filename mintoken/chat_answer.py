"""What a Chat Completions answer says, read off its events or its body."""

import json
import re
from typing import Any

import msgspec

from mintoken.exchange import Spoken
from mintoken.models import CountedBy, Outcome, TokenUsage

MAX_TEXT_BYTES = 4 << 20

_MAX_TOKENS = 1 << 40
_MAX_CHOICES, _MAX_CALL_MARKS = 128, 2048
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class _Said(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)
_STRING = msgspec.json.Decoder(str)

_MANY = 16  # events that are heard at once
# The one choice of an event, with the next words of its content and nothing else. A name and its
# quotes cannot be part of a string: the quotes there are escaped.
_WORDS = re.compile(
    rb'"choices":\[\{"index":0,"delta":\{"content":"([^"\\]*+(?:\\.[^"\\]*+)*+)"\}'
    rb'(?:,"[a-z_]++":null)*+\}\]'
)
_MORE_THAN_WORDS = (b'"usage":{', b'"error":')
_NO_CHOICES = re.compile(rb'"choices"\s*+:\s*+\[\s*+\]')


class _Voice:
    """One choice as it grows: its text in UTF-8, and the tool calls seen in it."""

    __slots__ = ("calls", "marks", "text")

    def __init__(self) -> None:
        self.text = bytearray()
        self.calls = 0
        self.marks: frozenset[int] = frozenset()

    def count_call(self, place: str, name: object) -> None:
        """A call is new when its id is, or, without an id, when its index is."""
        mark = hash(("id", str(name))) if name else hash(place)
        if mark not in self.marks and len(self.marks) < _MAX_CALL_MARKS:
            self.calls += 1
            self.marks |= {mark, hash(place)}


class ChatMeter:
    """A `protocols.base.Meter` for `chat.completion` and `chat.completion.chunk` objects.

    Keeps at most `MAX_TEXT_BYTES` of text; what goes beyond is counted as unread.
    """

    usage_sign = _NO_CHOICES

    def __init__(self) -> None:
        self._voices: dict[int, _Voice] = {}
        self._room = MAX_TEXT_BYTES
        self._unread_bytes = 0
        self._usage: TokenUsage | None = None
        self._model = ""
        self._finish_reason = ""
        self._done = False
        self._failed = False

    def feed(self, events: list[bytes]) -> None:
        for start in range(0, len(events), _MANY):
            some = events[start : start + _MANY]
            if not self._model or not self._hear_words(some):
                for event in some:
                    self._hear_event(event)

    def feed_body(self, body: bytes) -> None:
        answer = _decode(body)
        if answer is None:
            self._unread_bytes += len(body)
        else:
            self._take(answer)
            self._done = True

    def skip(self, size: int) -> None:
        self._unread_bytes += size

    @property
    def text_bytes(self) -> int:
        return MAX_TEXT_BYTES - self._room

    def ended(self) -> Outcome | None:
        if self._failed:
            return Outcome.UPSTREAM_ERROR
        return Outcome.OK if self._done else None

    def only_usage(self, event: bytes) -> bool:
        said = _decode(event) if _NO_CHOICES.search(event) else None
        if said is None or said.choices or said.error is not None:
            return False
        return isinstance(said.usage, dict)

    def spoken(self) -> Spoken:
        voices = [self._voices[index] for index in sorted(self._voices)]
        return Spoken(
            model=self._model,
            finish_reason=self._finish_reason,
            usage=self._usage,
            said=b"".join(voice.text for voice in voices),
            tool_calls=tuple(voice.calls for voice in voices),
            unread_bytes=self._unread_bytes,
            done=self._done,
            failed=self._failed,
        )

    def _hear_event(self, event: bytes) -> None:
        answer = _decode(event)
        if answer is None:
            self._hear_nonsense(event)
        else:
            self._take(answer)

    def _hear_nonsense(self, event: bytes) -> None:
        if event.strip() == b"[DONE]":
            self._done = True
        else:
            self._unread_bytes += len(event)

    def _hear_words(self, events: list[bytes]) -> bool:
        """Take events that bring nothing but the next words of the one choice, as nearly all do.

        False if these do not. It takes a third of the time of decoding each.
        """
        text = b"\n".join(events)
        words = _WORDS.findall(text)
        if len(words) != len(events) or any(name in text for name in _MORE_THAN_WORDS):
            return False
        said = b"".join(words)
        if b"\\" in said or not said.isascii():
            try:
                said = _STRING.decode(b'"%b"' % said).encode()
            except (msgspec.DecodeError, UnicodeDecodeError):  # As of half a surrogate pair.
                return False
        self._write(self._voice(0), said)
        return True

    def _take(self, answer: _Answer) -> None:
        if answer.model:
            self._model = answer.model
        if answer.error is not None:
            self._failed = True
        if answer.usage is not None:
            self._usage = _usage(answer.usage) or self._usage
        for choice in answer.choices or ():
            if choice.finish_reason:
                self._finish_reason = choice.finish_reason
            said = choice.delta or choice.message
            if said is not None:
                self._hear(self._voice(choice.index), said)

    def _hear(self, voice: _Voice, said: _Said) -> None:
        reasoning = said.reasoning_content or said.reasoning  # some providers send both, the same
        for text in (reasoning, said.content, said.refusal):
            if text:
                self._write(voice, text.encode(errors="replace"))
        if said.tool_calls is not None:
            for position, call in enumerate(_list(said.tool_calls)):
                self._hear_call(voice, position, _dict(call))
        if said.function_call is not None:
            self._hear_call(voice, 0, {"function": said.function_call})

    def _hear_call(self, voice: _Voice, position: int, call: dict[str, Any]) -> None:
        voice.count_call(str(call.get("index", position)), call.get("id"))
        for said in (_dict(call.get("function")), _dict(call.get("custom"))):
            for text in (said.get("name"), said.get("arguments"), said.get("input")):
                if isinstance(text, str) and text:
                    self._write(voice, text.encode(errors="replace"))

    def _write(self, voice: _Voice, data: bytes) -> None:
        if len(data) > self._room:
            self._unread_bytes += len(data) - self._room
            data = data[: self._room]
        self._room -= len(data)
        voice.text += data

    def _voice(self, index: object) -> _Voice:
        place = min(max(index, 0), _MAX_CHOICES - 1) if isinstance(index, int) else 0
        voice = self._voices.get(place)
        if voice is None:
            voice = self._voices[place] = _Voice()
        return voice


def _decode(data: bytes) -> _Answer | None:
    try:
        return _ANSWER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _odd_answer(json.loads(data))
    except (ValueError, RecursionError):
        return None


def _odd_answer(value: object) -> _Answer | None:
    """As much of an answer as there is in a value of unexpected types; None if not an object."""
    if not isinstance(value, dict):
        return None
    choices = [
        _Choice(
            index=choice.get("index"),
            delta=_odd_said(choice.get("delta")),
            message=_odd_said(choice.get("message")),
            finish_reason=_text(choice.get("finish_reason")),
        )
        for choice in map(_dict, _list(value.get("choices")))
    ]
    return _Answer(
        model=_text(value.get("model")),
        choices=choices,
        usage=value.get("usage"),
        error=value.get("error"),
    )


def _odd_said(value: object) -> _Said | None:
    if not isinstance(value, dict):
        return None
    texts = {name: _text(value.get(name)) for name in _TEXTS}
    return _Said(
        **texts, tool_calls=value.get("tool_calls"), function_call=value.get("function_call")
    )


def _text(value: object) -> str:
    """A string, or the strings of content parts (Mistral's `text` and `thinking`) joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        return _text(value.get("text")) or _text(value.get("thinking"))
    return ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _usage(value: object) -> TokenUsage | None:
    usage = _dict(value)
    if usage.get("prompt_tokens") is None and usage.get("completion_tokens") is None:
        return None
    prompt = _tokens(usage.get("prompt_tokens"))
    completion = _tokens(usage.get("completion_tokens"))
    total = _tokens(usage.get("total_tokens"))
    # Some providers keep reasoning outside completion_tokens, but never outside the total.
    output = total - prompt if prompt and total > prompt + completion else completion
    cached = _tokens(_dict(usage.get("prompt_tokens_details")).get("cached_tokens"))
    reasoning = _tokens(_dict(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    return TokenUsage(
        input=prompt,
        output=output,
        cached=min(cached, prompt),
        reasoning=min(reasoning, output),
        counted_by=CountedBy.UPSTREAM,
    )


def _tokens(value: object) -> int:
    """The count, or 0 for what cannot be one (contract §6)."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS:
        return value
    return 0
