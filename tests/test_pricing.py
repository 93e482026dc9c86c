"""What tokens cost: the table, the operator's own, and no guesses."""

import tomllib
from datetime import date
from pathlib import Path

import pytest

from mintoken.config import Config
from mintoken.errors import ConfigError
from mintoken.pricing import cost, load_prices
from mintoken.reports import UsageRow

TABLE = Path(__file__).parent.parent / "mintoken" / "data" / "prices.toml"


def own(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "prices.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_prices(path)
    return caught.value.problems


def test_every_figure_of_the_table_has_a_date_and_a_source() -> None:
    models = tomllib.loads(TABLE.read_text())["models"]
    assert len(models) >= 10
    for entry in models.values():
        assert isinstance(entry["as_of"], date)
        assert entry["source"]
        # Output is the dearest kind everywhere, and the cache never costs more than it saves.
        assert entry.get("cached_input", 0) <= entry["input"] < entry["output"]


def test_a_model_is_found_by_its_name_and_by_a_snapshot_that_the_table_names() -> None:
    prices = load_prices()
    assert (prices["gpt-4o"].input, prices["gpt-4o"].output) == (2.5, 10.0)
    assert prices["gpt-4o-2024-08-06"] == prices["gpt-4o"]
    assert prices["gpt-4"].cached_input == prices["gpt-4"].input


@pytest.mark.parametrize(
    "model",
    ["gpt-4o-2024-05-13", "gpt-4o-2031-01-01", "gpt-4o-mini-search", "GPT-4o", "openai/gpt-4o", ""],
)
def test_a_name_that_is_not_in_the_table_is_unpriced(model: str) -> None:
    assert load_prices().get(model) is None


def test_without_a_file_of_the_operators_the_table_is_all_there_is() -> None:
    assert load_prices(Config().savings.prices) == load_prices()


def test_the_operators_figures_are_added_and_win(tmp_path: Path) -> None:
    file = own(
        tmp_path,
        """
        [models."gpt-4o"]
        input = 2
        cached_input = 1
        output = 8
        as_of = 2026-11-01
        source = "our contract"
        [models.qwen]
        input = 0.5
        output = 1
        """,
    )
    prices = load_prices(file)
    assert (prices["gpt-4o"].output, prices["gpt-4o"].source) == (8.0, "our contract")
    assert prices["gpt-4o"].as_of == "2026-11-01"
    assert prices["gpt-4o-2024-08-06"].output == 10.0
    assert (prices["qwen"].cached_input, prices["qwen"].source) == (0.5, str(file))
    assert prices["gpt-4o-mini"] == load_prices()["gpt-4o-mini"]


def test_all_problems_of_the_operators_file_are_reported_at_once(tmp_path: Path) -> None:
    file = own(
        tmp_path,
        """
        modells = 1
        [models]
        a = 1
        [models.b]
        input = -1
        outptu = 1
        [models.c]
        input = 1
        cached_input = 2
        output = true
        [models.d]
        input = 1
        output = inf
        snapshots = "2024"
        source = 1
        as_of = "today"
        """,
    )
    found = problems(file)
    for number, says in enumerate(
        [
            ": modells: unknown",
            ': models."a": is no table',
            ': models."b".outptu: unknown; known are input',
            ': models."b".input: -1 is not allowed',
            ': models."b".output: is missing',
            ': models."c".output: True is not allowed',
            ': models."c".cached_input: 2 is more than input',
            ': models."d".output: inf is not allowed',
            ': models."d".snapshots: a list',
            ': models."d".source: a text',
            ': models."d".as_of: a date',
        ]
    ):
        assert found[number].startswith(f"{file}{says}"), found[number]
    assert len(found) == 11


@pytest.mark.parametrize("text", ["models = 1", "[models", ""])
def test_a_file_that_is_no_table_of_models_is_a_problem_unless_it_is_empty(
    tmp_path: Path, text: str
) -> None:
    file = own(tmp_path, text)
    if text:
        assert len(problems(file)) == 1
    else:
        assert load_prices(file) == load_prices()


def test_a_file_that_is_missing_or_no_text_is_a_problem(tmp_path: Path) -> None:
    assert "savings.prices" in problems(tmp_path / "missing.toml")[0]
    (tmp_path / "latin1.toml").write_bytes(b"# \xe9")
    assert "UTF-8" in problems(tmp_path / "latin1.toml")[0]


@pytest.mark.parametrize(
    ("asked", "served", "expected"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", (40 * 2.5 + 60 * 1.25 + 7 * 10) / 1e6),
        ("gpt-4o", "a-name-of-its-own", (40 * 2.5 + 60 * 1.25 + 7 * 10) / 1e6),
        ("my-alias", "gpt-4o", (40 * 2.5 + 60 * 1.25 + 7 * 10) / 1e6),
        ("unknown", "", None),
    ],
)
def test_a_request_costs_what_answered_it_costs(asked, served, expected) -> None:
    told = {"model": asked, "model_served": served, "input_tokens": 100, "cached_tokens": 60}
    row = UsageRow(**dict.fromkeys(UsageRow.__slots__, 0) | told | {"output_tokens": 7})
    assert cost(row, load_prices()) == (expected and pytest.approx(expected))
