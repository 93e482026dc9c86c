"""What a Chat Completions answer says, read off its events or its body."""

import json
from typing import Any

import msgspec

from mintoken.models import CountedBy, Spoken, TokenUsage

MAX_TEXT_BYTES = 4 << 20

_MAX_TOKENS = 1 << 40
_MAX_CHOICES = 128
_MAX_CALLS = 1024
_MAX_MOULDS = 4


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


class _Voice:
    """One choice as it grows: its text in UTF-8, and the tool calls seen in it."""

    __slots__ = ("call_marks", "calls", "text")

    def __init__(self) -> None:
        self.text = bytearray()
        self.calls = 0
        self.call_marks: set[str] | None = None


class _Mould(msgspec.Struct, frozen=True):
    """An event of plain content, without the content: the next one mostly differs in no more."""

    head: bytes
    tail: bytes
    choice: int


class ChatMeter:
    """A `protocols.base.Meter` for `chat.completion` and `chat.completion.chunk` objects.

    Keeps at most `MAX_TEXT_BYTES` of text; what goes beyond is counted as unread.
    """

    __slots__ = (
        "_done",
        "_failed",
        "_finish_reason",
        "_model",
        "_mould",
        "_moulds_tried",
        "_room",
        "_unread_bytes",
        "_usage",
        "_voices",
    )

    def __init__(self) -> None:
        self._voices: dict[int, _Voice] = {}
        self._room = MAX_TEXT_BYTES
        self._unread_bytes = 0
        self._usage: TokenUsage | None = None
        self._model = ""
        self._finish_reason = ""
        self._done = False
        self._failed = False
        self._mould: _Mould | None = None
        self._moulds_tried = 0

    def feed(self, event: bytes) -> None:
        mould = self._mould
        if mould is not None and event.startswith(mould.head) and event.endswith(mould.tail):
            content = event[len(mould.head) : -len(mould.tail)]
            fits = len(event) >= len(mould.head) + len(mould.tail)
            if fits and b'"' not in content and b"\\" not in content:
                self._write(mould.choice, content)
                return
        if event.strip() == b"[DONE]":
            self._done = True
        elif event:
            self._read_event(event)

    def feed_body(self, body: bytes) -> None:
        answer = _decode(body)
        if answer is None:
            self._unread_bytes += len(body)
        else:
            self._take(answer)
            self._done = True

    def skip(self, size: int) -> None:
        self._unread_bytes += size

    def spoken(self) -> Spoken:
        voices = [self._voices[index] for index in sorted(self._voices)]
        return Spoken(
            model=self._model,
            finish_reason=self._finish_reason,
            usage=self._usage,
            text=b"".join(voice.text for voice in voices).decode(errors="replace"),
            tool_calls=tuple(voice.calls for voice in voices),
            unread_bytes=self._unread_bytes,
            done=self._done,
            failed=self._failed,
        )

    def _read_event(self, event: bytes) -> None:
        answer = _decode(event)
        if answer is None:
            self._unread_bytes += len(event)
            return
        self._take(answer)
        if self._moulds_tried < _MAX_MOULDS and (mould := _mould(event, answer)) is not None:
            self._mould = mould
            self._moulds_tried += 1

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
                self._hear(_index(choice), said)

    def _hear(self, index: int, said: _Said) -> None:
        reasoning = said.reasoning_content or said.reasoning  # some providers send both, the same
        for text in (reasoning, said.content, said.refusal):
            if text:
                self._write(index, text.encode(errors="replace"))
        if said.tool_calls is not None:
            for position, call in enumerate(_list(said.tool_calls)):
                self._hear_call(index, position, _dict(call))
        if said.function_call is not None:
            self._hear_call(index, 0, {"function": said.function_call})

    def _hear_call(self, index: int, position: int, call: dict[str, Any]) -> None:
        self._count_call(self._voice(index), str(call.get("index", position)), call.get("id"))
        function, custom = _dict(call.get("function")), _dict(call.get("custom"))
        for text in (
            function.get("name"),
            function.get("arguments"),
            custom.get("name"),
            custom.get("input"),
        ):
            if isinstance(text, str) and text:
                self._write(index, text.encode(errors="replace"))

    def _count_call(self, voice: _Voice, place: str, name: object) -> None:
        """A call is new when its id is, or, without an id, when its index is."""
        marks = voice.call_marks = voice.call_marks or set()
        mark = f"id {name}" if name else place
        if mark not in marks and len(marks) < _MAX_CALLS:
            voice.calls += 1
            marks.update((mark, place))

    def _write(self, index: int, text: bytes) -> None:
        if len(text) > self._room:
            self._unread_bytes += len(text) - self._room
            text = text[: self._room]
        self._room -= len(text)
        self._voice(index).text += text

    def _voice(self, index: int) -> _Voice:
        voice = self._voices.get(index)
        if voice is None:
            voice = self._voices[index] = _Voice()
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
    return _Said(
        content=_text(value.get("content")),
        reasoning_content=_text(value.get("reasoning_content")),
        reasoning=_text(value.get("reasoning")),
        refusal=_text(value.get("refusal")),
        tool_calls=value.get("tool_calls"),
        function_call=value.get("function_call"),
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


def _index(choice: _Choice) -> int:
    index: object = choice.index
    return min(max(index, 0), _MAX_CHOICES - 1) if isinstance(index, int) else 0


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
    output = total - prompt if total > prompt + completion else completion
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


def _mould(event: bytes, answer: _Answer) -> _Mould | None:
    """The mould of `event`, proven by a trial decode; None if it says more than plain content."""
    if answer.usage is not None or answer.error is not None or len(answer.choices or ()) != 1:
        return None
    choice = (answer.choices or [])[0]
    content = choice.delta.content if choice.delta else None
    if not content or not choice.delta or choice.finish_reason:
        return None
    said = content.encode(errors="replace")
    start = event.find(b'"', event.find(b'"content"') + 9) + 1
    head, tail = event[:start], event[start + len(said) :]
    choice.delta.content = "~"
    if _decode(head + b"~" + tail) != answer or choice.delta != _Said(content="~"):
        return None
    return _Mould(head=head, tail=tail, choice=_index(choice))
