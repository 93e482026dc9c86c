"""The judge: what it is shown, and how its reply is read."""

import pytest

from mintoken.eval_facts import Fact
from mintoken.eval_judge import question, verdicts
from mintoken.eval_plan import arm_texts

FACTS = (Fact(says="It is blue.", any_of=("blue",)), Fact(says="It is far.", any_of=("far",)))


def test_it_sees_question_answer_and_facts_but_no_arm() -> None:
    system, user = question("What of the sky?", "blue, far", FACTS)
    for part in ("What of the sky?", "blue, far", "1. It is blue.", "2. It is far."):
        assert part in user["content"]
    for text in filter(None, arm_texts().values()):
        assert text not in system["content"] + user["content"]


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("1 yes\n2 no", (True, False)),
        ("1. Yes\n2. No.", (True, False)),
        ("2: no\n1: yes", (True, False)),
        ("**1** — yes\n**2** — yes, clearly", (True, True)),
        ("1 yes", ()),
        ("1 yes\n2 maybe", ()),
        ("1 yes\n1 no\n2 no", ()),
        ("1 yes\n2 no\n3 yes", ()),
        ("", ()),
    ],
)
def test_a_reply_is_read_only_if_it_decides_each_fact_once(
    reply: str, read: tuple[bool, ...]
) -> None:
    assert verdicts(reply, 2) == read
