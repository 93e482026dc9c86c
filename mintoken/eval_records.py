"""What an evaluation writes down of each request, and what that adds up to."""

from enum import StrEnum

from msgspec import Struct


class Arm(StrEnum):
    """What a prompt is asked with; BRIEF is what anybody could write himself."""

    NONE = "none"
    BRIEF = "brief"
    LITE = "lite"
    FULL = "full"
    ULTRA = "ultra"

    @property
    def label(self) -> str:
        """Its name for people."""
        return '"Be brief."' if self is Arm.BRIEF else self.value


class Question(Struct, frozen=True):
    """One request: a prompt in an arm, asked for the `run`-th time, from 1 on.

    With a `judge`, it asks that model about the answer.
    """

    prompt: str
    run: int
    arm: Arm
    judge: str = ""


class Tokens(Struct, frozen=True, kw_only=True):
    """Tokens of requests; `reasoning` is part of `output`."""

    input: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def said(self) -> int:
        """Those of what can be read."""
        return self.output - self.reasoning

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            input=self.input + other.input,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
        )


class Settings(Struct, frozen=True, kw_only=True, tag="settings"):
    """What must not change between the records of one evaluation."""

    base_url: str
    model: str
    prompts: str
    """The digest of the prompt set."""
    prompt_version: str
    """That of the levels' texts."""
    cap: int
    """The most tokens of an answer."""
    judge: str = ""


class Asked(Struct, frozen=True, kw_only=True, tag="asked"):
    """Written before a request is sent; `tokens` is the most that it can take."""

    question: Question
    tokens: Tokens


class Answered(Struct, frozen=True, kw_only=True, tag="answered"):
    """A request that got its answer; that of a judge has a verdict on each fact."""

    question: Question
    tokens: Tokens
    text: str
    model: str = ""
    finish_reason: str = ""
    counted_by: str = ""
    verdicts: tuple[bool, ...] = ()


class Failed(Struct, frozen=True, kw_only=True, tag="failed"):
    """A request without an answer; `tokens` is what it took, None where nobody knows."""

    question: Question
    why: str
    tokens: Tokens | None = None


Record = Asked | Answered | Failed


class Book:
    """The records added up. Where nobody knows what a request took, its most is counted."""

    def __init__(self) -> None:
        self.answers: dict[Question, Answered] = {}
        self.failures: dict[Question, Failed] = {}
        """Of what has no answer yet."""
        self._asked: dict[Question, Tokens] = {}
        self._spent: dict[str, Tokens] = {}

    def take(self, record: Record) -> None:
        """Add the next record."""
        question = record.question
        most = self._asked.pop(question, Tokens())
        match record:
            case Asked():
                self._spend(question.judge, most)  # It was asked before, and the program died.
                self._asked[question] = record.tokens
            case Answered():
                self._spend(question.judge, record.tokens)
                self.answers[question] = record
                self.failures.pop(question, None)
            case Failed():
                self._spend(question.judge, most if record.tokens is None else record.tokens)
                self.failures[question] = record

    @property
    def is_worth_nothing(self) -> bool:
        """Was nothing answered, and nothing spent?"""
        return not self.answers and all(most == Tokens() for most in self.spent().values())

    def spent(self) -> dict[str, Tokens]:
        """By judge, "" for the model itself; what may still be spent by open requests included."""
        spent = dict(self._spent)
        for question, most in self._asked.items():
            spent[question.judge] = spent.get(question.judge, Tokens()) + most
        return spent

    def _spend(self, judge: str, tokens: Tokens) -> None:
        self._spent[judge] = self._spent.get(judge, Tokens()) + tokens
