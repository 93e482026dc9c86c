"""What is asked of the usage rows afterwards: reports."""

from dataclasses import dataclass
from enum import StrEnum


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
