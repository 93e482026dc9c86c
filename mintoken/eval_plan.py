"""What an evaluation asks: every prompt in every arm, then a judge about every answer."""

import random
from dataclasses import dataclass
from pathlib import Path

from mintoken import eval_judge
from mintoken.eval_ask import CAP_FIELDS, request_body
from mintoken.eval_budget import Budget, more, most_of
from mintoken.eval_records import Answered, Arm, Book, Question, Settings, Tokens
from mintoken.eval_score import SEED, Scored
from mintoken.eval_set import EvalPrompt, PromptSet
from mintoken.models import Intensity
from mintoken.prompts import load_prompts

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask, how often, and for how much; `settings.judge` is "" without a judge."""

    settings: Settings
    prompts: PromptSet
    runs: int
    budget: Budget
    concurrency: int
    folder: Path
    connect_timeout: float = 5.0
    tiktoken_cache_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is to be made; `facts` is how many a judge decides on."""

    question: Question
    model: str
    messages: list[dict[str, str]]
    text: str
    facts: int

    def most(self, cap: int) -> Tokens:
        """The most that it can take if no answer is longer than `cap`."""
        size = len(request_body(self.model, self.messages, self.text, CAP_FIELDS[-1], cap))
        return most_of(size, len(self.messages) + 1, cap)


def settings_of(prompts: PromptSet, *, base_url: str, model: str, cap: int, judge: str) -> Settings:
    """The settings of an evaluation with the level texts of today."""
    return Settings(
        base_url=base_url,
        model=model,
        prompts=prompts.digest,
        prompt_version=load_prompts().version,
        cap=cap,
        judge=judge,
    )


def arm_texts() -> dict[Arm, str]:
    """The system text of each arm, "" for none."""
    prompts = load_prompts()
    levels = {Arm(level.value): prompts.text(level) for level in Intensity}
    return levels | {Arm.BRIEF: "Be brief."}


def answer_jobs(plan: Plan) -> list[Job]:
    """Every request for an answer. All arms of a prompt follow each other, so that they can be
    compared wherever it stops.
    """
    texts = arm_texts()
    return [
        Job(Question(prompt.id, run, arm), plan.settings.model, _messages(prompt), texts[arm], 0)
        for run in range(1, plan.runs + 1)
        for prompt in plan.prompts.prompts
        for arm in Arm
    ]


def questions(plan: Plan) -> list[Question]:
    """Everything that is asked, of the judge too."""
    asked = [job.question for job in answer_jobs(plan)]
    judge = plan.settings.judge
    return asked + ([about(question, judge) for question in asked] if judge else [])


def _messages(prompt: EvalPrompt) -> list[dict[str, str]]:
    user = {"role": "user", "content": prompt.user}
    return [{"role": "system", "content": prompt.system}, user] if prompt.system else [user]


def judge_jobs(plan: Plan, book: Book) -> list[Job]:
    """A request to the judge for every answer, in an order that says nothing of the arms."""
    judge = plan.settings.judge
    if not judge:
        return []
    prompts = {prompt.id: prompt for prompt in plan.prompts.prompts}
    jobs = []
    for job in answer_jobs(plan):
        asked, answer = job.question, book.answers.get(job.question)
        if answer is not None:
            facts = prompts[asked.prompt].facts
            messages = eval_judge.question(prompts[asked.prompt].user, answer.text, facts)
            jobs.append(Job(about(asked, judge), judge, messages, "", len(facts)))
    random.Random(SEED).shuffle(jobs)  # noqa: S311 - reproducible, nothing secret
    return jobs


def about(question: Question, judge: str) -> Question:
    """What the judge is asked about the answer to a question."""
    return Question(question.prompt, question.run, question.arm, judge)


def left(plan: Plan, book: Book, *, cap: int) -> tuple[int, dict[str, Tokens]]:
    """How many requests have no answer yet, and the most that they take."""
    count, needed, judge = 0, dict[str, Tokens](), plan.settings.judge
    for job in [*answer_jobs(plan), *judge_jobs(plan, book)]:
        if job.question in book.answers:
            continue
        most, asked = job.most(cap), job.question
        count, needed = count + 1, more(needed, asked.judge, most)
        if judge and not asked.judge:
            # The answer that the judge will read is not known yet.
            read = Tokens(input=most.input + _BYTES_PER_TOKEN * cap, output=cap)
            count, needed = count + 1, more(needed, judge, read)
    return count, needed


def scored(plan: Plan, book: Book) -> list[Scored]:
    """The answers, checked for the facts of their prompts."""
    prompts = {prompt.id: prompt for prompt in plan.prompts.prompts}
    return [
        _scored(prompts[job.question.prompt], answer, plan.settings.judge, book)
        for job in answer_jobs(plan)
        if (answer := book.answers.get(job.question)) is not None
    ]


def _scored(prompt: EvalPrompt, answer: Answered, judge: str, book: Book) -> Scored:
    asked = answer.question
    judged = (
        book.answers.get(Question(asked.prompt, asked.run, asked.arm, judge)) if judge else None
    )
    return Scored(
        question=asked,
        category=prompt.category,
        tokens=answer.tokens,
        facts=len(prompt.facts),
        found=sum(fact.is_in(answer.text) for fact in prompt.facts),
        judged=sum(judged.verdicts) if judged else None,
        cut=answer.finish_reason == "length",
    )
