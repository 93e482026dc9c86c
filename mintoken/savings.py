"""What Mintoken saved: tokens per request against the control arm, and what they are worth.

The money of one model, in US dollars per request of the product arm; o, i, c and j are the mean
tokens per request of output, input, cached input and injected text, s = c / i is the share of the
input that came from the cache, d is the discount on a cached token, and ' marks the control arm:

    output saved         (o' - o) output price
    injected text        -j (input price - s d)      at the rate that the arm's input was billed
    cache discount       (s - s') d (i - j)          lost where it is negative, won where positive

They add up to the net saving: what those requests would have cost without the text, with the
control arm's answers and the control arm's share of cache hits, minus what they did cost. The
discount goes by shares and not by tokens, because shorter answers make later turns shorter: what
is not sent any more is no discount lost. That those turns are cheaper is not counted, so the net
saving is on the low side where conversations are long.

Amounts are of the product arm's requests only: nothing was saved on the control's. A model's
amounts add up to the total's. Bypassed requests count in their arm (intention to treat).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mintoken.experiment import (
    FLOOR,
    MEASURE,
    WANTED,
    Comparison,
    Interval,
    Vector,
    compare,
    vector,
)
from mintoken.models import Key
from mintoken.pricing import Price, Prices
from mintoken.reports import ArmSample

ARMS = PRODUCT, CONTROL, CONCISE = "product", "control", "concise"
"""The arms that are compared. What was stopped is in none of them."""
MILLION = 1_000_000


class Status(StrEnum):
    """How far a measurement is."""

    MEASURED = "measured"
    COLLECTING = "collecting"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """US dollars saved on so many requests, negative where it cost more; the parts make the sum.

    `interval` is that of the sum, None below FLOOR.
    """

    requests: int
    output: float
    injected: float
    cache: float
    interval: Interval | None

    @property
    def net(self) -> float:
        """What is left in the end."""
        return self.output + self.injected + self.cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Two arms on one model, or on all of them together where `model` is None.

    The ratios are treated to reference, per request, None below FLOOR: of all output tokens, of
    the visible ones and of reasoning. `follow_ups` is that of requests per conversation: above 1,
    people had to ask again. `needed` are the conversations at which the ratio would be measured.
    Without `money` the model is unpriced.
    """

    model: str | None
    comparison: Comparison
    status: Status
    needed: int
    output: Interval | None
    visible: Interval | None
    reasoning: Interval | None
    follow_ups: Interval | None
    money: Money | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLine:
    """What one arm holds on one model, as it is: nothing is weighted, left out or compared."""

    model: str
    arm: str
    conversations: int
    requests: int
    output_per_request: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Product against control by model and in total; then the arm that only says to be concise."""

    arms: Sequence[ArmLine]
    lines: Sequence[Line]
    total: Line
    concise: Line | None
    over_concise: Line | None
    unpriced: Sequence[str]


def report(samples: Sequence[ArmSample], prices: Prices, *, control_share: float = 0) -> Report:
    """What the samples say; `control_share` is the share of control that is set, for an outlook."""
    by_model = defaultdict[str, list[ArmSample]](list)
    for sample in samples:
        by_model[sample.model].append(sample)
    models = sorted({sample.model for sample in samples if sample.arm in (PRODUCT, CONTROL)})
    with_concise = any(sample.arm == CONCISE for sample in samples)
    return Report(
        arms=_arms(samples),
        lines=[_line(name, by_model[name], prices, share=control_share) for name in models],
        total=_line(None, samples, prices, share=control_share),
        concise=_line(None, samples, prices, (CONCISE, CONTROL)) if with_concise else None,
        over_concise=_line(None, samples, prices, (PRODUCT, CONCISE)) if with_concise else None,
        unpriced=[name for name in models if name not in prices],
    )


def _arms(samples: Iterable[ArmSample]) -> list[ArmLine]:
    output = MEASURE["output_tokens"]
    groups: dict[tuple[str, int], list[ArmSample]] = defaultdict(list)
    for sample in samples:
        if sample.arm in ARMS:
            groups[sample.model, ARMS.index(sample.arm)].append(sample)
    return [
        ArmLine(
            model=model,
            arm=ARMS[place],
            conversations=sum(one.conversations for one in rows),
            requests=(requests := sum(one.sums[0] for one in rows)),
            output_per_request=sum(one.sums[output] for one in rows) / requests,
        )
        for (model, place), rows in sorted(groups.items())
    ]


def control_share(keys: Iterable[Key]) -> float:
    """The largest share of control that one of the keys has."""
    return max((key.control for key in keys), default=0) / 100


def _line(
    model: str | None,
    samples: Sequence[ArmSample],
    prices: Prices,
    arms: tuple[str, str] = (PRODUCT, CONTROL),
    *,
    share: float = 0,
) -> Line:
    comparison = compare(samples, *arms)
    enough = comparison.enough
    output = comparison.ratio(output_tokens=1) if enough else None
    again = comparison.ratio(conversations=1) if enough else None
    status, needed = _status(comparison, output, share)
    return Line(
        model=model,
        comparison=comparison,
        status=status,
        needed=needed,
        output=output,
        visible=comparison.ratio(output_tokens=1, reasoning_tokens=-1) if enough else None,
        reasoning=comparison.ratio(reasoning_tokens=1) if enough else None,
        follow_ups=again and Interval(1 / again.value, 1 / again.high, 1 / again.low),
        money=money(samples, prices, arms),
    )


def _status(comparison: Comparison, output: Interval | None, share: float) -> tuple[Status, int]:
    seen = sum(comparison.seen)
    if not comparison.seen[1]:
        if not 0 < share < 1:
            return Status.NOT_MEASURED, 0
        return Status.COLLECTING, max(seen, math.ceil(FLOOR / min(share, 1 - share)))
    if output is not None and (output.high - output.low) / 2 <= WANTED:
        return Status.MEASURED, seen
    return Status.COLLECTING, comparison.needed()


def money(
    samples: Iterable[ArmSample], prices: Prices, arms: tuple[str, str] = (PRODUCT, CONTROL)
) -> Money | None:
    """What the first arm saved over the second on the models that have a price; None without any.

    Models have no conversation in common, so their variances add up.
    """
    by_model: dict[str, list[ArmSample]] = defaultdict(list)
    for sample in samples:
        if sample.model in prices:
            by_model[sample.model].append(sample)
    if not by_model:
        return None
    parts, variance, requests = [0.0, 0.0, 0.0], 0.0, 0
    comparisons = {model: compare(rows, *arms) for model, rows in by_model.items()}
    for model, comparison in comparisons.items():
        if count := comparison.requests[0]:
            amounts, by_treated, by_reference = _net(comparison, prices[model])
            parts = [part + count * amount for part, amount in zip(parts, amounts, strict=True)]
            variance += count**2 * comparison.variance(by_treated, by_reference)
            requests += count
    [together, *more] = comparisons.values()
    if more:
        together = compare((row for rows in by_model.values() for row in rows), *arms)
    half = together.half_width(variance) if together.enough else 0.0
    net = sum(parts)
    return Money(
        requests=requests,
        output=parts[0],
        injected=parts[1],
        cache=parts[2],
        interval=Interval(net, net - half, net + half) if together.enough else None,
    )


def _net(comparison: Comparison, price: Price) -> tuple[tuple[float, float, float], Vector, Vector]:
    """The three parts of the net saving per request, and its derivatives by the arms' means."""
    full, out = price.input / MILLION, price.output / MILLION
    discount = full - price.cached_input / MILLION
    o, i, c, j = _means(comparison.treated)
    o_ref, i_ref, c_ref, j_ref = _means(comparison.reference)
    j -= j_ref
    s, s_ref = (c / i if i else 0.0), (c_ref / i_ref if i_ref else 0.0)
    parts = out * (o_ref - o), -j * (full - s * discount), discount * (s - s_ref) * (i - j)
    by_treated = vector(
        output_tokens=-out,
        injected_tokens=-full + discount * s_ref,
        cached_tokens=discount,
        input_tokens=-discount * s_ref,
    )
    lost = discount * (i - j) / i_ref if i_ref else 0.0
    by_reference = vector(
        output_tokens=out,
        injected_tokens=full - discount * s_ref,
        cached_tokens=-lost,
        input_tokens=lost * s_ref,
    )
    return parts, by_treated, by_reference


def _means(mean: Vector) -> tuple[float, float, float, float]:
    names = ("output_tokens", "input_tokens", "cached_tokens", "injected_tokens")
    o, i, c, j = (mean[MEASURE[name]] for name in names)
    return o, i, c, j


def changed(
    samples: Iterable[ArmSample], prices: Prices, stopped_now: Collection[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """The pairs of key id and model on which the product is to stop, or to start again.

    The samples are to be of the present epoch of each pair.
    """
    groups: Mapping[tuple[str, str], list[ArmSample]] = defaultdict(list)
    for sample in samples:
        groups[sample.key_id, sample.model].append(sample)
    return frozenset(
        pair
        for pair, rows in groups.items()
        if pays(_saved(rows, prices), stopped=pair in stopped_now) is (pair in stopped_now)
    )


def pays(saved: Interval | None, *, stopped: bool) -> bool:
    """Does the product run, by what it saved since it was stopped or started.

    It stops when the whole interval is at or below zero, and starts again when it is above. Where
    too little is known it stays as it is.
    """
    if saved is None:
        return not stopped
    return saved.low > 0 if stopped else saved.high > 0


def _saved(samples: Sequence[ArmSample], prices: Prices) -> Interval | None:
    """The money saved on these samples of one model; unpriced, its output tokens per request."""
    if (worth := money(samples, prices)) is not None:
        return worth.interval
    comparison = compare(samples, PRODUCT, CONTROL)
    if not comparison.enough:
        return None
    output = vector(output_tokens=1)
    place = MEASURE["output_tokens"]
    return comparison.around(
        comparison.reference[place] - comparison.treated[place], [-one for one in output], output
    )
