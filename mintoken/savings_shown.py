"""Savings as JSON shows them; the shapes also describe it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from mintoken.experiment import MEASURE, Comparison, Interval
from mintoken.pricing import Price, Prices
from mintoken.savings import ArmLine, Line, Money, Report, Status
from mintoken.statement import prices_used
from mintoken.usage_shown import Time


class Counts(Struct, frozen=True, kw_only=True):
    """Of the arm that is judged, and of the one that it is judged by."""

    treated: int
    reference: int


class Means(Struct, frozen=True, kw_only=True):
    """The same per request; null where too little is known."""

    treated: float | None
    reference: float | None


class MoneyShown(Struct, frozen=True, kw_only=True):
    """US dollars saved on so many requests, negative where it cost more; the parts make the sum."""

    currency: str
    requests: int
    net: Interval
    output_saved: float
    injected_text: float
    cache_discount: float
    net_per_1000_requests: float


class LineShown(Struct, frozen=True, kw_only=True):
    """Two arms on one model, or on all together where `model` is null.

    Ratios are treated to reference; null where too little is known, as `money` is.
    """

    model: str | None
    status: Status
    conversations: Counts
    needed_conversations: int
    requests: Counts
    left_out: float
    output_per_request: Means
    output_ratio: Interval | None
    visible_ratio: Interval | None
    reasoning_ratio: Interval | None
    requests_per_conversation_ratio: Interval | None
    estimated: Means
    unreported: Means
    money: MoneyShown | None
    priced: bool


class StopShown(Struct, frozen=True, kw_only=True):
    """Where the product is stopped because it does not pay."""

    key: str
    model: str
    since: Time | None


class SavingsShown(Struct, frozen=True, kw_only=True):
    """Tokens per request, US dollars, and ratios with their intervals."""

    arms: Sequence[ArmLine]
    total: LineShown
    models: Sequence[LineShown]
    concise_against_control: LineShown | None
    product_against_concise: LineShown | None
    unpriced: Sequence[str]
    prices: Mapping[str, Price]
    confidence: float
    stopped: Sequence[StopShown]


def savings_shown(
    report: Report, prices: Prices, stops: Iterable[Mapping[str, Any]] = ()
) -> SavingsShown:
    """The report; `stops` say where the product is stopped."""
    return SavingsShown(
        arms=report.arms,
        total=_line(report.total),
        models=[*map(_line, report.lines)],
        concise_against_control=_line(report.concise) if report.concise else None,
        product_against_concise=_line(report.over_concise) if report.over_concise else None,
        unpriced=report.unpriced,
        prices=prices_used(report, prices),
        confidence=0.95,
        stopped=[StopShown(**stop) for stop in stops],
    )


def _line(line: Line) -> LineShown:
    comparison, known = line.comparison, line.output is not None
    return LineShown(
        model=line.model,
        status=line.status,
        conversations=_counts(comparison.seen),
        needed_conversations=line.needed,
        requests=_counts(comparison.requests),
        left_out=comparison.left_out,
        output_per_request=_means(comparison, "output_tokens") if known else _UNKNOWN,
        output_ratio=line.output,
        visible_ratio=line.visible,
        reasoning_ratio=line.reasoning,
        requests_per_conversation_ratio=line.follow_ups,
        estimated=_means(comparison, "estimated"),
        unreported=_means(comparison, "unreported"),
        money=_money(line.money),
        priced=line.money is not None,
    )


_UNKNOWN = Means(treated=None, reference=None)


def _means(comparison: Comparison, measure: str) -> Means:
    place = MEASURE[measure]
    return Means(treated=comparison.treated[place], reference=comparison.reference[place])


def _counts(pair: tuple[int, int]) -> Counts:
    return Counts(treated=pair[0], reference=pair[1])


def _money(worth: Money | None) -> MoneyShown | None:
    if worth is None or worth.interval is None:
        return None
    return MoneyShown(
        currency="USD",
        requests=worth.requests,
        net=worth.interval,
        output_saved=worth.output,
        injected_text=worth.injected,
        cache_discount=worth.cache,
        net_per_1000_requests=1000 * worth.net / worth.requests,
    )
