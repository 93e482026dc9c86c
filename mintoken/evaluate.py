"""Runs an evaluation: every prompt in every arm, within its limits, from where it stopped."""

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from mintoken import eval_judge
from mintoken.errors import EvaluationError
from mintoken.eval_ask import Asker, NoReplyError, Reply
from mintoken.eval_budget import more
from mintoken.eval_journal import Journal, opened
from mintoken.eval_plan import Job, Plan, answer_jobs, judge_jobs, left, questions
from mintoken.eval_records import Answered, Asked, Book, Failed, Tokens
from mintoken.tokens import Tokenizer
from mintoken.upstream import Upstream

FIRST_BYTE_S = 900.0
"""An answer that does not stream begins when it is complete."""
HOPELESS = 5
"""So many failures before the first answer end it."""


class Ending(StrEnum):
    """Why it ended."""

    DONE = "done"
    LIMIT = "limit"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What came of it. `left` counts requests without an answer, `needed` is the most they take."""

    plan: Plan
    ending: Ending
    why: str
    left: int
    needed: dict[str, Tokens]
    book: Book = field(repr=False)


class Show(Protocol):
    """Is told how far it is, after each request and before the first."""

    def __call__(self, done: int, book: Book) -> None: ...


async def evaluate(
    plan: Plan, key: str, base_url: str, *, show: Show, tell: Callable[[str], None]
) -> Evaluation:
    """Ask what has no answer yet at `base_url`, and write everything down in `plan.folder`.

    Stops where the next request might pass a limit, and at the first SIGINT or SIGTERM, when what
    is under way has been answered; a second one gives that up. Raises EvaluationError if the
    folder cannot be used, and OSError.
    """
    stopping = asyncio.Event()
    tokenizer = Tokenizer(plan.tiktoken_cache_dir)
    upstream = Upstream(
        base_url,
        connect_timeout=plan.connect_timeout,
        first_byte_timeout=FIRST_BYTE_S,
    )
    try:
        await asyncio.to_thread(tokenizer.load)
        with opened(plan.folder, plan.settings) as journal:
            asker = Asker(upstream, key, tokenizer, stopping)
            run = _Run(plan, journal, asker, stopping, show, tell)
            with _interruptible(run.interrupt):
                await run.go()
            return run.result()
    finally:
        await upstream.close()
        tokenizer.close()


@contextmanager
def _interruptible(interrupt: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


class _Run:
    def __init__(
        self, plan: Plan, journal: Journal, asker: Asker, stopping: asyncio.Event,
        show: Show, tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._plan = plan
        self._journal = journal
        self._book = journal.book
        self._asker = asker
        self._stopping = stopping
        self._show = show
        self._tell = tell
        self._running: set[asyncio.Task[None]] = set()
        self._ending = Ending.DONE
        self._why = ""
        self._answered = self._failed = 0
        self._longest = max(
            (plan.settings.cap, *(one.tokens.output for one in self._book.answers.values()))
        )
        """The most output tokens of a request: some providers do not keep to the cap."""
        self._questions = questions(plan)

    def interrupt(self) -> None:
        """Start nothing more; the second time, give up what is under way."""
        if self._stopping.is_set():
            for task in self._running:
                task.cancel()
            return
        self._end(Ending.INTERRUPTED)
        self._tell(
            f"Stopping. What is under way ({len(self._running)}) is paid for, so it is waited for; "
            "press Ctrl-C again to give it up."
        )

    def _end(self, ending: Ending, why: str = "") -> None:
        if self._ending is Ending.DONE:
            self._ending, self._why = ending, why
        if ending is not Ending.LIMIT:
            self._stopping.set()

    async def go(self) -> None:
        """Get the answers, then what the judge says of them."""
        self._progress()
        try:
            await self._ask(answer_jobs(self._plan))
            if self._ending is Ending.DONE:
                await self._ask(judge_jobs(self._plan, self._book))
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def result(self) -> Evaluation:
        """What came of it so far."""
        count, needed = left(self._plan, self._book, cap=self._longest)
        ending = Ending.STOPPED if count and self._ending is Ending.DONE else self._ending
        why = self._why
        if count and not why:
            why = next((failed.why for failed in self._book.failures.values()), "")
        return Evaluation(
            plan=self._plan, ending=ending, why=why, left=count, needed=needed, book=self._book
        )

    def _open(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if job.question not in self._book.answers]

    async def _ask(self, jobs: Sequence[Job]) -> None:
        waiting = deque(self._open(jobs))
        while (waiting and not self._stopping.is_set()) or self._running:
            while waiting and self._may_start(waiting[0]):
                self._start(waiting.popleft())
            if not self._running:
                self._end(Ending.LIMIT)
                return
            done, self._running = await asyncio.wait(
                self._running, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if not task.cancelled():
                    task.result()

    def _may_start(self, job: Job) -> bool:
        """What runs holds its most, so it may be that this fits when some of it has ended."""
        if self._stopping.is_set() or len(self._running) >= self._plan.concurrency:
            return False
        most = job.most(self._longest)
        return self._plan.budget.admits(more(self._book.spent(), job.question.judge, most))

    def _start(self, job: Job) -> None:
        self._journal.write(Asked(question=job.question, tokens=job.most(self._longest)))
        self._running.add(asyncio.create_task(self._one(job), name=f"ask {job.question.prompt}"))

    async def _one(self, job: Job) -> None:
        cap = self._plan.settings.cap
        try:
            reply = await self._asker.ask(job.model, job.messages, job.text, cap)
        except NoReplyError as error:
            self._fail(job, str(error), error.tokens)
        except EvaluationError as error:
            self._fail(job, str(error), Tokens())
            self._end(Ending.STOPPED, str(error))
        else:
            self._take(job, reply)
        self._progress()

    def _fail(self, job: Job, why: str, tokens: Tokens | None) -> None:
        self._journal.write(Failed(question=job.question, why=why, tokens=tokens))
        self._failed += 1
        if not self._answered and self._failed >= HOPELESS:
            self._end(Ending.STOPPED, f"Nothing was answered. {why}")

    def _take(self, job: Job, reply: Reply) -> None:
        verdicts = eval_judge.verdicts(reply.text, job.facts) if job.question.judge else ()
        if job.question.judge and not verdicts:
            self._fail(job, "The judge did not say yes or no to each fact.", reply.tokens)
            return
        self._answered += 1
        self._journal.write(
            Answered(
                question=job.question,
                tokens=reply.tokens,
                text=reply.text,
                model=reply.model,
                finish_reason=reply.finish_reason,
                counted_by=reply.counted_by,
                verdicts=verdicts,
            )
        )
        if reply.tokens.output > self._longest:
            self._longest = reply.tokens.output
            self._tell(
                f"The provider does not keep to the cap: an answer took {self._longest:,} tokens. "
                "So much is kept free for each request from now on."
            )

    def _progress(self) -> None:
        self._show(sum(one in self._book.answers for one in self._questions), self._book)
