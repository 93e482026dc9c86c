"""What people and programs read of the savings."""

from collections.abc import Sequence

import pytest
from tenants import Rows, sample_of

from mintoken.pricing import Price
from mintoken.reports import ArmSample
from mintoken.savings import Report, report
from mintoken.statement import COLUMNS, row, sentences, usd

PRICES = {"gpt-4o": Price(input=2, cached_input=0.5, output=8, source="a test", as_of="2026-11-25")}
SHORT = [{"output_tokens": 50 + 100 * (one % 2), "input_tokens": 461, "injected_tokens": 61}
         for one in range(1000)]  # fmt: skip
LONG = [{"output_tokens": 200 + 200 * (one % 2), "input_tokens": 400} for one in range(200)]


def arms(product: Rows = SHORT, control: Rows = LONG, model: str = "gpt-4o") -> list[ArmSample]:
    pairs = zip(("product", "control"), (product, control), strict=True)
    return [sample_of(rows, arm=arm, model=model) for arm, rows in pairs if rows]


def said(rows: Sequence[ArmSample], **options: float) -> str:
    return "\n".join(sentences(report(rows, PRICES, **options), PRICES, key="app"))


def lines(found: Report) -> list[dict[str, object]]:
    return [row(line) for line in (*found.lines, found.total)]


def test_a_measured_model_is_a_line_with_ratio_and_money() -> None:
    line, total = lines(report(arms(), PRICES))
    assert line == total | {"model": "gpt-4o"}
    assert line.keys() == COLUMNS.keys()
    ratio = str(line.pop("ratio"))
    saved = str(line.pop("saved"))
    assert line == {
        "model": "gpt-4o",
        "product": 1000,
        "control": 200,
        "output": 100,
        "without": 300,
        "per_1000": "$1.48",
        "status": "measured",
    }
    assert ratio.startswith("0.33 (0.3")
    assert saved.startswith("$1.48 ($1.")


def test_the_balance_says_where_the_money_came_from_and_went() -> None:
    text = said(arms())
    assert "Net saving on the product's 1,000 requests: $1.48 ($1." in text
    assert "= $1.60 of output, -$0.12 for the injected text, $0.00 of cache discount." in text
    assert "arXiv:2103.06476" in text
    assert text.endswith("Prices as of 2026-11-25.")


def test_losses_are_shown_as_such() -> None:
    dear = [{"output_tokens": 4 + one % 2, "input_tokens": 461, "injected_tokens": 61}
            for one in range(1000)]  # fmt: skip
    bare = [{"output_tokens": 6, "input_tokens": 400}] * 200
    found = report(arms(dear, bare), PRICES)
    assert str(row(found.total)["saved"]).startswith("-$0.11 (-$0.11 to -$0.1")
    assert row(found.total)["per_1000"] == "-$0.11"


def test_without_a_control_arm_it_says_what_to_type() -> None:
    text = said(arms(control=[]))
    assert text.startswith("Not measured: ")
    assert text.endswith("mintoken keys update app --control 10")
    _, total = lines(report(arms(control=[]), PRICES))
    assert (total["status"], total["product"], total["control"]) == ("not measured", 1000, 0)
    assert (total["output"], total["ratio"], total["saved"]) == (None, None, None)


def test_without_a_control_arm_the_product_is_compared_with_the_concise_one_all_the_same() -> None:
    concise = sample_of(LONG, arm="concise")
    text = said([*arms(control=[]), concise])
    assert 'Ratio of Mintoken to "Answer concisely.": 0.33 (0.3' in text
    assert "Not measured: " in text


def test_what_the_provider_has_not_told_is_not_taken_for_nothing() -> None:
    untold = [{"output_tokens": 100 + one % 2, "unreported": one % 5 == 0} for one in range(1000)]
    text = said(arms(untold))
    assert "The provider has not told the usage of 20% of these requests" in text
    assert "upstream.ask_stream_usage" in text
    assert "has not told" not in said(arms())


def test_with_no_row_at_all_nothing_is_called_unpriced() -> None:
    assert row(report([], PRICES).total)["saved"] is None


def test_while_it_collects_it_says_how_far_it_is() -> None:
    _, total = lines(report(arms(SHORT[:360], LONG[:40]), PRICES))
    assert total["status"] == "collecting: 400 of about 1,000"
    assert (total["output"], total["without"], total["ratio"]) == (None, None, None)
    assert (total["saved"], total["per_1000"]) == (None, None)
    assert "Net saving" not in said(arms(SHORT[:360], LONG[:40]))
    _, total = lines(report(arms(SHORT[:5], []), PRICES, control_share=0.05))
    assert total["status"] == "collecting: 5 of about 2,000"


def test_a_wide_interval_is_shown_and_called_collecting() -> None:
    odd = [{"output_tokens": 20_000 if one % 50 == 0 else 100} for one in range(200)]
    _, total = lines(report(arms(SHORT, odd), PRICES))
    assert str(total["status"]).startswith("collecting: 1,200 of about ")
    assert total["ratio"] is not None


def test_unpriced_models_are_named_without_what_would_steer_the_terminal() -> None:
    rows = [one for name in ("\x1b[2Jx", "", "b", "c", "d", "e") for one in arms(model=name)]
    assert lines(report(rows, PRICES))[0]["saved"] == "unpriced"
    text = said(rows)
    assert "Unpriced: (none), \ufffd[2Jx, b, c, d, 1 more. " in text
    assert "Prices as of" not in text


def test_a_price_without_a_date_is_told() -> None:
    dateless = {"gpt-4o": Price(input=1, cached_input=1, output=1, source="x", as_of="")}
    text = "\n".join(sentences(report(arms(), dateless), dateless, key="app"))
    assert text.endswith("Prices as of an unknown day.")


def test_what_is_left_out_or_guessed_is_told() -> None:
    alone = sample_of([{"output_tokens": 5}] * 250, arm="product", key_id="other")
    assert "Left out: 20.0% of the product's requests" in said([*arms(), alone])
    guessed = [{**one, "estimated": place % 2} for place, one in enumerate(SHORT)]
    assert "The tokens of 50% of these requests are estimates" in said(arms(guessed))
    assert "estimates" not in said(arms())
    assert "Left out" not in said(arms())


def test_reasoning_and_follow_ups_are_told_where_there_are_any() -> None:
    asking = [{**one, "requests": 2 + place % 2} for place, one in enumerate(SHORT)]
    assert "have 2.50 (2." in said(arms(asking))
    thinking = [{**one, "reasoning_tokens": 20} for one in SHORT]
    control = [{**one, "reasoning_tokens": 40} for one in LONG]
    assert "Ratio of reasoning tokens: 0.50 (0.50 to 0.50); of the visible ones: 0.31" in said(
        arms(thinking, control)
    )


def test_the_arm_that_only_says_to_be_concise_is_told_both_ways() -> None:
    concise = sample_of([{"output_tokens": 150}] * 200, arm="concise")
    text = said([*arms(), concise])
    assert 'Ratio of "Answer concisely." to control: 0.50 (0.4' in text
    assert 'Ratio of Mintoken to "Answer concisely.": 0.67 (0.6' in text
    few = sample_of([{"output_tokens": 150}] * 50, arm="concise")
    assert "to control: collecting: 250 of about 500." in said([*arms(), few])


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1234.567, "$1,234.57"),
        (1, "$1.00"),
        (0.996, "$1.00"),
        (0.5, "$0.50"),
        (0.0123, "$0.012"),
        (-0.00004567, "-$0.000046"),
        (-2.5, "-$2.50"),
        (-1e-12, "$0.00"),
    ],
)
def test_amounts_have_sensible_digits(amount: float, text: str) -> None:
    assert usd(amount) == text
