"""What two arms of an experiment say of each other, with an interval that holds at every look.

**The unit** is the conversation: it is what is assigned to an arm, and its requests resemble each
other. A figure per request is therefore a ratio of sums over conversations (Cochran, Sampling
Techniques, 3rd ed., ch. 6), and its variance is that of conversations, not of requests.

**Strata** are key, model, epoch and size of the opening: things that no treatment has touched. The
key is one of them because keys may have different shares of control, and comparing across them
would take the difference between two applications for an effect; the epoch, because where shares
changed meanwhile, by hand or by a stop, that would be done with the difference between two times.
The reference arm is weighted to the treated arm's requests: how many tokens would *those requests*
have taken. So what the treated arm took is what the rows say, with no weight on it, and amounts of
money add up over models. Sizes next to each other are merged until both arms have STRATUM
conversations; what is then still without a counterpart is left out, and its share is told. Only
counts decide that, never outcomes.

**Variance**: every estimate here is a smooth function of the arms' means, so to first order it is a
sum over conversations of c'x, x being what a conversation used. Its variance is the sum of c'Pc
over the strata, P being the sum of xx' that a sample brings (the delta method, linearised as in
Deville, Survey Methodology 25 (1999) 193-203). n / (n - 1) makes up for the means being estimated.

**The interval** is an asymptotic confidence sequence: the time-uniform central limit theorem of
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of Statistics 52 (2024) 2613-2640,
arXiv:2103.06476, which is Robbins' normal mixture with an estimated variance. After t observations
of standard deviation s it is

    mean +- s sqrt(2 (t r + 1) / (t^2 r) log(sqrt(t r + 1) / alpha)),  r = rho^2

so with m = t r and the standard error s / sqrt(t) its half width is

    standard error * sqrt((1 + 1/m) (log(1 + m) - 2 log alpha)).

It holds at all looks together, however many and whenever, so somebody may look daily and stop when
he likes the answer. That costs width: 1.55 times a fixed-sample interval at t = TUNED_AT. Here t is
n1 n2 / (n1 + n2) of the arms' conversations, which is what the precision of a comparison grows
with. `r` is the one whose interval is narrowest at TUNED_AT (m = log(1 + m) - 2 log alpha),
chosen beforehand: to choose it by the data would break the guarantee.

"Asymptotic" means that small samples are another matter: lengths of answers have long tails, and
while the longest have not come yet, a mean and its variance are both seen too small. So there is no
interval below FLOOR, and variances are widened by 1 + TAIL / n, n being the smaller arm's
conversations. TAIL is no theory but was set on simulated tenants: over 90 days of looks it took
coverage from 93 to 96 % where that was worst, and costs 2 % of the width at n = 900.

What is not covered: conversations are taken to leave each other alone, and one that goes on over a
change of shares counts as two.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mintoken.reports import MEASURES, ArmSample

ALPHA = 0.05
FLOOR = 100
"""Conversations that each arm must have before anything is claimed."""
STRATUM = 10
"""Conversations that each arm must have in a stratum, so that its variance can be seen."""
TAIL = 40
TUNED_AT = 500
WANTED = 0.10
"""The half width at which a ratio counts as measured: ten percentage points."""

MEASURE = {name: place for place, name in enumerate((*MEASURES, "conversations"))}
SIZE = len(MEASURE)

Vector = Sequence[float]
"""One number for each MEASURE."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sums:
    """Over n conversations, `total[i]` sums measure i, `products[i][j]` measure i times j."""

    n: int
    total: Vector
    products: Sequence[Vector]

    def per_request(self) -> Vector:
        """The mean of each measure per request."""
        requests = self.total[0]
        return [value / requests for value in self.total]

    def squared(self, change: Mapping[int, float]) -> float:
        """The sum over the conversations of (change' x)^2, for estimated means."""
        form = 0.0
        for i, by in change.items():
            row = self.products[i]
            for j, other in change.items():
                form += by * other * row[j]
        return max(0.0, form) * self.n / (self.n - 1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arms over the same strata; everything per request, and of the treated arm's requests.

    `treated` has what that arm took, `reference` what it would have taken like the other arm.
    `left_out` is the share of the treated arm's requests that had no counterpart; `seen` are the
    conversations of the two arms with those that were left out.
    """

    strata: Sequence[tuple[Sums, Sums]]
    seen: tuple[int, int]
    conversations: tuple[int, int]
    requests: tuple[int, int]
    treated: Vector
    reference: Vector
    left_out: float

    @property
    def enough(self) -> bool:
        """Are both arms large enough for an interval."""
        return min(self.conversations) >= FLOOR

    def variance(self, by_treated: Vector, by_reference: Vector) -> float:
        """Of an estimate with these derivatives by the means of the two arms."""
        requests, variance = self.requests[0], 0.0
        own = -_dot(by_treated, self.treated) - _dot(by_reference, self.reference)
        # Most derivatives are zero, and strata may be a thousand.
        taken = {place: by / requests for place, by in enumerate(by_treated) if by}
        compared = {place: by for place, by in enumerate(by_reference) if by}
        for treated, reference in self.strata:
            fitted = sum(by * reference.total[place] for place, by in compared.items())
            fitted /= reference.total[0]
            # One more treated request: what it took itself, and its weight on its stratum.
            change = taken | {0: taken.get(0, 0.0) + (own + fitted) / requests}
            variance += treated.squared(change)
            weight = treated.total[0] / requests / reference.total[0]
            change = {place: weight * by for place, by in compared.items()}
            change[0] = change.get(0, 0.0) - weight * fitted
            variance += reference.squared(change)
        return variance

    def half_width(self, variance: float, *, grown: float = 1.0) -> float:
        """Of the interval; `grown` is how many times the present sample it is to be for."""
        treated, reference = self.conversations
        m = _TUNED * grown * treated * reference / (treated + reference) / TUNED_AT
        variance *= (1 + TAIL / min(treated, reference) / grown) / grown
        return math.sqrt(variance * (1 + 1 / m) * (math.log1p(m) - 2 * math.log(ALPHA)))

    def around(self, value: float, by_treated: Vector, by_reference: Vector) -> Interval:
        """The interval of an estimate with these derivatives."""
        half = self.half_width(self.variance(by_treated, by_reference))
        return Interval(value, value - half, value + half)

    def ratio(self, **measures: int) -> Interval | None:
        """Treated to reference of a sum of measures, as `output_tokens=1, reasoning_tokens=-1`.

        None where one of the two is not above zero. Worked out in logarithms, so that the interval
        never leaves the positive numbers and is better centred.
        """
        of = vector(**measures)
        treated, reference = _dot(of, self.treated), _dot(of, self.reference)
        if treated <= 0 or reference <= 0:
            return None
        log = self.around(
            math.log(treated / reference),
            [one / treated for one in of],
            [-one / reference for one in of],
        )
        return Interval(*(math.exp(end) for end in (log.value, log.low, log.high)))

    def needed(self) -> int:
        """Conversations of both arms, about, until the ratio of output is known within WANTED."""
        grown = max(1.0, FLOOR / (min(self.conversations) or min(self.seen) or 1))
        output = MEASURE["output_tokens"]
        treated, reference = self.treated[output], self.reference[output]
        if treated > 0 and reference > 0:
            of = vector(output_tokens=1)
            variance = self.variance(
                [one / treated for one in of], [-one / reference for one in of]
            )
            while _points(treated / reference, self.half_width(variance, grown=grown)) > WANTED:
                grown *= 1.02
        return _rounded_up(sum(self.seen) * grown) if grown > 1 else sum(self.seen)


def _narrowest() -> float:
    """The m whose interval is narrowest for its sample."""
    m = 1.0
    for _ in range(50):
        m = math.log1p(m) - 2 * math.log(ALPHA)
    return m


_TUNED = _narrowest()


def vector(**measures: float) -> list[float]:
    """A vector of these values by the names of their measures."""
    values = [0.0] * SIZE
    for name, value in measures.items():
        values[MEASURE[name]] = value
    return values


def compare(samples: Iterable[ArmSample], treated: str, reference: str) -> Comparison:
    """Two arms of the samples, over the strata that both have."""
    groups: dict[tuple[str, str, int], dict[int, list[Sums]]] = defaultdict(dict)
    for sample in samples:
        if sample.arm in (treated, reference) and sample.sums[0] > 0:
            group = groups[sample.key_id, sample.model, sample.epoch]
            bucket = group.setdefault(sample.bucket, [_EMPTY, _EMPTY])
            arm = int(sample.arm == reference)
            bucket[arm] = _joined(bucket[arm], _sums(sample))
    strata = [stratum for buckets in groups.values() for stratum in _merged(buckets)]
    everything = [sums for buckets in groups.values() for sums in buckets.values()]
    requests = sum(one.total[0] for one, _ in everything)
    compared = sum(one.total[0] for one, _ in strata)
    return Comparison(
        strata=strata,
        seen=(sum(one.n for one, _ in everything), sum(other.n for _, other in everything)),
        conversations=(sum(one.n for one, _ in strata), sum(other.n for _, other in strata)),
        requests=(int(compared), int(sum(other.total[0] for _, other in strata))),
        treated=_weighted([(one.total[0], one.per_request()) for one, _ in strata]),
        reference=_weighted([(one.total[0], other.per_request()) for one, other in strata]),
        left_out=1 - compared / requests if requests else 0.0,
    )


def _merged(buckets: dict[int, list[Sums]]) -> list[tuple[Sums, Sums]]:
    """Buckets next to each other made one until both arms have enough conversations in it."""
    strata: list[tuple[Sums, Sums]] = []
    one, other = _EMPTY, _EMPTY
    for bucket in sorted(buckets):
        one, other = _joined(one, buckets[bucket][0]), _joined(other, buckets[bucket][1])
        if min(one.n, other.n) >= STRATUM:
            strata.append((one, other))
            one, other = _EMPTY, _EMPTY
    if strata:
        strata[-1] = _joined(strata[-1][0], one), _joined(strata[-1][1], other)
    return strata


def _sums(sample: ArmSample) -> Sums:
    """The sums of a sample, with the number of conversations as one more measure: always 1."""
    total = (*sample.sums, sample.conversations)
    products = [(*row, total[place]) for place, row in enumerate(sample.products)]
    return Sums(sample.conversations, total, (*products, total))


def _joined(one: Sums, other: Sums) -> Sums:
    if not one.n or not other.n:
        return one if one.n else other
    return Sums(
        one.n + other.n,
        _added(one.total, other.total),
        [_added(*rows) for rows in zip(one.products, other.products, strict=True)],
    )


_EMPTY = Sums(0, [0.0] * SIZE, [[0.0] * SIZE] * SIZE)


def _weighted(means: Sequence[tuple[float, Vector]]) -> Vector:
    total = sum(weight for weight, _ in means) or 1.0
    return [sum(weight * mean[place] for weight, mean in means) / total for place in range(SIZE)]


def _added(one: Vector, other: Vector) -> Vector:
    return [a + b for a, b in zip(one, other, strict=True)]


def _dot(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _points(ratio: float, half: float) -> float:
    """Half the width of the ratio's interval whose logarithm has this half width."""
    return ratio * math.sinh(min(half, 50.0))


def _rounded_up(count: float) -> int:
    """To two digits: it is no more certain than that."""
    unit = 10.0 ** max(0, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / unit) * unit)
