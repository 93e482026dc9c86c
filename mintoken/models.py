"""The words everyone speaks: frozen values and closed sets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class Intensity(StrEnum):
    """How much shorter the answer is asked to be."""

    NONE = "none"
    LITE = "lite"
    FULL = "full"
    ULTRA = "ultra"


class Outcome(StrEnum):
    """How a request ended; RESERVED while it has not."""

    RESERVED = "reserved"
    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_CLOSED = "client_closed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_BROKE = "upstream_broke"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"


class CountedBy(StrEnum):
    """Who counted a row's tokens; an ESTIMATE is a lower bound or a guess, never a count."""

    UPSTREAM = "upstream"
    TIKTOKEN = "tiktoken"
    ESTIMATE = "estimate"


class QuotaCounts(StrEnum):
    """Which tokens the monthly quota counts."""

    OUTPUT = "output"
    TOTAL = "total"


class Enforcement(StrEnum):
    """SOFT reserves little and may overshoot; STRICT reserves the whole cap and never does."""

    SOFT = "soft"
    STRICT = "strict"


def label(text: str, size: int = 200) -> str:
    """A name from outside as it may be stored: of bounded size, and text in every database."""
    return text[:size].encode(errors="replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who pays. `monthly_tokens` 0 is unlimited; times are UTC milliseconds."""

    id: str
    name: str
    monthly_tokens: int
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A Mintoken key, without its secret: `hash` is the keyed hash, `prefix` is for display.

    `smart` lets detection choose the level; `intensity` is that of what it has nothing to say on.
    `rpm` (requests per minute) and `concurrency` are limits, 0 is none. `control` and `concise` are
    the percent of conversations in these arms of its experiment; `auto_stop` ends what does not
    pay. `origin` is the first key of a row of rotations, "" the key itself. Times are UTC
    milliseconds.
    """

    id: str
    account_id: str
    name: str
    prefix: str
    hash: bytes = field(repr=False)
    intensity: Intensity
    smart: bool = False
    rpm: int = 0
    concurrency: int = 0
    control: int = 0
    concise: int = 0
    auto_stop: bool = True
    origin: str = ""
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    @property
    def experiment(self) -> str:
        """The id by which experiments know the key, which a rotation does not change."""
        return self.origin or self.id


@dataclass(frozen=True, slots=True)
class Directory:
    """All accounts and keys as of one revision of the store.

    `stopped` are the pairs of a `Key.experiment` and a model on which the product does not pay.
    """

    revision: int
    accounts: tuple[Account, ...]
    keys: tuple[Key, ...]
    stopped: frozenset[tuple[str, str]] = frozenset()


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The level that runs and why (contract §3, X-Mintoken-Reason)."""

    intensity: Intensity
    reason: str


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one exchange. `cached` is part of `input`, `reasoning` is part of `output`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    counted_by: CountedBy = CountedBy.ESTIMATE

    def charged(self, counts: QuotaCounts) -> int:
        """The tokens that the quota counts of them (contract §5)."""
        return self.output + (self.input if counts is QuotaCounts.TOTAL else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a prompt, in pixels; 0 x 0 where the size is not known. `low` detail or not."""

    width: int = 0
    height: int = 0
    low: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a prompt holds, as far as its tokens go.

    `texts` are its contents, `messages` how many messages they came in, `extra_bytes` the size of
    billed JSON that is not text (tools, schemas), `exact` is False where something in it can only
    be estimated.
    """

    texts: tuple[str, ...] = ()
    messages: int = 0
    images: tuple[Image, ...] = ()
    extra_bytes: int = 0
    exact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks, as far as detection and rules look; long texts without their middle.

    `system` is the leading system text, `turns` are the user's messages in their order. `cap` is
    the caller's own limit of output tokens, None without one. `structure` is JSON or a schema as
    the format of the answer, `tool_result` says that the result of a tool is among the messages.
    """

    system: str = field(default="", repr=False)
    turns: tuple[str, ...] = field(default=(), repr=False)
    cap: int | None = None
    structure: bool = False
    forced_tool: bool = False
    logprobs: bool = False
    prediction: bool = False
    audio: bool = False
    tool_result: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What tells conversations apart: the leading system text and the first user message.

    `pieces` are their texts and media as the JSON had them, an empty one between the two;
    `text_bytes` is the size of the texts.
    """

    pieces: tuple[memoryview, ...] = field(default=(), repr=False)
    text_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A read-only view of a request body; the bytes themselves are kept elsewhere.

    `model` is "" where it is missing or not a string. `cap` is the caller's own limit of output
    tokens, None without one. `inject_at` is where system text can go, None where it cannot.
    `prompt` reads the prompt for counting, when somebody needs it, `asked` what is asked, and
    `opening` how the conversation begins.
    `usage_question` is what to add so that the provider sends its own count of a stream; empty
    where the caller has decided that.
    """

    model: str
    stream: bool
    cap: int | None
    inject_at: int | None
    prompt: Callable[[], Prompt] = field(repr=False)
    asked: Callable[[], Asked] = field(repr=False)
    opening: Callable[[], Opening] = field(repr=False)
    usage_question: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What an answer said, as far as it was seen.

    `usage` is the provider's own count, None without one. `said` is everything visible joined, in
    UTF-8 (content, reasoning, refusals, tool-call names and arguments of every choice);
    `tool_calls` has one number per choice. `unread_bytes` were seen but not understood (too large,
    or encoded). `done` says that the answer came to its proper end, `failed` that the provider sent
    an error.
    """

    model: str = ""
    finish_reason: str = ""
    usage: TokenUsage | None = None
    said: bytes = field(default=b"", repr=False)
    tool_calls: tuple[int, ...] = ()
    unread_bytes: int = 0
    done: bool = False
    failed: bool = False

    @property
    def text(self) -> str:
        """What was said; to be asked only by who needs it, for megabytes take milliseconds."""
        return self.said.decode(errors="replace")


class Reservation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A usage row as it is written before the upstream is asked.

    `reserved_tokens` are held until settlement; the request is admitted if `needed_tokens` more
    fit into the month (1 for soft, the whole reservation for strict: contract §5).
    """

    id: str
    account_id: str
    key_id: str
    started_at: int
    month: str
    protocol: str
    model: str
    stream: bool
    intensity: Intensity
    reason: str
    arm: str
    conversation: str = ""
    opening_bytes: int = 0
    prompt_version: str
    injected_tokens: int
    bytes_in: int
    reserved_tokens: int
    needed_tokens: int


class Settlement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of a reserved row; `charged_tokens` is what the quota counts of it."""

    id: str
    outcome: Outcome
    status: int
    model_served: str = ""
    finish_reason: str = ""
    upstream_request_id: str = ""
    tokens: TokenUsage
    charged_tokens: int
    first_byte_ms: int | None = None
    duration_ms: int
    bytes_out: int


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a running stream, kept in case this process dies."""

    id: str
    output_tokens: int
    bytes_out: int


class Admission(msgspec.Struct, frozen=True, gc=False):
    """The quota's answer: tokens used this month and the limit (0 is unlimited)."""

    admitted: bool
    used: int
    limit: int
