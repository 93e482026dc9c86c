"""The records of an evaluation: nothing that was paid for is forgotten, nothing is mixed."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from mintoken.errors import EvaluationError
from mintoken.eval_journal import FILE, opened
from mintoken.eval_records import Answered, Arm, Asked, Book, Failed, Question, Settings, Tokens

SETTINGS = Settings(base_url="http://x/v1", model="m", prompts="abc", prompt_version="1-0", cap=100)
ONE, TWO = Question("p", 1, Arm.NONE), Question("p", 1, Arm.FULL)
MOST, TOOK = Tokens(input=50, output=100), Tokens(input=9, output=20)


def test_another_run_finds_what_the_first_has_written(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "out", SETTINGS) as journal:
        journal.write(Asked(question=ONE, tokens=MOST))
        journal.write(Answered(question=ONE, tokens=TOOK, text="Grüße\n", verdicts=(True, False)))
        journal.write(Failed(question=TWO, why="Status 500", tokens=Tokens()))
    with opened(tmp_path / "new" / "out", SETTINGS) as journal:
        assert journal.book.answers[ONE].text == "Grüße\n"
        assert journal.book.answers[ONE].verdicts == (True, False)
        assert journal.book.failures[TWO].why == "Status 500"
        assert journal.book.spent() == {"": TOOK}
    assert stat.S_IMODE((tmp_path / "new" / "out" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new" / "out").stat().st_mode) == 0o700


def test_what_may_have_been_paid_for_counts_with_its_most() -> None:
    book = Book()
    book.take(Asked(question=ONE, tokens=MOST))
    assert book.spent() == {"": MOST}
    book.take(Asked(question=ONE, tokens=MOST))  # The program died, and asks again.
    assert book.spent() == {"": MOST + MOST}
    book.take(Failed(question=ONE, why="It broke off.", tokens=None))
    assert book.spent() == {"": MOST + MOST}
    book.take(Asked(question=ONE, tokens=MOST))
    book.take(Answered(question=ONE, tokens=TOOK, text="x"))
    assert book.spent() == {"": MOST + MOST + TOOK}
    assert not book.failures
    judged = Question("p", 1, Arm.NONE, "judge")
    book.take(Answered(question=judged, tokens=TOOK, text="x"))
    assert book.spent()["judge"] == TOOK


def test_a_line_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS) as journal:
        journal.write(Asked(question=ONE, tokens=MOST))
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"type":"answered","ques')
    with opened(tmp_path, SETTINGS) as journal:
        assert journal.book.spent() == {"": MOST}
        journal.write(Answered(question=ONE, tokens=TOOK, text="x"))
    with opened(tmp_path, SETTINGS) as journal:
        assert ONE in journal.book.answers


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "other"}, "--model was m"),
        ({"base_url": "http://y"}, "--base-url was http://x/v1"),
        ({"prompts": "def"}, "--prompts was abc"),
        ({"prompt_version": "2-0"}, "the texts of the levels was 1-0"),
        ({"cap": 7}, "--cap was 100"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    with opened(tmp_path, SETTINGS) as journal:
        journal.write(Asked(question=ONE, tokens=MOST))
    before = (tmp_path / FILE).read_bytes()
    other = msgspec.structs.replace(SETTINGS, **change)
    with pytest.raises(EvaluationError, match=told), opened(tmp_path, other):
        pass
    assert (tmp_path / FILE).read_bytes() == before


def test_settings_that_led_to_nothing_may_be_corrected(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS) as journal:
        journal.write(Asked(question=ONE, tokens=MOST))
        journal.write(Failed(question=ONE, why="No such model.", tokens=Tokens()))
    other = msgspec.structs.replace(SETTINGS, model="other")
    for _ in range(2):
        with opened(tmp_path, other) as journal:
            assert not journal.book.failures
    assert (tmp_path / FILE).read_bytes() == msgspec.json.encode(other) + b"\n"


def test_a_judge_may_come_later_but_not_change(tmp_path: Path) -> None:
    with opened(tmp_path, SETTINGS) as journal:
        journal.write(Answered(question=ONE, tokens=TOOK, text="x"))
    with opened(tmp_path, msgspec.structs.replace(SETTINGS, judge="a")):
        pass
    other = msgspec.structs.replace(SETTINGS, judge="b")
    with pytest.raises(EvaluationError, match="--judge was a"), opened(tmp_path, other):
        pass


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with (
        opened(tmp_path, SETTINGS),
        pytest.raises(EvaluationError, match="Another evaluation"),
        opened(tmp_path, SETTINGS),
    ):
        pass


@pytest.mark.parametrize("text", ["my own notes\n", "my own notes", '{"type":"asked"}\nmine'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(EvaluationError, match="Line 1"), opened(tmp_path, SETTINGS):
        pass
    assert (tmp_path / FILE).read_text() == text


def test_a_descriptor_is_not_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path, SETTINGS):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
