"""Simulated tenants: conversations of some turns, several models and sizes, odd lengths."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from mintoken.reports import MEASURES, ArmSample

CONTROL = 0.1
"""The share of conversations in the control arm."""

Rows = Sequence[Mapping[str, int]]
"""Conversations by the names of their measures."""
Row = tuple[int, int, int, int, int]
"""Of a conversation: requests r, output o, and r*r, r*o and o*o."""
Seen = Mapping[tuple[int, int], tuple[int, Sequence[float]]]
"""By population and arm (1 is control): conversations, and the sums of their rows."""


@dataclass(frozen=True)
class Population:
    """The conversations of one model and size; `effect` is what the product makes of an answer."""

    model: str
    bucket: int
    share: float
    effect: float
    pool: list[Row]

    def mean(self, place: int) -> float:
        return sum(row[place] for row in self.pool) / len(self.pool)


@lru_cache
def populations(seed: int) -> tuple[Population, ...]:
    """Three models in two sizes; the product shortens the first's answers most."""
    random = Random(seed)
    made = []
    for model, effect, share in (("a", 0.35, 0.5), ("b", 0.6, 0.3), ("c", 0.9, 0.2)):
        for bucket, part in ((9, 0.7), (12, 0.3)):
            pool = [_conversation(random, 4.5 + 0.3 * (bucket - 9)) for _ in range(4000)]
            made.append(Population(model, bucket, share * part, effect, pool))
    return tuple(made)


def _conversation(random: Random, log_length: float) -> Row:
    """Some turns, whose lengths are lognormal and resemble each other."""
    turns = 1 + min(19, int(random.expovariate(0.7)))
    usual = random.gauss(log_length, 0.6)
    output = round(sum(math.exp(random.gauss(usual, 0.8)) for _ in range(turns)))
    return turns, output, turns * turns, turns * output, output * output


def truth(tenants: Sequence[Population], *, effects: bool) -> float:
    """Output per request with the product, to that without, in the whole population."""
    without = sum(one.share * one.mean(1) for one in tenants)
    return (
        sum(one.share * one.mean(1) * (one.effect if effects else 1) for one in tenants) / without
    )


def days(random: Random, tenants: Sequence[Population], *, days: int, daily: int) -> Iterator[Seen]:
    """What is known at the end of each day."""
    seen = {(one, arm): (0, (0.0,) * 5) for one in range(len(tenants)) for arm in (0, 1)}
    shares = [tenants[one].share * (CONTROL if arm else 1 - CONTROL) for one, arm in seen]
    for _ in range(days):
        for (one, arm), n in Counter(random.choices([*seen], shares, k=daily)).items():
            before, sums = seen[one, arm]
            columns = zip(*random.choices(tenants[one].pool, k=n), strict=True)
            sums = tuple(a + sum(column) for a, column in zip(sums, columns, strict=True))
            seen[one, arm] = before + n, sums
        yield seen


def samples(tenants: Sequence[Population], seen: Seen, *, effects: bool) -> list[ArmSample]:
    """The same as the store would answer it; tokens but the output's are left out."""
    return [
        _sample(tenants[one], arm, n, sums, 1.0 if arm or not effects else tenants[one].effect)
        for (one, arm), (n, sums) in seen.items()
        if n
    ]


def _sample(one: Population, arm: int, n: int, seen: Sequence[float], effect: float) -> ArmSample:
    requests, output, rr, ro, oo = seen
    products = [NOTHING] * len(MEASURES)
    products[0] = _measures(rr, effect * ro)
    products[OUTPUT] = _measures(effect * ro, effect * effect * oo)
    return ArmSample(
        key_id="key", model=one.model, bucket=one.bucket, arm="control" if arm else "product",
        conversations=n, sums=_measures(requests, effect * output), products=tuple(products),
    )  # fmt: skip


def _measures(requests: float, output: float) -> tuple[int, ...]:
    values = [0] * len(MEASURES)
    values[0], values[OUTPUT] = round(requests), round(output)
    return tuple(values)


OUTPUT = MEASURES.index("output_tokens")
NOTHING = _measures(0, 0)


def sample_of(
    conversations: Rows,
    *,
    arm: str,
    model: str = "gpt-4o",
    bucket: int = 9,
    epoch: int = 0,
    key_id: str = "key",
) -> ArmSample:
    """What conversations add up to; each has its measures, and one request unless it says so."""
    rows = [[{"requests": 1, **one}.get(name, 0) for name in MEASURES] for one in conversations]
    return ArmSample(
        key_id=key_id, model=model, bucket=bucket, epoch=epoch, arm=arm, conversations=len(rows),
        sums=tuple(sum(column) for column in zip(*rows, strict=True)),
        products=tuple(
            tuple(sum(row[i] * row[j] for row in rows) for j in range(len(MEASURES)))
            for i in range(len(MEASURES))
        ),
    )  # fmt: skip


def conversations(random: Random, n: int, scale: float) -> Rows:
    """All measures, odd and correlated; `scale` is what an answer is multiplied by."""
    made = []
    for _ in range(n):
        turns = random.randint(1, 5)
        size = random.lognormvariate(5, 0.5)
        made.append(
            {
                "requests": turns,
                "input_tokens": round(size * turns * (turns + 1)),
                "cached_tokens": round(size * turns * random.random()),
                "output_tokens": round(scale * random.lognormvariate(4, 0.7) * turns),
                "reasoning_tokens": round(scale * random.lognormvariate(3, 0.7) * turns),
                "injected_tokens": 61 * turns,
            }
        )
    return made


def jackknife(estimate: Callable[[list[Rows]], float], cells: list[Rows]) -> float:
    """The variance by leaving out one conversation after the other."""
    variance = 0.0
    for place, rows in enumerate(cells):
        without = [
            estimate([*cells[:place], [*rows[:one], *rows[one + 1 :]], *cells[place + 1 :]])
            for one in range(len(rows))
        ]
        mean = sum(without) / len(without)
        variance += (len(rows) - 1) / len(rows) * sum((one - mean) ** 2 for one in without)
    return variance
