"""Smart detection: which level suits what a request asks, by the signals of data/rules.toml."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import msgspec

from mintoken.exchange import MOST_TURNS, Asked
from mintoken.models import Decision, Intensity
from mintoken.patterns import NO_SPACES, Vocabulary

SYSTEM_TEXTS = 128
"""System texts of which is remembered what is in them."""
WARM_UP_CHARACTERS = 4096
SHORT_CAP = 64
"""Tokens: an answer that may not be longer has nothing to spare."""
REPEAT_TURNS = 3
REPEAT_WORDS = 3
REPEAT_CHARACTERS = 1024
"""A question counts as repeated if it was among the last so many messages, and has at least so many
words in at most so many characters."""

_TERM = re.compile(r"\{([a-z_]+)\}")
# What people add when they ask the same again.
_FILLERS = frozenset(
    "please again so but and i asked already just still the a my question is hello hi ok well now "
    "bitte nochmal noch einmal ich habe gefragt also und aber por favor otra vez y pero de novo e "
    "mas s'il te vous plaît encore et mais".split()
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

_KINDS = ("request", "text")
_COLUMNS = {"name", "level", "predicate", "last", "system", "either"}

Predicate = Callable[[Asked], bool]


def _repeats_a_question(asked: Asked) -> bool:
    """The last user message has the words of one before it, apart from "please" and the like."""
    before = asked.turns[-1 - REPEAT_TURNS : -1]
    if not before:
        return False
    last = _words(asked.turns[-1])
    if len(last) < REPEAT_WORDS or last <= _FILLERS:
        return False
    return any(_words(turn) ^ last <= _FILLERS for turn in before)


@lru_cache(maxsize=64)  # of one conversation
def _words(text: str) -> frozenset[str]:
    if len(text) > REPEAT_CHARACTERS:
        return frozenset()
    words = _WORD.findall(text.lower())
    if len(words) < REPEAT_WORDS:  # or a script without spaces
        words = [char for word in words if NO_SPACES.search(word) for char in word]
    return frozenset(words)


PREDICATES: Mapping[str, Predicate] = {
    "wants_structure": lambda asked: asked.structure,
    "forces_a_tool": lambda asked: asked.forced_tool,
    "wants_logprobs": lambda asked: asked.logprobs,
    "predicts": lambda asked: asked.prediction,
    "wants_audio": lambda asked: asked.audio,
    "has_short_cap": lambda asked: asked.cap is not None and asked.cap <= SHORT_CAP,
    "has_tool_result": lambda asked: asked.tool_result,
    "is_long": lambda asked: len(asked.turns) > MOST_TURNS or len(asked.later) > MOST_TURNS,
    "has_code_blocks": lambda asked: asked.turns[-1].count("```") >= 4,
    "repeats_a_question": _repeats_a_question,
}


@dataclass(frozen=True, slots=True)
class Signal:
    """One row of the table: what it looks for, and what it makes of it."""

    decision: Decision
    predicate: Predicate | None = None
    last: tuple[str, ...] = ()
    system: tuple[str, ...] = ()


class Detector:
    """The signals of one table."""

    def __init__(self, *, request: tuple[Signal, ...], text: tuple[Signal, ...]) -> None:
        self._request, self._text = request, text
        self._last = Vocabulary({at: signal.last for at, signal in enumerate(text)})
        system = Vocabulary({at: signal.system for at, signal in enumerate(text)})
        # An application's requests share one.
        self._in_system = lru_cache(maxsize=SYSTEM_TEXTS)(system.found)

    def detect(self, asked: Asked) -> Decision | None:
        """What suits this request, taken by itself; None if the key's own level does."""
        return self.of_request(asked) or self.of_texts(asked)

    def of_request(self, asked: Asked) -> Decision | None:
        """What suits how the request is made, and what the system says between its turns.

        Only at the beginning does that choose a level; later it may say that nothing is compressed.
        """
        for signal in self._request:
            if signal.predicate is not None and signal.predicate(asked):
                return signal.decision
        for at in sorted({at for text in asked.later for at in self._in_system(text)}):
            if is_none(self._text[at].decision):
                return self._text[at].decision
        return None

    def of_texts(self, asked: Asked) -> Decision | None:
        """What suits the last turn, with the system text and the turns before."""
        return self._first(asked, self._last.found(*asked.turns[-1:]))

    def of_conversation(self, asked: Asked) -> Decision | None:
        """What suits the first turn, or the first later one for which that is NONE."""
        if len(asked.turns) < 2:
            return self.of_texts(asked)
        first = self.of_texts(msgspec.structs.replace(asked, turns=asked.turns[:1]))
        if is_none(first):
            return first
        # Rarely is there anything to find, and in all of them at once that is soon known.
        suspicious = any(
            is_none(self._text[at].decision) for at in self._last.found(*asked.turns[1:])
        )
        for at, turn in enumerate(asked.turns[1:], start=1):
            so_far = msgspec.structs.replace(
                asked, turns=asked.turns[max(0, at - REPEAT_TURNS) : at + 1]
            )
            found = self._first(so_far, self._last.found(turn) if suspicious else frozenset())
            if is_none(found):
                return found
        return first

    def _first(self, asked: Asked, in_last: frozenset[int]) -> Decision | None:
        found = in_last | self._in_system(asked.system)
        for at, signal in enumerate(self._text):
            if signal.predicate(asked) if signal.predicate else at in found:
                return signal.decision
        return None


def is_none(decision: Decision | None) -> bool:
    """Does it say that nothing is to be compressed?"""
    return decision is not None and decision.intensity is Intensity.NONE


@cache
def load_detector() -> Detector:
    """The table that comes with the package, read once. Raises KeyError, ValueError, re2.error."""
    text = (files("mintoken") / "data" / "rules.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    rows = {kind: tuple(_signal(row, table["terms"]) for row in table[kind]) for kind in _KINDS}
    detector = Detector(**rows)
    # RE2 works out what to do with a word when it meets it, and these it has met then.
    for start in range(0, len(text), WARM_UP_CHARACTERS):
        detector.of_texts(Asked(turns=(text[start : start + WARM_UP_CHARACTERS],)))
    return detector


def _signal(row: Mapping[str, str], terms: Mapping[str, str]) -> Signal:
    if unknown := row.keys() - _COLUMNS:
        raise ValueError(f"rules.toml: {row['name']} has {unknown}, which is unknown")
    either = _lines(row, "either", terms)
    return Signal(
        decision=Decision(Intensity(row["level"]), f"detect:{row['name']}"),
        predicate=PREDICATES[row["predicate"]] if "predicate" in row else None,
        last=either + _lines(row, "last", terms),
        system=either + _lines(row, "system", terms),
    )


def _lines(row: Mapping[str, str], column: str, terms: Mapping[str, str]) -> tuple[str, ...]:
    patterns = [line for line in row.get(column, "").splitlines() if line]
    while any(_TERM.search(pattern) for pattern in patterns):
        patterns = [_TERM.sub(lambda term: terms[term[1]], pattern) for pattern in patterns]
    return tuple(patterns)
