"""Facts: what a phrase finds in an answer, and what it does not."""

import pytest

from mintoken.eval_facts import Fact


def holds(answer: str, *phrases: str) -> bool:
    return Fact(says="", any_of=phrases).is_in(answer)


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        ("busy_timeout", "Set `PRAGMA BUSY_TIMEOUT = 5000`."),
        ("write lock", "holds the write\n   lock"),
        ("not the same", "They are **not** the same."),
        ("git reset --hard", "run `git reset` --hard"),
        ("can't", "it can’t"),
        ("re-login", "a re‑login"),
        ("10 h", "10\u00a0h in all"),
        ("lock*", "It is locked."),
        ("12", "It is 12."),
        ("12", "12, then"),
        ("54", "54€"),
        ("変更", "リストは変更できます"),
        ("não", "Não altera nada."),
        ("/a+b/", "xAAbx"),
        ("/(?m)^two$/", "one\ntwo\nthree"),
        ("--previous*", "kubectl logs x --previous"),
        ("N+1*", "an N+1 query"),
        ("none of these", "is none of these"),
    ],
)
def test_a_phrase_is_found(phrase: str, answer: str) -> None:
    assert holds(answer, "nothing like it", phrase)


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        ("lock", "It is locked."),
        ("lock*", "It is blocked."),
        ("12", "3.12"),
        ("12", "12.5 and 12,500 and 120 and 512"),
        ("200", "1,200"),
        ("no", "nothing, not, I know"),
        ("nao", "não"),
        ("ler", "dólares e números"),
        ("/^two$/", "one\ntwo\nthree"),
        ("x", ""),
    ],
)
def test_a_phrase_is_not_found(phrase: str, answer: str) -> None:
    assert not holds(answer, phrase)


def test_what_must_not_be_said_is_looked_for_too() -> None:
    fact = Fact(says="", any_of=("TRUNCATE",), none_of=("safe",))
    assert fact.is_in("TRUNCATE events")
    assert not fact.is_in("TRUNCATE is safe")


def test_an_empty_answer_holds_nothing() -> None:
    assert not Fact(says="", none_of=("x",)).is_in(" \n")


ORDER = '{"id": 7, "paid": true, "items": [{"name": "lamp"}], "note": null}'


@pytest.mark.parametrize("answer", [ORDER, f"\n```json\n{ORDER}\n```\n"])
def test_json_is_checked_for_keys_and_values(answer: str) -> None:
    assert Fact(says="", keys=("id", "items.0.name", "note")).is_in(answer)
    assert not Fact(says="", keys=("items.1",)).is_in(answer)
    assert not Fact(says="", keys=("id.x",)).is_in(answer)
    assert Fact(says="", values={"id": 7, "items.0.name": "lamp", "paid": True}).is_in(answer)
    assert not Fact(says="", values={"paid": 1}).is_in(answer)
    assert not Fact(says="", values={"id": 8}).is_in(answer)
    assert not Fact(says="", values={"absent": 8}).is_in(answer)


@pytest.mark.parametrize("answer", [f"Here you are: {ORDER}", "[1]", "{", "[" * 100_000])
def test_what_is_no_json_object_has_no_keys(answer: str) -> None:
    assert not Fact(says="", keys=("id",)).is_in(answer)
