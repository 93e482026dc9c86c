"""The words everyone speaks: frozen values and closed sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class Intensity(StrEnum):
    """How much shorter the answer is asked to be."""

    NONE = "none"
    LITE = "lite"
    FULL = "full"
    ULTRA = "ultra"


class RuleAction(StrEnum):
    """What a custom rule does with the requests that it matches."""

    NEVER_COMPRESS = "never_compress"
    ALWAYS_COMPRESS = "always_compress"
    LEVEL_NONE = "level:none"
    LEVEL_LITE = "level:lite"
    LEVEL_FULL = "level:full"
    LEVEL_ULTRA = "level:ultra"

    @property
    def intensity(self) -> Intensity:
        """The level that it chooses."""
        match self:
            case RuleAction.NEVER_COMPRESS:
                return Intensity.NONE
            case RuleAction.ALWAYS_COMPRESS:
                return Intensity.ULTRA
            case _:
                return Intensity(self.value.removeprefix("level:"))


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
    the percent of conversations in these arms of its experiment, `shares_since` when that was last
    changed; `auto_stop` ends what does not pay. `origin` is the first key of a row of rotations, ""
    the key itself. Times are UTC milliseconds.
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
    shares_since: int = 0
    origin: str = ""
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    @property
    def experiment(self) -> str:
        """The id by which experiments know the key, which a rotation does not change."""
        return self.origin or self.id

    @property
    def is_watched(self) -> bool:
        """Is the product to be stopped where it does not pay?"""
        return self.auto_stop and self.control > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A custom rule of an account: what to do where `pattern` is found in the last user message.

    The higher `priority` wins; `created_at` is in UTC milliseconds.
    """

    id: str
    account_id: str
    action: RuleAction
    pattern: str
    priority: int = 0
    created_at: int


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Whether the product is stopped on a model of a key, and since when (UTC milliseconds)."""

    stopped: bool = False
    since_ms: int = 0


UNJUDGED = Verdict()


@dataclass(frozen=True, slots=True)
class Directory:
    """All accounts, keys and rules as of one revision of the store.

    `verdicts` are by `Key.experiment` and model; what is not there has never been stopped.
    """

    revision: int
    accounts: tuple[Account, ...]
    keys: tuple[Key, ...]
    rules: tuple[Rule, ...] = ()
    verdicts: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)

    def key_names(self, account_id: str) -> dict[str, str]:
        """The names of an account's keys, by id; of those that have ended too."""
        return {key.id: key.name for key in self.keys if key.account_id == account_id}

    def verdict(self, key: Key, model: str) -> Verdict:
        """What holds for a model of a key."""
        return self.verdicts.get((key.experiment, model), UNJUDGED)

    def epoch(self, key: Key, model: str) -> int:
        """Since when the arms of a model of a key have their shares (UTC milliseconds)."""
        return max(key.shares_since, self.verdict(key, model).since_ms)


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
    epoch: int = 0
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
