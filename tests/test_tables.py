"""Lists as tables, JSON and CSV."""

import json

import pytest

from mintoken import tables

COLUMNS = {"group": "Group", "tokens": "Tokens"}


def test_a_table_shows_names_as_they_are_and_cuts_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "[bold]" + "x" * 200
    tables.print_table([{"group": long, "tokens": 1234}], COLUMNS)
    out = capsys.readouterr().out
    assert long in out
    assert "1,234" in out


def test_a_table_never_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table([{"group": "a\u001b]0;owned\u0007\u009bb\nc", "tokens": 0}], COLUMNS)
    assert "a\ufffd]0;owned\ufffd\ufffdb\ufffdc" in capsys.readouterr().out


def test_a_total_stands_below(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table([], COLUMNS, total={"group": "Total", "tokens": 7})
    assert capsys.readouterr().out.split()[-2:] == ["Total", "7"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_holds_no_formula(capsys: pytest.CaptureFixture[str], start: str) -> None:
    tables.print_csv([{"group": f"{start}1+1", "tokens": -5, "more": 1}], list(COLUMNS))
    assert capsys.readouterr().out == f"group,tokens\n'{start}1+1,-5\n"


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_json([{"group": "a", "tokens": None}])
    assert json.loads(capsys.readouterr().out) == [{"group": "a", "tokens": None}]
