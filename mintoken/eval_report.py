"""What an evaluation found: as a document, as rows of a table, and as a page."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any, assert_never

import msgspec
import orjson

from mintoken.eval_budget import more, total
from mintoken.eval_page import are_left, page
from mintoken.eval_plan import Plan, scored
from mintoken.eval_records import Arm, Book
from mintoken.eval_score import DRAWS, LEVEL, ArmScore, score
from mintoken.evaluate import Ending, Evaluation
from mintoken.files import open_private

INTERVAL = f"bootstrap over prompts, {DRAWS:,} draws, {LEVEL:.0%}"
COLUMNS = {
    "arm": "Arm",
    "input": "Input",
    "answer": "Answer",
    "against_none": "against none",
    "against_brief": 'against "Be brief."',
    "coverage": "Facts kept",
}
JUDGED = {"judged": "by the judge"}
REASONING = {"reasoning": "Reasoning"}
CUT = {"cut": "Cut off"}

Document = dict[str, Any]


def document(evaluation: Evaluation, *, note: str = "") -> Document:
    """Everything that was found; no answer is in it."""
    plan, book = evaluation.plan, evaluation.book
    found = score(scored(plan, book))
    spent = book.spent()
    return {
        "ending": evaluation.ending.value,
        "complete": not evaluation.left,
        "why": evaluation.why,
        "note": note,
        "settings": msgspec.to_builtins(plan.settings),
        "prompt_set": plan.prompts.name,
        "prompts": len(plan.prompts.prompts),
        "runs": plan.runs,
        "requests_left": evaluation.left,
        "models_served": sorted({one.model for one in book.answers.values()}),
        "counted_by": Counter(one.counted_by for one in book.answers.values()),
        "usd": plan.budget.usd(spent),
        "tokens": msgspec.to_builtins(
            {judge or plan.settings.model: tokens for judge, tokens in spent.items()}
        ),
        "compared": found.compared,
        "interval": INTERVAL,
        "arms": [_plain(one) for one in found.arms],
        "categories": {
            name: [_plain(one) for one in arms] for name, arms in found.categories.items()
        },
        "missed": missed(plan, book),
        "failures": [
            {**msgspec.to_builtins(one.question), "why": one.why} for one in book.failures.values()
        ],
    }


def _plain(arm: ArmScore) -> Document:
    return asdict(arm) | {"arm": arm.arm.value}


def missed(plan: Plan, book: Book) -> list[Document]:
    """Each fact that was not found, with how often in which arms."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    prompts = {prompt.id: prompt for prompt in plan.prompts.prompts}
    for one in scored(plan, book):
        prompt, text = prompts[one.question.prompt], book.answers[one.question].text
        for fact in prompt.facts:
            if not fact.is_in(text):
                arms = counts.setdefault((prompt.id, fact.says), {})
                arms[one.question.arm.value] = arms.get(one.question.arm.value, 0) + 1
    return [{"prompt": id_, "fact": says, "arms": arms} for (id_, says), arms in counts.items()]


def rows(found: Document) -> list[dict[str, object]]:
    """The arms as rows of a table, in words."""
    return [_row(arm) for arm in found["arms"]]


def columns(found: Document) -> dict[str, str]:
    """The columns of that table that say something."""
    arms = found["arms"]
    shown = dict(COLUMNS)
    shown |= JUDGED if any(arm["judged"] for arm in arms) else {}
    shown |= REASONING if any(arm["reasoning_tokens"] for arm in arms) else {}
    return shown | (CUT if any(arm["cut"] for arm in arms) else {})


def _row(arm: Document) -> dict[str, object]:
    return {
        "arm": Arm(arm["arm"]).label,
        "input": round(arm["input_tokens"]),
        "answer": round(arm["answer_tokens"]),
        "against_none": _told(arm["against_none"], "{:+.0%}"),
        "against_brief": _told(arm["against_brief"], "{:+.0%}"),
        "coverage": _told(arm["coverage"], "{:.1%}"),
        "judged": _told(arm["judged"], "{:.1%}"),
        "reasoning": round(arm["reasoning_tokens"]),
        "cut": arm["cut"],
    }


def _told(estimate: Mapping[str, float] | None, form: str) -> str:
    if estimate is None:
        return ""
    value, low, high = (form.format(estimate[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})".replace("-", "−")


def write(found: Document, folder: Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html`, for this user alone. Raises OSError."""
    data, view = folder / "report.json", folder / "report.html"
    _write(data, orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    _write(view, page(found, rows(found), columns(found)).encode())
    return data, view


def advice(evaluation: Evaluation) -> str:
    """Why it is not complete, and how to go on."""
    left = are_left(evaluation.left)
    match evaluation.ending:
        case Ending.LIMIT:
            return _beyond(evaluation, left)
        case Ending.INTERRUPTED:
            return f"Interrupted: {left}. Run the same command again to go on."
        case Ending.STOPPED | Ending.DONE:
            return f"{evaluation.why} {left.capitalize()}: run the same command again to go on."
    assert_never(evaluation.ending)


def _beyond(evaluation: Evaluation, left: str) -> str:
    budget, spent = evaluation.plan.budget, evaluation.book.spent()
    needed = dict(spent)
    for judge, tokens in evaluation.needed.items():
        needed = more(needed, judge, tokens)
    usd, higher = budget.usd(needed), []
    if budget.max_usd is not None and usd is not None:
        higher.append(f"--max-usd {ceil(usd * 100) / 100:.2f}")
    if budget.max_tokens is not None:
        higher.append(f"--max-tokens-total {total(needed)}")
    return (
        f"Stopped, as the next request might pass the limit: {budget.told(spent)} spent, {left}. "
        f"To go on, run the same command with more; {' '.join(higher)} is enough for all."
    )


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(open_private(path, os.O_TRUNC), "wb") as file:
        file.write(content)
