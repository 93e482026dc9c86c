"""Asks the provider as the proxy would: the same body, the same injected text, the same client."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import msgspec
import orjson
from multidict import CIMultiDict

from mintoken import __version__
from mintoken.errors import (
    Code,
    EvaluationError,
    InterruptedByShutdownError,
    MintokenError,
    UpstreamBrokeError,
)
from mintoken.eval_records import Tokens
from mintoken.exchange import Turn
from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.tokens import Tokenizer
from mintoken.upstream import Answer, Upstream

PROTOCOL = OpenAIChat()
PATH = "/chat/completions"
TRIES = 5
LONGEST_PAUSE_S = 60.0
MAX_ANSWER_BYTES = 16 << 20
IDLE_S = 120.0

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
CAP_FIELDS = ("max_tokens", "max_completion_tokens")


class _Said(msgspec.Struct):
    content: str | list[dict[str, object]] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Said


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Error(msgspec.Struct):
    message: str | None = None
    code: str | int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error | str


_COMPLETION = msgspec.json.Decoder(_Completion)
_ERROR_BODY = msgspec.json.Decoder(_ErrorBody)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete answer."""

    text: str
    tokens: Tokens
    counted_by: str
    model: str
    finish_reason: str


class NoReplyError(Exception):
    """No answer came. `tokens` is what the request took; None where nobody knows."""

    def __init__(self, why: str, tokens: Tokens | None) -> None:
        self.tokens = tokens
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class _Got:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Asker:
    """Asks one provider with one key. `stopping` ends the pauses between tries."""

    def __init__(
        self, upstream: Upstream, key: str, tokenizer: Tokenizer, stopping: asyncio.Event
    ) -> None:
        self._upstream = upstream
        self._key = key
        self._tokenizer = tokenizer
        self._stopping = stopping
        # Every provider knows the first. Newer models of OpenAI's refuse it, and name the second.
        self._cap_field = CAP_FIELDS[0]
        self._reached = False
        """An address that never answered is a wrong one."""

    async def ask(
        self, model: str, messages: Sequence[Mapping[str, str]], text: str, cap: int
    ) -> Reply:
        """Ask with a level's text, "" for none, for at most `cap` tokens.

        Raises NoReplyError, and EvaluationError where asking anything else would fail as well.
        """
        for number in range(1, TRIES + 1):
            field = self._cap_field
            body = request_body(model, messages, text, field, cap)
            got = await self._send(body, last=number == TRIES)
            if got is not None and got.status < 400:
                return await self._read(got.body, PROTOCOL.read(body), len(body))
            if got is not None and self._other_cap(got, field):
                continue
            await self._refused(got, model, number)
        raise NoReplyError("It kept refusing the cap on the answer.", Tokens())

    async def _send(self, body: bytes, *, last: bool) -> _Got | None:
        """None if the provider could not be reached, so that nothing was sent."""
        headers = CIMultiDict(PROTOCOL.credential(self._key))
        headers["Content-Type"] = headers["Accept"] = "application/json"
        headers["User-Agent"] = f"mintoken/{__version__}"
        try:
            answer = await self._upstream.send("POST", PATH, "", headers, body)
            self._reached = True
            try:
                return _Got(answer.status, answer.headers(), await _whole(answer))
            finally:
                answer.close()
        except MintokenError as error:
            if error.code not in (Code.UPSTREAM_UNREACHABLE, Code.UPSTREAM_REDIRECT):
                raise NoReplyError(error.message, None) from None
            if last or not self._reached or error.code is Code.UPSTREAM_REDIRECT:
                raise EvaluationError(f"{error.message} Check --base-url.") from None
            return None
        except (UpstreamBrokeError, InterruptedByShutdownError, TimeoutError):
            raise NoReplyError("The answer broke off.", None) from None

    def _other_cap(self, got: _Got, field: str) -> bool:
        """Was the name of the cap refused, and is there another one to try?"""
        other = CAP_FIELDS[1]
        if got.status != 400 or field == other or other.encode() not in got.body:
            return False
        self._cap_field = other
        return True

    async def _refused(self, got: _Got | None, model: str, number: int) -> None:
        """Wait until it can be tried again. Raises what `ask` does."""
        if got is not None:
            if reason := _hopeless(got, model):
                raise EvaluationError(reason)
            if got.status not in _AGAIN or number == TRIES:
                raise NoReplyError(f"Status {got.status}: {self._told(got.body)}", Tokens())
        wait_s = pause_s(got.headers if got else {}, otherwise=2.0 ** (number - 1))
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise NoReplyError("Stopped before it was tried again.", Tokens())

    def _told(self, body: bytes) -> str:
        """The provider's message, which may quote the key or try to steer the terminal."""
        said = _message(body).replace(self._key, "[key]")[:300]
        return "".join(c if c.isprintable() else " " for c in said)

    async def _read(self, body: bytes, turn: Turn, sent: int) -> Reply:
        try:
            completion = _COMPLETION.decode(body)
        except msgspec.DecodeError:
            completion = _Completion([])
        if not completion.choices:
            raise NoReplyError("The answer is no chat completion.", None)
        meter = PROTOCOL.meter()
        meter.feed_body(body)
        spoken = meter.spoken()
        usage = await self._tokenizer.measure(spoken, turn.prompt, turn.model, prompt_bytes=sent)
        tokens = Tokens(input=usage.input, output=usage.output, reasoning=usage.reasoning)
        text = _text(completion.choices[0].message)
        if not text.strip():
            ended = spoken.finish_reason or "nothing said why"
            advice = " Give it more room with --cap." if ended == "length" else ""
            raise NoReplyError(f"The answer is empty ({ended}).{advice}", tokens)
        return Reply(
            text=text,
            tokens=tokens,
            counted_by=usage.counted_by.value,
            model=spoken.model,
            finish_reason=spoken.finish_reason,
        )


def request_body(
    model: str, messages: Sequence[Mapping[str, str]], text: str, cap_field: str, cap: int
) -> bytes:
    """A request as the proxy sends it on when a caller asks with a level of that text."""
    body = orjson.dumps({"model": model, "messages": messages, cap_field: cap})
    return PROTOCOL.inject(body, PROTOCOL.read(body), text)


async def _whole(answer: Answer) -> bytes:
    parts, size = [], 0
    while part := await answer.read(IDLE_S):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamBrokeError(b"")
    return b"".join(parts)


def pause_s(headers: Mapping[str, str], *, otherwise: float) -> float:
    """Seconds to wait by Retry-After (RFC 9110 §10.2.3), at most a minute."""
    given = headers.get("Retry-After", "")
    try:
        seconds = float(given)
    except ValueError:
        seconds = _until(given, headers.get("Date", ""), otherwise)
    return min(seconds, LONGEST_PAUSE_S) if seconds >= 0 else otherwise


def _until(given: str, now: str, otherwise: float) -> float:
    try:
        wait = parsedate_to_datetime(given) - parsedate_to_datetime(now)
    except (ValueError, TypeError):
        return otherwise
    return wait.total_seconds()


def _hopeless(got: _Got, model: str) -> str:
    """Why no other request would fare better; "" if one may."""
    match got.status:
        case 401:
            return (
                "The provider does not take the key (401). Check MINTOKEN_PROVIDER_KEY or "
                "OPENAI_API_KEY, and that it is a key of the provider at --base-url."
            )
        case 402:
            return "The provider asks for payment (402). Add credit there, then run this again."
        case 403:
            return f"The key may not use {model} there (403). Choose another --model or key."
        case 404:
            return (
                f"The provider knows no model {model}, or no chat completions at this address "
                "(404). Check --model and --base-url."
            )
        case 429 if b"insufficient_quota" in got.body:
            return "The account at the provider has no credit left (429). Add some, then go on."
    return ""


def _message(body: bytes) -> str:
    try:
        error = _ERROR_BODY.decode(body).error
    except msgspec.DecodeError:
        return "no message"
    return (error if isinstance(error, str) else error.message) or "no message"


def _text(said: _Said) -> str:
    if isinstance(said.content, list):
        return "".join(str(part.get("text", "")) for part in said.content)
    return said.content or said.refusal or ""
