"""What is asked of the usage rows afterwards: reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from mintoken.models import Intensity, Outcome


class GroupBy(StrEnum):
    """What `mintoken usage` adds up by."""

    DAY = "day"
    KEY = "key"
    MODEL = "model"
    OUTCOME = "outcome"


PURGED = "(purged)"
"""The group of a report's line that adds up the rows that are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """One line of a usage report: sums over the settled rows of one group."""

    group: str
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    injected_tokens: int
    charged_tokens: int


MEASURES = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "injected_tokens",
    "estimated",
    "unreported",
)
"""What an ArmSample adds up.

`estimated` counts the requests whose tokens nobody counted, `unreported` those of which the
provider has not told the usage: their cached and reasoning tokens are unknown and stay 0.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSample:
    """What one arm of an experiment holds in one stratum, as sums over its conversations.

    Conversations are what is randomised, so each is one observation: the vector x of its MEASURES.
    `sums[i]` is the sum of x[i] over the conversations, `products[i][j]` that of x[i] * x[j]. The
    stratum is the model asked for, the `bucket` of the size of the conversation's opening, which no
    treatment has touched, and the `epoch`: since when the arms had their shares, in UTC
    milliseconds.
    """

    key_id: str
    model: str
    bucket: int
    epoch: int = 0
    arm: str
    conversations: int
    sums: tuple[int, ...]
    products: tuple[tuple[int, ...], ...]


# --- What the dashboard asks --------------------------------------------------------------------

HOUR_MS = 3_600_000
OTHER = "(other)"
"""The group of everything that is not among the first of a list."""


class Bucket(StrEnum):
    """The steps of a time series, UTC; a week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def hours(self) -> int:
        """How long it is."""
        return {"hour": 1, "day": 24, "week": 168}[self]

    @property
    def offset(self) -> int:
        """The hours by which its beginnings lie before multiples of its length since 1970."""
        return 72 if self is Bucket.WEEK else 0

    def floor(self, hour: int) -> int:
        """The hour at which the bucket of this hour begins, both since 1970."""
        return (hour + self.offset) // self.hours * self.hours - self.offset


class SplitBy(StrEnum):
    """What the lines of a time series stand for."""

    NONE = "none"
    LEVEL = "level"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Span:
    """Whole hours since 1970 (UTC), the last one exclusive."""

    start: int
    end: int

    @classmethod
    def around(cls, start_ms: int, end_ms: int, bucket: Bucket = Bucket.HOUR) -> "Span":
        """The whole buckets with everything between two times (UTC milliseconds, end exclusive)."""
        last = bucket.floor((end_ms - 1) // HOUR_MS)
        return cls(bucket.floor(start_ms // HOUR_MS), last + bucket.hours)

    @property
    def days(self) -> tuple[int, int]:
        """The whole days within, since 1970, the last one exclusive; maybe none."""
        first = -(-self.start // 24)
        return first, max(first, self.end // 24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sums over settled rows. `errors` ended neither `ok` nor `client_closed`, or with 400 or more.

    Not every request has a first byte, and not every one a duration: `first_bytes` and `durations`
    say how many add up to the milliseconds.
    """

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    injected_tokens: int = 0
    charged_tokens: int = 0
    first_bytes: int = 0
    first_byte_ms: int = 0
    durations: int = 0
    duration_ms: int = 0


USAGE_SUMS = tuple(field.name for field in fields(Usage))


@dataclass(frozen=True, slots=True)
class UsageOf:
    """What one key or one model used."""

    group: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a time series: of each of USAGE_SUMS its value in every bucket."""

    group: str
    sums: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds, within the width of a bucket; None if nothing was measured."""

    p50: int | None = None
    p95: int | None = None
    p99: int | None = None

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> "Latency":
        """Out of how many took how long, by the least milliseconds of each bucket."""
        return cls(*(_percentile(counts, percent) for percent in (50, 95, 99)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What an account used in a time, and how long it took."""

    usage: Usage
    first_byte: Latency
    duration: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Where an account stands in a month: charged tokens, and the limit (0 is unlimited)."""

    used: int
    reserved: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests are asked for; None is any."""

    key_id: str | None = None
    model: str | None = None
    intensity: Intensity | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One settled request (contract §6); never content."""

    id: str
    key_id: str
    started_at: int
    month: str
    protocol: str
    model: str
    model_served: str
    stream: bool
    intensity: str
    reason: str
    arm: str
    prompt_version: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    injected_tokens: int
    charged_tokens: int
    counted_by: str
    status: int
    outcome: str
    finish_reason: str
    upstream_request_id: str
    first_byte_ms: int | None
    duration_ms: int | None
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A row with its place in the order in which all rows were settled."""

    place: int
    row: UsageRow


def _percentile(counts: Mapping[int, int], percent: int) -> int | None:
    """The value below which that share lies, evenly spread within its bucket."""
    wanted, below = percent / 100 * sum(counts.values()), 0
    for least, count in sorted(counts.items()):
        if count and below + count >= wanted:
            return round(least + (_next(least) - least) * (wanted - below) / count)
        below += count
    return None


def _next(least: int) -> int:
    """Where the next latency bucket begins: 0, 1, 2, 3, 4, 6, 8, 12, 16 ..."""
    if least < 2:
        return least + 1
    is_power = least & (least - 1) == 0
    return least * 3 // 2 if is_power else least * 4 // 3
