"""The estimate and its interval: by hand, by brute force, and on simulated tenants."""

import math
from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from tenants import (
    Rows,
    conversations,
    days,
    jackknife,
    populations,
    sample_of,
    samples,
    truth,
)

from mintoken.experiment import (
    ALPHA,
    FLOOR,
    STRATUM,
    TAIL,
    TUNED_AT,
    WANTED,
    Comparison,
    compare,
    vector,
)
from mintoken.reports import MEASURES, ArmSample

RUNS, DAYS, DAILY = 500, 30, 70


def constant(n: int, **measures: int) -> Rows:
    """Conversations that are all alike."""
    return [measures] * n


def two_arms(treated: Rows, reference: Rows) -> Comparison:
    return compare(
        [sample_of(treated, arm="product"), sample_of(reference, arm="control")],
        "product",
        "control",
    )


# --- By hand ------------------------------------------------------------------------------------


def test_the_reference_is_weighted_to_the_treated_arms_requests() -> None:
    compared = compare(
        [
            sample_of(constant(30, output_tokens=100), arm="product", bucket=9),
            sample_of(constant(10, output_tokens=200, requests=2), arm="product", bucket=14),
            sample_of(constant(10, output_tokens=300), arm="control", bucket=9),
            sample_of(constant(90, output_tokens=1000), arm="control", bucket=14),
        ],
        "product",
        "control",
    )
    # 50 requests, 30 of them in the first stratum: (30 x 300 + 20 x 1000) / 50 in control's place.
    assert compared.conversations == (40, 100)
    assert compared.requests == (50, 100)
    output = MEASURES.index("output_tokens")
    assert compared.treated[output] == 5000 / 50
    assert compared.reference[output] == 580
    ratio = compared.ratio(output_tokens=1)
    assert ratio is not None
    assert ratio.value == pytest.approx(100 / 580)


def test_the_interval_is_that_of_the_paper() -> None:
    # One stratum and one request each: the log ratio's variance is the sum of the arms' squared
    # coefficients of variation over n - 1 (the uncorrected sums of squares have n).
    treated = [{"output_tokens": 50 + 100 * (one % 2)} for one in range(1000)]
    reference = [{"output_tokens": 100 + 200 * (one % 2)} for one in range(1000)]
    compared = two_arms(treated, reference)
    variance = 2 * 0.25 / 999
    t, s = 500, math.sqrt(500 * variance)
    assert t == TUNED_AT
    # m = t rho^2 is where m = log(1 + m) - 2 log(alpha) for the sample that it is tuned at.
    rho2 = 8.211 / t
    half = (
        math.sqrt(1 + TAIL / 1000)
        * s
        * math.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * math.log(math.sqrt(t * rho2 + 1) / ALPHA))
    )
    ratio = compared.ratio(output_tokens=1)
    assert ratio is not None
    assert ratio.value == pytest.approx(0.5)
    assert math.log(ratio.high / ratio.value) == pytest.approx(half, rel=1e-4)
    assert math.log(ratio.value / ratio.low) == pytest.approx(half, rel=1e-4)
    fixed = 1.96 * math.sqrt(variance * (1 + TAIL / 1000))
    assert half / fixed == pytest.approx(1.548, abs=0.001)


def test_arms_without_a_number_above_zero_have_no_ratio() -> None:
    silent, talking = constant(200, output_tokens=0), constant(200, output_tokens=5)
    for arms in ((silent, talking), (talking, silent)):
        assert two_arms(*arms).ratio(output_tokens=1) is None
    assert compare([], "product", "control").ratio(output_tokens=1) is None


# --- Strata -------------------------------------------------------------------------------------


def sizes(counts: Mapping[int, tuple[int, int]], **named: str) -> list[ArmSample]:
    """Samples of so many conversations of the product and of control by bucket."""
    return [
        sample_of(constant(n, output_tokens=7), arm=arm, bucket=bucket, **named)
        for bucket, pair in counts.items()
        for arm, n in zip(("product", "control"), pair, strict=True)
        if n
    ]


@pytest.mark.parametrize(
    ("counts", "strata"),
    [
        ({8: (90, 10), 9: (90, 10)}, [(90, 10), (90, 10)]),
        ({8: (90, 4), 9: (90, 6), 12: (90, 10)}, [(180, 10), (90, 10)]),
        ({8: (90, 10), 9: (90, 9)}, [(180, 19)]),
        ({8: (90, 10), 9: (90, 0)}, [(180, 10)]),
        ({8: (9, 90), 9: (1, 90)}, [(10, 180)]),
        ({8: (90, 5), 9: (90, 4)}, []),
    ],
)
def test_sizes_next_to_each_other_are_merged_until_both_arms_are_there(
    counts: Mapping[int, tuple[int, int]], strata: list[tuple[int, int]]
) -> None:
    compared = compare(sizes(counts), "product", "control")
    assert [(one.n, other.n) for one, other in compared.strata] == strata
    assert compared.left_out == (0 if strata else 1)
    assert sum(compared.seen) == sum(map(sum, counts.values()))


def test_keys_and_models_are_never_mixed_and_what_has_no_counterpart_is_told() -> None:
    both = sizes({9: (60, 10)}, model="a", key_id="one")
    alone = sizes({9: (30, 0)}, model="b", key_id="one") + sizes({9: (10, 0)}, key_id="two")
    few = sizes({9: (0, STRATUM - 1)}, model="b", key_id="one")
    compared = compare(both + alone + few, "product", "control")
    assert compared.conversations == (60, 10)
    assert compared.seen == (100, 19)
    assert compared.left_out == pytest.approx(0.4)


def test_shares_that_changed_with_the_times_do_not_look_like_an_effect() -> None:
    # Answers get longer for everybody when the product has just been cut down to 5 %.
    random = Random(11)
    before, after = (
        [{"output_tokens": round(mean * random.lognormvariate(0, 0.5))} for _ in range(2000)]
        for mean in (200, 600)
    )
    parts = (
        (before[:1800], "product", 0), (before[1800:], "control", 0),
        (after[:90], "product", 7), (after[1800:], "control", 7),
    )  # fmt: skip
    rows = [sample_of(part, arm=arm, epoch=epoch) for part, arm, epoch in parts]
    ratio = compare(rows, "product", "control").ratio(output_tokens=1)
    assert ratio is not None
    assert ratio.low < 1 < ratio.high
    assert ratio.value == pytest.approx(1, abs=0.1)
    mixed = compare([replace(row, epoch=0) for row in rows], "product", "control")
    wrong = mixed.ratio(output_tokens=1)
    assert wrong is not None
    assert wrong.high < 0.7


def test_keys_with_other_shares_of_control_do_not_look_like_an_effect() -> None:
    # The first application has long answers and half of it is control, the second short ones.
    chatty = {"output_tokens": 900}
    terse = {"output_tokens": 100}
    compared = compare(
        [
            sample_of([chatty] * 200, arm="product", key_id="chatty"),
            sample_of([chatty] * 200, arm="control", key_id="chatty"),
            sample_of([terse] * 900, arm="product", key_id="terse"),
            sample_of([terse] * 100, arm="control", key_id="terse"),
        ],
        "product",
        "control",
    )
    ratio = compared.ratio(output_tokens=1)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1, 1, 1), abs=1e-6)


def test_an_interval_takes_the_floor_in_both_arms() -> None:
    rows = constant(FLOOR, output_tokens=3)
    assert two_arms(rows, rows).enough
    assert not two_arms(rows, rows[1:]).enough
    assert not two_arms(rows[1:], rows).enough


# --- By brute force -----------------------------------------------------------------------------


def test_the_variance_is_the_jackknifes() -> None:
    """Within strata. The weights of the strata vary as well, which the jackknife does not see."""
    random = Random(5)
    cells = [conversations(random, n, scale) for n, scale in ((90, 0.5), (40, 1.0))]

    def log_ratio(of: list[Rows]) -> float:
        ratio = two_arms(*of).ratio(output_tokens=1, reasoning_tokens=-1)
        assert ratio is not None
        return math.log(ratio.value)

    compared = two_arms(*cells)
    ratio = compared.ratio(output_tokens=1, reasoning_tokens=-1)
    assert ratio is not None
    half = math.log(ratio.high / ratio.value)
    variance = (half / compared.half_width(1.0)) ** 2
    assert variance == pytest.approx(jackknife(log_ratio, cells), rel=0.05)


def test_that_the_weights_of_the_strata_are_estimated_widens_the_interval() -> None:
    # All conversations of a stratum are alike, so nothing but the weights can vary.
    def of(effect: int) -> Comparison:
        return compare(
            [
                sample_of(constant(100, output_tokens=50), arm="product", bucket=9),
                sample_of(constant(100, output_tokens=50 * effect), arm="product", bucket=14),
                sample_of(constant(100, output_tokens=100), arm="control", bucket=9),
                sample_of(constant(100, output_tokens=100), arm="control", bucket=14),
            ],
            "product",
            "control",
        )

    output = vector(output_tokens=1)
    # Of the product's mean of n draws, each with one chance in two of the one or the other.
    assert of(1).variance(output, vector()) == pytest.approx(0, abs=1e-12)
    assert of(3).variance(output, vector()) == pytest.approx(50**2 / 200, rel=0.02)


# --- How many more ------------------------------------------------------------------------------


def test_so_many_conversations_as_are_said_to_be_needed_are_enough() -> None:
    random = Random(3)
    first = two_arms(conversations(random, 900, 0.5), conversations(random, 100, 1.0))
    ratio = first.ratio(output_tokens=1)
    assert ratio is not None
    assert (ratio.high - ratio.low) / 2 > WANTED
    needed = first.needed()
    assert needed > 1000
    assert needed % 100 == 0
    more = two_arms(
        conversations(random, round(needed * 0.9), 0.5), conversations(random, needed // 10, 1.0)
    )
    ratio = more.ratio(output_tokens=1)
    assert ratio is not None
    assert (ratio.high - ratio.low) / 2 == pytest.approx(WANTED, rel=0.25)


def test_at_least_the_floor_is_needed_in_both_arms() -> None:
    alike = constant(1000, output_tokens=10)
    assert two_arms(alike[:180], alike[:20]).needed() == 1000
    assert two_arms(alike[:45], alike[:5]).needed() == 1000
    assert two_arms(alike[:900], alike[:100]).needed() == 1000
    assert compare(sizes({9: (30, 0)}), "product", "control").needed() == 3000


# --- Simulated tenants --------------------------------------------------------------------------


def test_the_truth_is_inside_the_interval_at_every_look() -> None:
    """500 tenants, looked at daily for 30 days; with an effect and without one."""
    tenants = populations(1)
    real = {effects: truth(tenants, effects=effects) for effects in (True, False)}
    inside = dict.fromkeys(real, 0)
    wider = []
    for run in range(RUNS):
        held = {True: True, False: True}
        for seen in days(Random(f"tenant {run}"), tenants, days=DAYS, daily=DAILY):
            if sum(n for (_, control), (n, _) in seen.items() if control) < FLOOR:
                continue
            for effects in held:
                compared = compare(samples(tenants, seen, effects=effects), "product", "control")
                ratio = compared.ratio(output_tokens=1)
                assert ratio is not None
                if compared.enough:
                    held[effects] &= ratio.low <= real[effects] <= ratio.high
        wider.append(compared.half_width(1.0) / 1.96)
        for effects, did in held.items():
            inside[effects] += did
    assert min(inside.values()) / RUNS >= 0.93, inside
    assert 1.6 < sum(wider) / RUNS < 1.9
