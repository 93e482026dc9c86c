"""What an evaluation may spend."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mintoken.eval_records import Tokens

_TOKENS_PER_MESSAGE = 16
"""Roles and marks between messages; no provider is known to take more."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def of(self, tokens: Tokens) -> float:
        """US dollars for these."""
        return (tokens.input * self.input + tokens.output * self.output) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of all requests of an evaluation together; None is no limit.

    `prices` are by judge, "" for the model that is evaluated. With `max_usd` each one is needed.
    """

    max_usd: float | None = None
    max_tokens: int | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)

    def usd(self, spent: Mapping[str, Tokens]) -> float | None:
        """What that costs; None where a price is not known."""
        if any(judge not in self.prices for judge in ("", *spent)):
            return None
        return sum(self.prices[judge].of(tokens) for judge, tokens in spent.items())

    def admits(self, spent: Mapping[str, Tokens]) -> bool:
        """Is so much within the limits?"""
        usd = self.usd(spent)
        # A sum of cents may miss the limit that it is by a hair.
        cheap = self.max_usd is None or (usd is not None and usd <= self.max_usd + 1e-9)
        return cheap and (self.max_tokens is None or total(spent) <= self.max_tokens)

    def told(self, spent: Mapping[str, Tokens]) -> str:
        """For people: what was spent, of how much."""
        usd, parts = self.usd(spent), []
        if usd is not None:
            parts.append(_of(usd, self.max_usd, "${:,.4f}"))
        if usd is None or self.max_tokens is not None:
            parts.append(_of(total(spent), self.max_tokens, "{:,}") + " tokens")
        return ", ".join(parts)


def _of(spent: float, limit: float | None, form: str) -> str:
    return form.format(spent) + ("" if limit is None else f" of {form.format(limit)}")


def total(spent: Mapping[str, Tokens]) -> int:
    """Input and output tokens of everything."""
    return sum(tokens.input + tokens.output for tokens in spent.values())


def more(spent: Mapping[str, Tokens], judge: str, tokens: Tokens) -> dict[str, Tokens]:
    """The same, and these."""
    return {**spent, judge: spent.get(judge, Tokens()) + tokens}


def most_of(text_bytes: int, messages: int, cap: int) -> Tokens:
    """The most that a request can take: a token has a byte at least, an answer keeps to its cap."""
    return Tokens(input=text_bytes + _TOKENS_PER_MESSAGE * messages, output=cap)


def price_of(text: str) -> Price:
    """`2.5,10` as dollars per million tokens of input and output. Raises ValueError."""
    parts = [float(part) for part in text.split(",")]
    if len(parts) != 2 or not all(math.isfinite(part) and part >= 0 for part in parts):
        raise ValueError(text)
    return Price(*parts)
