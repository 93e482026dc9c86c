"""What is found, and the bars that it has to reach."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load import Figures
from benchmarks.targets import BARE, DIRECT, MINTOKEN, NAMES

Rounds = Mapping[str, Sequence[Figures]]
"""What each round found, by target."""


@dataclass(frozen=True, slots=True)
class Bar:
    """At most so much: of Mintoken alone, of it more than of `bare`, or times that of `bare`."""

    limit: float
    kind: str
    unit: str = ""

    def judge(self, bare: float | None, mintoken: float) -> tuple[str, bool]:
        """How it reads, and whether it is reached."""
        match self.kind:
            case "times":
                assert bare is not None
                return f"≤ {self.limit:g} × bare", mintoken <= bare * self.limit
            case "more":
                assert bare is not None
                return f"≤ bare + {self.limit:g} {self.unit}", mintoken <= bare + self.limit
            case _:
                return f"≤ {self.limit:g} {self.unit}", mintoken <= self.limit


def times(limit: float) -> Bar:
    return Bar(limit, "times")


def more(limit: float, unit: str) -> Bar:
    return Bar(limit, "more", unit)


def at_most(limit: float, unit: str) -> Bar:
    return Bar(limit, "at most", unit)


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table."""

    key: str
    heading: str
    bar: Bar | None = None
    added: bool = False
    """What comes on top of the provider's own, in the same round."""

    def of(self, rounds: Rounds, name: str) -> list[float]:
        """What each round found of a target; empty where it was not looked at."""
        found = [figures.get(self.key) for figures in rounds.get(name, [])]
        known = [value for value in found if value is not None]
        if self.added:
            direct = [figures[self.key] for figures in rounds[DIRECT]]
            return [] if name == DIRECT else [a - b for a, b in zip(known, direct, strict=True)]
        return known

    def line(self, rounds: Rounds) -> list[str]:
        """The cells: the heading, each target's median, against bare, the bar, if it is reached."""
        found = {name: self.of(rounds, name) for name in NAMES}
        median = {name: statistics.median(of) if of else None for name, of in found.items()}
        cells = [self.heading, *(_shown(median[name]) for name in NAMES)]
        cells.append(_against(found[BARE], found[MINTOKEN], difference=self.added))
        mintoken = median[MINTOKEN]
        if self.bar is None or mintoken is None:
            return [*cells, "", ""]
        bar, good = self.bar.judge(median[BARE], mintoken)
        return [*cells, bar, "yes" if good else "NO"]


def _against(bare: list[float], mintoken: list[float], *, difference: bool) -> str:
    """Mintoken's median against bare's, and the least and the most of a round."""
    if not bare or not mintoken:
        return ""
    a, b = statistics.median(bare), statistics.median(mintoken)
    pairs = list(zip(bare, mintoken, strict=True))
    if difference:
        return f"{b - a:+.2f}" + _spread([f"{y - x:+.2f}" for x, y in pairs])
    if min(bare) <= 0:
        return ""
    return f"{b / a:.2f} ×" + _spread([f"{y / x:.2f}" for x, y in pairs])


def _spread(shown: list[str]) -> str:
    low, high = min(shown, key=float), max(shown, key=float)
    return f" ({low} to {high})" if len(shown) > 1 else ""


def _shown(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def limits(name: str, rounds: Rounds) -> Iterator[str]:
    """Where the load client or the provider may have been what was measured."""
    words = {"load_share": "the load client", "provider_share": "the provider"}
    for target, found in rounds.items():
        for key, who in words.items():
            share = max((figures.get(key, 0.0) for figures in found), default=0.0)
            if share > 0.9:
                yield f"{name}, {target}: {who} took {share:.0%} of a core."
