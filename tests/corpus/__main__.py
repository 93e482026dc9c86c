"""`make corpus`: how far detection agrees with the labelled requests. Fails when a bar does."""

import sys

from corpus.labelled import LEVELS, PARTS, Tried, agreement, matrix, tried

from mintoken.tables import print_table

BAR = 0.95


def main() -> int:
    everything: list[Tried] = []
    for part in PARTS:
        found = tried(part)
        everything += found
        for one in found:
            if not one.agrees:
                asked = one.labelled
                print(
                    f"{part}: {asked.level} ({asked.kind}, {asked.language}) got {one.level} "
                    f"({one.reason}): {asked.shown[:150]!r}"
                )
    print_table(_rows(everything), {"label": "Should be", **{level: level for level in LEVELS}})
    for part in PARTS:
        print(f"{part}: agrees on {agreement(tried(part)):.1%} of {len(tried(part))}")
    harmed = sum(one.harms for one in everything)
    overall = agreement(everything)
    print(f"overall: {overall:.1%} of {len(everything)}, the bar is {BAR:.0%}")
    print(f"never to be compressed, but compressed: {harmed}, the bar is 0")
    return int(harmed > 0 or overall < BAR)


def _rows(found: list[Tried]) -> list[dict[str, object]]:
    counted = matrix(found)
    return [
        {"label": label, **{level: counted[label, level] for level in LEVELS}} for label in LEVELS
    ]


if __name__ == "__main__":
    sys.exit(main())
