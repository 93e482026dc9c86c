"""The report of an evaluation: true figures, and a page that asks nobody for anything."""

import re
from pathlib import Path

import pytest

from mintoken.eval_budget import Budget
from mintoken.eval_plan import Plan, questions, settings_of
from mintoken.eval_records import Answered, Arm, Book, Failed, Question, Tokens
from mintoken.eval_report import advice, columns, document, rows, write
from mintoken.eval_set import read_set
from mintoken.evaluate import Ending, Evaluation

PROMPTS = b"""
[[prompt]]
id = "one"
category = "<b>mine</b>"
user = "Which?"
facts = [{ says = "<script>alert(1)</script>", any = ["yes"] }]
"""


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    prompts = read_set(PROMPTS, "<mine>.toml")
    settings = settings_of(
        prompts, base_url="http://provider.test/v1", model="<m>", cap=50, judge="j"
    )
    plan = Plan(
        settings=settings, prompts=prompts, runs=1, budget=Budget(), concurrency=1, folder=tmp_path
    )
    book = Book()
    for question in questions(plan):
        full = question.arm is Arm.FULL
        text, tokens = ("yes", 9) if full else ("no " * 9, 90)
        took = Tokens(input=5, output=tokens + 3, reasoning=3)
        reason = "length" if question.arm is Arm.NONE else "stop"
        book.take(
            Answered(
                question=question, tokens=took, text=text, finish_reason=reason, verdicts=(full,)
            )
        )
    return Evaluation(plan=plan, ending=Ending.DONE, why="", left=0, needed={}, book=book)


def test_the_rows_tell_tokens_ratios_and_facts(evaluation: Evaluation) -> None:
    found = document(evaluation)
    by_arm = {row["arm"]: row for row in rows(found)}
    full = by_arm["full"]
    assert (full["input"], full["answer"], full["reasoning"]) == (5, 9, 3)
    assert full["against_none"] == "−90% (−90% to −90%)"
    assert full["coverage"] == full["judged"] == "100.0% (100.0% to 100.0%)"
    assert by_arm['"Be brief."']["coverage"] == "0.0% (0.0% to 0.0%)"
    assert by_arm["none"]["cut"] == 1
    assert {"judged", "reasoning", "cut"} <= columns(found).keys()
    assert found["interval"] == "bootstrap over prompts, 2,000 draws, 95%"
    assert list(found["tokens"]) == ["<m>", "j"]


def test_the_page_needs_no_network_and_shows_text_as_text(evaluation: Evaluation) -> None:
    evaluation.book.take(Failed(question=Question("one", 2, Arm.NONE), why="<i>no</i>"))
    _, path = write(document(evaluation, note="Only <a> note."), evaluation.plan.folder)
    page = path.read_text()
    hosts = set(re.findall(r"https?://[^\s\"'<>);]+", page))
    assert hosts == {"http://www.w3.org/2000/svg", "http://provider.test/v1,"}
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(|\ssrc=|\shref=", page)
    assert page.count("<circle") == len(Arm)
    assert "prefers-color-scheme: dark" in page
    for text in ("&lt;m&gt;", "&lt;b&gt;mine", "&lt;script&gt;", "&lt;i&gt;no", "Only &lt;a&gt;"):
        assert text in page
    for text in ("<b>", "<i>", "<a>", "<m>"):
        assert text not in page


def test_a_report_without_anything_to_compare_says_so(evaluation: Evaluation) -> None:
    empty = Evaluation(
        plan=evaluation.plan, ending=Ending.STOPPED, why="It broke.", left=5, needed={}, book=Book()
    )
    found = document(empty)
    assert rows(found) == []
    assert not found["complete"]
    _, path = write(found, empty.plan.folder)
    page = path.read_text()
    assert "Nothing can be compared yet." in page
    assert "5 requests are left" in page
    assert advice(empty).startswith("It broke. 5 requests are left: run the same command again")
