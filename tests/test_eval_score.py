"""The figures of an evaluation: sums, ratios and intervals over what every arm has answered."""

import pytest

from mintoken.eval_records import Arm, Question, Tokens
from mintoken.eval_score import ArmScore, Score, Scored, score

SAID = {Arm.NONE: 100, Arm.BRIEF: 40, Arm.LITE: 40, Arm.FULL: 30, Arm.ULTRA: 20}


def answers(prompt: str, *, times: int = 1, run: int = 1, **changes: object) -> list[Scored]:
    """One answer per arm; with `times`, so many times as long."""
    return [
        Scored(
            **{
                "question": Question(prompt, run, arm),
                "category": "a",
                "tokens": Tokens(input=10, output=said * times + 5, reasoning=5),
                "facts": 4,
                "found": 4 if arm is not Arm.ULTRA else 3,
            }
            | changes
        )
        for arm, said in SAID.items()
    ]


def of(found: Score, arm: Arm) -> ArmScore:
    return next(one for one in found.arms if one.arm is arm)


def test_ratios_are_of_all_tokens_that_can_be_read_and_coverage_of_all_facts() -> None:
    found = score([*answers("one"), *answers("two", times=3)])
    ultra = of(found, Arm.ULTRA)
    assert found.compared == 2
    assert ultra.answer_tokens == 40
    assert ultra.reasoning_tokens == 5
    assert ultra.against_none is not None
    assert ultra.against_brief is not None
    assert ultra.against_none.value == pytest.approx(-0.8)
    assert ultra.against_brief.value == pytest.approx(-0.5)
    assert ultra.coverage.value == 0.75
    assert ultra.judged is None
    assert of(found, Arm.NONE).against_none is None
    assert of(found, Arm.BRIEF).against_brief is None


def test_what_an_arm_has_not_answered_is_compared_for_none() -> None:
    found = score([*answers("one"), *answers("two", times=9)[:-1], *answers("one", run=2)[1:]])
    assert found.compared == 1
    assert of(found, Arm.NONE).answer_tokens == 100
    assert score(answers("one")[1:]) == Score(compared=0, arms=(), categories={})


def test_categories_have_figures_of_their_own() -> None:
    found = score([*answers("one"), *answers("two", times=3, category="b", found=1)])
    assert list(found.categories) == ["a", "b"]
    [none, *_] = found.categories["b"]
    assert (none.answer_tokens, none.coverage.value) == (300, 0.25)


def test_the_interval_spans_what_other_prompts_would_show_and_is_always_the_same() -> None:
    every = [
        one
        for number in range(40)
        for one in answers(str(number), found=number % 5, times=1 + number % 3)
    ]
    full = of(score(every), Arm.FULL)
    assert full.coverage.low < full.coverage.value == 0.5 < full.coverage.high
    assert 0.15 < full.coverage.high - full.coverage.low < 0.3
    assert full.against_none is not None
    assert full.against_none.low == pytest.approx(full.against_none.high) == pytest.approx(-0.7)
    assert of(score(every), Arm.FULL) == full


def test_a_judges_verdicts_are_apart_and_only_of_prompts_that_he_has_judged_in_every_arm() -> None:
    half = answers("two", judged=1)[:-1] + answers("two")[-1:]
    found = score([*answers("one", judged=2), *half])
    judged = of(found, Arm.FULL).judged
    assert judged is not None
    assert judged.value == 0.5
    assert of(found, Arm.FULL).coverage.value == 1


def test_answers_that_ended_at_the_cap_are_counted() -> None:
    found = score([*answers("one", cut=True), *answers("two")])
    assert [one.cut for one in found.arms] == [1] * 5


def test_a_prompt_without_a_readable_token_takes_no_ratio_down_with_it() -> None:
    found = score(answers("one", tokens=Tokens(input=3)))
    assert of(found, Arm.FULL).against_none is None
