"""What an evaluation may spend, to the token and to the cent."""

import pytest

from mintoken.eval_budget import Budget, Price, more, most_of, price_of
from mintoken.eval_records import Tokens

PRICE = Price(2.0, 10.0)


def test_money_is_by_input_and_output_and_by_who_was_asked() -> None:
    budget = Budget(prices={"": PRICE, "judge": Price(100.0, 0)})
    spent = more({"": Tokens(input=500_000, output=100_000)}, "judge", Tokens(input=10_000))
    assert budget.usd(spent) == pytest.approx(1 + 1 + 1)
    assert budget.usd({"another": Tokens(input=1)}) is None
    assert Budget().usd({}) is None


@pytest.mark.parametrize(
    ("budget", "admitted"),
    [
        (Budget(), True),
        (Budget(max_tokens=1100), True),
        (Budget(max_tokens=1099), False),
        (Budget(max_usd=0.0102, prices={"": PRICE}), True),
        (Budget(max_usd=0.0101, prices={"": PRICE}), False),
        (Budget(max_usd=1, max_tokens=1099, prices={"": PRICE}), False),
        (Budget(max_usd=1), False),
    ],
)
def test_a_limit_admits_what_is_exactly_it(budget: Budget, *, admitted: bool) -> None:
    assert budget.admits(more({"": Tokens(input=100)}, "", Tokens(output=1000))) is admitted


def test_what_was_spent_is_told_of_the_limit() -> None:
    spent = {"": Tokens(input=1000, output=100)}
    assert Budget().told(spent) == "1,100 tokens"
    assert Budget(max_tokens=5000).told(spent) == "1,100 of 5,000 tokens"
    assert Budget(max_usd=1, prices={"": PRICE}).told(spent) == "$0.0030 of $1.0000"
    assert Budget(max_usd=0, prices={"": PRICE}).told({}) == "$0.0000 of $0.0000"
    both = Budget(max_usd=1, max_tokens=5000, prices={"": PRICE})
    assert both.told(spent) == "$0.0030 of $1.0000, 1,100 of 5,000 tokens"


def test_the_most_of_a_request_is_a_token_for_each_byte_and_the_whole_cap() -> None:
    most = most_of(300, 2, 4096)
    assert most.output == 4096
    assert most.input > 300


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        price_of(text)


def test_a_price_is_of_input_then_output() -> None:
    assert price_of("2.5, 10") == Price(2.5, 10.0)
