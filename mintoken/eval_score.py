"""What the answers show: tokens and facts by arm, each with an interval.

Only what every arm has answered is compared. The intervals are those of a bootstrap over prompts:
from a fixed seed, the prompts are drawn anew 2,000 times, as many as there are and with
replacement, and the middle 95 % of the results is the interval. It says how much hangs on the
choice of prompts.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mintoken.eval_records import Arm, Question, Tokens

DRAWS = 2_000
SEED = 20_261_125
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One answer: its tokens, and how many of its prompt's facts are in it.

    `judged` is how many of them a judge has found, None if it was not asked.
    """

    question: Question
    category: str
    tokens: Tokens
    facts: int
    found: int
    judged: int | None = None
    cut: bool = False
    """It ended at the cap."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """One arm: means per answer, ratios of answer tokens, and shares of facts found."""

    arm: Arm
    answers: int
    input_tokens: float
    answer_tokens: float
    reasoning_tokens: float
    against_none: Estimate | None
    against_brief: Estimate | None
    coverage: Estimate
    judged: Estimate | None
    cut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Everything that is compared; `compared` counts the pairs of a prompt and a run."""

    compared: int
    arms: tuple[ArmScore, ...]
    categories: Mapping[str, tuple[ArmScore, ...]]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of the answers to one prompt in one arm."""

    said: int
    facts: int
    found: int
    judged: int | None


_ByArm = Mapping[Arm, _Sums]


def score(answers: Iterable[Scored]) -> Score:
    """Compare the arms over all that each of them has answered."""
    whole = list(_whole(answers))
    categories = dict.fromkeys(one.category for one in whole)
    return Score(
        compared=len(whole) // len(Arm),
        arms=_arms(whole),
        categories={name: _arms([o for o in whole if o.category == name]) for name in categories},
    )


def _whole(answers: Iterable[Scored]) -> Iterable[Scored]:
    together: dict[tuple[str, int], list[Scored]] = {}
    for one in answers:
        together.setdefault((one.question.prompt, one.question.run), []).append(one)
    return (one for group in together.values() if len(group) == len(Arm) for one in group)


def _arms(answers: Sequence[Scored]) -> tuple[ArmScore, ...]:
    if not answers:
        return ()
    prompts = [
        {arm: _sums([o for o in group if o.question.arm is arm]) for arm in Arm}
        for group in _by_prompt(answers)
    ]
    return tuple(_arm(arm, [o for o in answers if o.question.arm is arm], prompts) for arm in Arm)


def _by_prompt(answers: Sequence[Scored]) -> list[list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for one in answers:
        groups.setdefault(one.question.prompt, []).append(one)
    return list(groups.values())


def _sums(answers: Sequence[Scored]) -> _Sums:
    judged = [one.judged for one in answers if one.judged is not None]
    return _Sums(
        said=sum(one.tokens.said for one in answers),
        facts=sum(one.facts for one in answers),
        found=sum(one.found for one in answers),
        judged=sum(judged) if len(judged) == len(answers) else None,
    )


def _arm(arm: Arm, answers: Sequence[Scored], prompts: Sequence[_ByArm]) -> ArmScore:
    count = len(answers)
    judged = [prompt for prompt in prompts if all(s.judged is not None for s in prompt.values())]
    return ArmScore(
        arm=arm,
        answers=count,
        input_tokens=sum(one.tokens.input for one in answers) / count,
        answer_tokens=sum(one.tokens.said for one in answers) / count,
        reasoning_tokens=sum(one.tokens.reasoning for one in answers) / count,
        against_none=_against(Arm.NONE, arm, prompts),
        against_brief=_against(Arm.BRIEF, arm, prompts),
        coverage=_estimate(
            [prompt[arm].found for prompt in prompts], [prompt[arm].facts for prompt in prompts]
        ),
        judged=_estimate(
            [prompt[arm].judged or 0 for prompt in judged],
            [prompt[arm].facts for prompt in judged],
        )
        if judged
        else None,
        cut=sum(one.cut for one in answers),
    )


def _against(base: Arm, arm: Arm, prompts: Sequence[_ByArm]) -> Estimate | None:
    """The change of answer tokens against another arm: -0.5 is half of them."""
    if arm is base or not all(prompt[base].said for prompt in prompts):
        return None
    of = _estimate([p[arm].said for p in prompts], [p[base].said for p in prompts])
    return Estimate(of.value - 1, of.low - 1, of.high - 1)


def _estimate(over: Sequence[int], under: Sequence[int]) -> Estimate:
    """The ratio of two sums over prompts."""
    drawn = sorted(
        sum(map(over.__getitem__, some)) / sum(map(under.__getitem__, some))
        for some in _draws(len(over))
    )
    edge = int(DRAWS * (1 - LEVEL) / 2)
    return Estimate(sum(over) / sum(under), drawn[edge], drawn[-1 - edge])


@lru_cache(maxsize=64)
def _draws(count: int) -> tuple[list[int], ...]:
    """Which of so many prompts are drawn, each time."""
    draw = random.Random(SEED)  # noqa: S311 - reproducible, nothing secret
    return tuple(draw.choices(range(count), k=count) for _ in range(DRAWS))
