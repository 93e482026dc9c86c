"""What was saved, in tokens and money, and when it does not pay."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from tenants import Rows, conversations, days, jackknife, populations, sample_of, samples

from mintoken.experiment import FLOOR, Interval, compare
from mintoken.pricing import Price
from mintoken.reports import ArmSample
from mintoken.savings import Money, Status, changed, money, pays, report

PRICES = {
    "gpt-4o": Price(input=2, cached_input=0.5, output=8, source="a test", as_of="2026-11-25"),
    "tiny": Price(input=10, cached_input=10, output=10, source="a test", as_of="2026-11-25"),
}
ARMS = ("product", "control")
SHORT = {"output_tokens": 100, "input_tokens": 461, "cached_tokens": 200, "injected_tokens": 61}
LONG = {"output_tokens": 300, "input_tokens": 400, "cached_tokens": 200}


def arms(
    product: Mapping[str, int],
    control: Mapping[str, int],
    *,
    n: tuple[int, int] = (1000, 200),
    **named: str,
) -> list[ArmSample]:
    """Conversations of one request, alike within their arm but for the length of their answers."""
    return [
        sample_of(
            [
                one | {"output_tokens": round(one["output_tokens"] * (0.5 + place % 2))}
                for place in range(count)
            ],
            arm=arm,
            **named,
        )
        for arm, one, count in (("product", product, n[0]), ("control", control, n[1]))
    ]


def worth(rows: Sequence[ArmSample]) -> Money:
    found = money(rows, PRICES)
    assert found is not None
    return found


# --- Money --------------------------------------------------------------------------------------


def test_the_parts_are_those_worked_out_by_hand() -> None:
    found = worth(arms(SHORT, LONG))
    assert found.requests == 1000
    # 200 tokens of output at 8; 61 injected at 2 - 200/461 x 1.5; the cached share of 400 tokens
    # of input fell from 200/400 to 200/461. All in millionths, for 1,000 requests.
    assert found.output == pytest.approx(1.6)
    assert found.injected == pytest.approx(-0.0823037, abs=1e-7)
    assert found.cache == pytest.approx(-0.0396963, abs=1e-7)
    assert found.net == pytest.approx(1.478)
    assert found.interval is not None
    assert found.interval.value == pytest.approx(1.478)
    assert found.interval.low > 1


def test_injected_text_costs_what_the_input_was_billed_at() -> None:
    cached = {"input_tokens": 461, "cached_tokens": 461, "injected_tokens": 61}
    found = worth(arms(SHORT | cached, LONG | {"cached_tokens": 400}))
    assert found.injected == pytest.approx(-61 * 0.5 / 1000)
    assert found.cache == pytest.approx(0)
    uncached = worth(arms(SHORT | {"cached_tokens": 0}, LONG | {"cached_tokens": 0}))
    assert uncached.injected == pytest.approx(-61 * 2 / 1000)
    assert uncached.cache == 0


def test_a_discount_that_only_the_product_got_is_won() -> None:
    found = worth(arms(SHORT, LONG | {"cached_tokens": 0}))
    assert found.cache == pytest.approx(200 / 461 * 400 * 1.5 / 1000)
    assert found.net == pytest.approx(found.output + found.injected + found.cache)


def test_histories_that_are_shorter_are_no_discount_lost() -> None:
    # The control's longer answers made its input five times as long, half of it from the cache.
    found = worth(
        arms(
            SHORT | {"input_tokens": 461, "cached_tokens": 230},
            LONG | {"input_tokens": 2000, "cached_tokens": 1000},
        )
    )
    assert abs(found.cache) < 0.001


def test_text_that_costs_more_than_it_saves_is_shown_as_a_negative_saving() -> None:
    ultra_short = {"output_tokens": 4, "input_tokens": 1061, "injected_tokens": 61}
    found = worth(arms(ultra_short, {"output_tokens": 6, "input_tokens": 1000}))
    assert found.output == pytest.approx(2 * 8 / 1000)
    assert found.net == pytest.approx((2 * 8 - 61 * 2) / 1000)
    assert found.interval is not None
    assert found.interval.high < 0


def test_the_amounts_of_the_models_add_up_to_the_total() -> None:
    rows = arms(SHORT, LONG) + arms(SHORT, LONG, model="tiny", n=(300, 100), key_id="other")
    found = report(rows, PRICES)
    lines = [line.money for line in found.lines]
    assert found.total.money is not None
    for part in ("requests", "output", "injected", "cache", "net"):
        assert sum(getattr(line, part) for line in lines) == pytest.approx(
            getattr(found.total.money, part)
        )


def test_the_money_lies_in_its_interval_on_simulated_tenants() -> None:
    tenants = populations(1)
    prices = {one.model: PRICES["tiny"] for one in tenants}
    real = sum(one.share * one.mean(1) * (1 - one.effect) for one in tenants) / sum(
        one.share * one.mean(0) for one in tenants
    )
    inside = 0
    for run in range(100):
        *_, seen = days(random.Random(f"money {run}"), tenants, days=20, daily=200)
        found = money(samples(tenants, seen, effects=True), prices)
        assert found is not None
        assert found.interval is not None
        expected = real * found.requests * 10 / 1e6
        inside += found.interval.low <= expected <= found.interval.high
    assert inside >= 97


def test_the_variance_of_the_money_is_the_jackknifes() -> None:
    cells = [
        conversations(random.Random(one), n, 0.3 + 0.7 * one) for one, n in ((0, 100), (1, 110))
    ]

    def net(of: list[Rows]) -> Money:
        return worth([sample_of(rows, arm=arm) for rows, arm in zip(of, ARMS, strict=True)])

    def per_request(of: list[Rows]) -> float:
        found = net(of)
        return found.net / found.requests

    found = net(cells)
    assert found.interval is not None
    half = (found.interval.high - found.net) / found.requests
    one = compare([sample_of(rows, arm=arm) for rows, arm in zip(cells, ARMS, strict=True)], *ARMS)
    variance = (half / one.half_width(1.0)) ** 2
    assert variance == pytest.approx(jackknife(per_request, cells), rel=0.05)


def test_models_without_a_price_have_tokens_and_no_money() -> None:
    found = report(arms(SHORT, LONG, model="mine") + arms(SHORT, LONG), PRICES)
    mine, priced = sorted(found.lines, key=lambda line: line.money is not None)
    assert (mine.model, mine.money) == ("mine", None)
    assert mine.output is not None
    assert mine.output.value == pytest.approx(1 / 3)
    assert found.unpriced == ["mine"]
    assert priced.money == found.total.money
    assert report(arms(SHORT, LONG, model="mine"), PRICES).total.money is None


# --- What is said -------------------------------------------------------------------------------


def test_without_a_control_arm_nothing_is_measured() -> None:
    found = report([sample_of([SHORT] * 500, arm="product")], PRICES)
    assert found.total.status is Status.NOT_MEASURED
    assert report([], PRICES).total.status is Status.NOT_MEASURED


def test_a_control_arm_that_has_nothing_yet_is_collecting() -> None:
    found = report([sample_of([SHORT] * 50, arm="product")], PRICES, control_share=0.1)
    assert (found.total.status, found.total.needed) == (Status.COLLECTING, 1000)


def test_below_the_floor_it_is_collecting_and_claims_nothing() -> None:
    found = report(arms(SHORT, LONG, n=(900, FLOOR - 1)), PRICES).total
    assert found.status is Status.COLLECTING
    assert found.needed > 999
    assert (found.output, found.visible, found.follow_ups) == (None, None, None)
    assert found.money is not None
    assert found.money.interval is None


def test_with_enough_it_is_measured() -> None:
    found = report(arms(SHORT, LONG), PRICES).total
    assert found.status is Status.MEASURED
    assert found.needed == sum(found.comparison.seen)
    assert found.output is not None
    assert found.output.value == pytest.approx(1 / 3)


def test_reasoning_is_shown_apart() -> None:
    product = {"output_tokens": 1000, "reasoning_tokens": 300}
    control = {"output_tokens": 1000, "reasoning_tokens": 100}
    found = report(arms(product, control), PRICES).total
    assert found.output is not None
    assert found.visible is not None
    assert found.reasoning is not None
    assert found.output.value == pytest.approx(1)
    assert found.visible.value == pytest.approx(700 / 900)
    assert found.reasoning.value == pytest.approx(3)
    assert report(arms(SHORT, LONG), PRICES).total.reasoning is None


def test_that_people_ask_again_is_seen() -> None:
    product = [{"output_tokens": 50, "requests": 2 + place % 2} for place in range(500)]
    control = [{"output_tokens": 90, "requests": 1 + place % 2} for place in range(500)]
    rows = [sample_of(product, arm="product"), sample_of(control, arm="control")]
    again = report(rows, PRICES).total.follow_ups
    assert again is not None
    assert again.value == pytest.approx(2.5 / 1.5)
    assert 1 < again.low < again.value < again.high


def test_the_arm_that_only_says_to_be_concise_is_compared_both_ways() -> None:
    concise = sample_of([{"output_tokens": 150 + place % 2} for place in range(200)], arm="concise")
    found = report([*arms(SHORT, LONG), concise], PRICES)
    assert found.concise is not None
    assert found.over_concise is not None
    assert found.concise.output is not None
    assert found.over_concise.output is not None
    assert found.concise.output.value == pytest.approx(150.5 / 300)
    assert found.over_concise.output.value == pytest.approx(100 / 150.5)
    assert report(arms(SHORT, LONG), PRICES).concise is None


def test_what_was_stopped_is_in_no_arm() -> None:
    stopped = sample_of([{"output_tokens": 9000}] * 500, arm="stopped")
    assert report([*arms(SHORT, LONG), stopped], PRICES) == report(arms(SHORT, LONG), PRICES)


def test_the_arms_are_told_as_they_are_by_model() -> None:
    more = sample_of([{"output_tokens": 7}] * 3, model="mine", arm="concise", bucket=2)
    again = sample_of([{"output_tokens": 4, "requests": 2}], model="mine", arm="concise", bucket=3)
    found = report([again, *arms(SHORT, LONG), more], PRICES).arms
    named = [(one.model, one.arm) for one in found]
    assert named == [("gpt-4o", "product"), ("gpt-4o", "control"), ("mine", "concise")]
    assert (found[2].conversations, found[2].requests, found[2].output_per_request) == (4, 5, 5)
    assert report([], PRICES).arms == []


# --- Stops when it does not pay -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "running", "stopped"),
    [
        (None, True, False),
        (Interval(5, 1, 9), True, True),
        (Interval(1, -1, 3), True, False),
        (Interval(-1, -3, 1), True, False),
        (Interval(-1, -2, 0), False, False),
        (Interval(-5, -9, -1), False, False),
    ],
)
def test_it_stops_on_proof_and_starts_again_on_proof(
    interval: Interval | None, running: bool, stopped: bool
) -> None:
    assert pays(interval, stopped=False) is running
    assert pays(interval, stopped=True) is stopped


def test_only_the_key_and_model_that_do_not_pay_are_stopped() -> None:
    dear = {"output_tokens": 4, "input_tokens": 1061, "injected_tokens": 61}
    bare = {"output_tokens": 6, "input_tokens": 1000}
    longer = arms(LONG, SHORT, model="mine", key_id="two")
    rows = [
        *arms(SHORT, LONG, key_id="one"),
        *arms(dear, bare, key_id="two"),
        *longer,
        *arms(dear, bare, model="mine", key_id="three"),
        *arms(dear, bare, key_id="few", n=(900, FLOOR - 1)),
    ]
    losing = {("two", "gpt-4o"), ("two", "mine")}
    assert changed(rows, PRICES, ()) == losing
    assert changed(rows, PRICES, losing) == frozenset()
    assert changed(rows, PRICES, losing | {("one", "gpt-4o"), ("few", "gpt-4o")}) == {
        ("one", "gpt-4o")
    }
    assert changed([], PRICES, losing) == frozenset()


def test_at_the_edge_it_stays_as_it_is() -> None:
    # On the wrong side of zero, and not surely so; and the other way round.
    rows = arms(LONG | {"output_tokens": 301}, LONG)
    better = [
        replace(row, arm={"product": "control", "control": "product"}[row.arm]) for row in rows
    ]
    for seen in (rows, better):
        for stopped in (set(), {("key", "gpt-4o")}):
            assert changed(seen, PRICES, stopped) == frozenset()
