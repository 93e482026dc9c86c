"""Custom rules: an account's own patterns choose the level of a request, in linear time."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import re2

from mintoken.chat_asked import EDGE_CHARACTERS, clipped
from mintoken.models import Decision, Intensity, Rule, RuleAction
from mintoken.patterns import re2_options

MAX_RULES = 100
"""Of one account."""
MAX_CHARACTERS = 500
"""Of one pattern."""
MAX_PRIORITY = 1000
"""A priority is -1000 to 1000."""
MAX_STEPS, MAX_STEPS_TOGETHER = 2000, 5000
"""Instructions that one pattern may be compiled to, and all of one account together. A character
of a pattern is about one, `\\pL` is 1,200."""
MOST_BYTES = 4 * len(clipped("x" * 3 * EDGE_CHARACTERS))
"""Of a text in UTF-8 that are looked at: the ends that detection looks at too."""
QUICK_WORK = 60_000
"""Instructions times bytes that are done within 2 ms even where every byte needs a new state of
the automaton: up to 33 ns each were measured."""

# What an automaton keeps; it starts over when this is full. The largest needs an eighth of it.
_MAX_MEMORY_BYTES = 4 * 1024 * 1024

_MATCHES_ALL = ""
_BACKREFERENCES = "There are no backreferences here, so that every pattern takes linear time."
_LOOKAROUND = "There is no lookahead or lookbehind here, so that every pattern takes linear time."
_HINTS = (
    *((start, _LOOKAROUND) for start in ("(?=", "(?!", "(?<=", "(?<!")),
    *((f"\\{digit}", _BACKREFERENCES) for digit in range(1, 10)),
    *((start, _BACKREFERENCES) for start in ("\\k", "\\g", "(?P=")),
    ("\\Z", "Write \\z for the end of the text."),
)


class PatternError(Exception):
    """The pattern cannot be used; the message says why, and where."""


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """The rules of one account; `compile_rules` makes one. Safe to use from several threads.

    `ranked` has those of `source` that can match, the one that wins first; `unusable` those that
    cannot be used here, and why. `steps` is the size of the program that they became.
    """

    source: tuple[Rule, ...]
    ranked: tuple[Rule, ...]
    unusable: tuple[tuple[Rule, str], ...]
    steps: int
    _automaton: re2.Set = field(repr=False)

    def decide(self, text: str) -> Decision | None:
        """What the rules say of the last user message, None if no rule matches. Never raises."""
        matching = self._automaton.Match(_looked_at(text))
        if not matching:
            return None
        rule = self.ranked[min(matching)]
        return Decision(rule.action.intensity, f"rule:{rule.id}")

    def matching(self, text: str) -> tuple[Rule, ...]:
        """Every rule that matches, the one that wins first."""
        return tuple(self.ranked[i] for i in sorted(self._automaton.Match(_looked_at(text)) or ()))

    def is_quick(self, size: int) -> bool:
        """May `decide` run on the event loop, whatever a text of so many bytes is?"""
        return self.steps * min(size, MOST_BYTES) <= QUICK_WORK


def compile_rules(rules: Iterable[Rule]) -> CompiledRules:
    """The rules of one account, made ready once for many texts. Never raises.

    A rule that cannot be used (another version accepted it) fails towards not compressing: one of
    level `none` then matches every text, any other none.
    """
    source = tuple(rules)
    patterns, unusable, steps = dict[Rule, str](), [], 0
    for rule in sorted(source, key=_rank):
        try:
            steps += measure(rule.pattern, room=MAX_STEPS_TOGETHER - steps)
            patterns[rule] = rule.pattern
        except PatternError as error:
            unusable.append((rule, str(error)))
            if rule.action.intensity is Intensity.NONE:
                patterns[rule] = _MATCHES_ALL
    automaton = re2.Set.SearchSet(re2_options(_MAX_MEMORY_BYTES))
    for pattern in patterns.values():
        automaton.Add(pattern)
    automaton.Compile()
    return CompiledRules(source, tuple(patterns), tuple(unusable), steps, automaton)


def measure(pattern: str, *, room: int = MAX_STEPS_TOGETHER) -> int:
    """The instructions that a pattern is compiled to. Raises PatternError if it cannot be used.

    `room` is how many the account's other rules leave.
    """
    if not 0 < len(pattern) <= MAX_CHARACTERS:
        raise PatternError(
            f"A pattern has 1 to {MAX_CHARACTERS} characters; this one has {len(pattern)}. "
            "'^' matches every text."
        )
    wrong = _error(pattern)
    if wrong is not None:
        raise PatternError(_explained(pattern, wrong))
    steps: int = re2.compile(pattern, re2_options(_MAX_MEMORY_BYTES)).programsize
    if steps > MAX_STEPS:
        raise PatternError(
            f"The pattern is too large: it becomes {steps:,} steps, and {MAX_STEPS:,} are allowed. "
            "Repeat less ({n,m}), or name fewer characters (\\pL and the like are many)."
        )
    if steps > room:
        raise PatternError(
            f"The account's rules are too large together: {MAX_STEPS_TOGETHER:,} steps are "
            f"allowed, {room:,} are left, and this one needs {steps:,}. Remove or simplify some."
        )
    return steps


def _rank(rule: Rule) -> tuple[int, bool, int, str]:
    """The higher priority wins; ties go to never_compress, then to the older rule."""
    may_compress = rule.action is not RuleAction.NEVER_COMPRESS
    return -rule.priority, may_compress, rule.created_at, rule.id


def _looked_at(text: str) -> bytes:
    """The text's UTF-8, without its middle if it is long; a request's came without it already."""
    return clipped(text).encode(errors="replace")


def _error(pattern: str) -> str | None:
    """What re2 says against the pattern; None if it is good."""
    try:
        re2.compile(pattern, re2_options(_MAX_MEMORY_BYTES))
    except re2.error as error:
        [message] = error.args
        return message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    except UnicodeEncodeError:
        return "it is not text"
    return None


def _explained(pattern: str, wrong: str) -> str:
    """re2's message with the place, counted in characters from 1, and what to know about it."""
    kind, _, fragment = wrong.partition(": ")
    at = _place(pattern, wrong, kind, fragment)
    if at is None:
        return f"The pattern cannot be used: {wrong}."
    hint = next((f" {text}" for start, text in _HINTS if pattern.startswith(start, at)), "")
    return f"The pattern cannot be used: {wrong}, at character {at + 1}.{hint}"


def _place(pattern: str, wrong: str, kind: str, fragment: str) -> int | None:
    """Where what re2 names stands: where the pattern before it has not that error yet."""
    if kind == "unexpected )":
        ends = range(1, len(pattern) + 1)
        return next(n - 1 for n in ends if (_error(pattern[:n]) or "").startswith(kind))
    if fragment in ("", pattern):
        return None
    starts = (n for n in range(len(pattern)) if pattern.startswith(fragment, n))
    return max((n for n in starts if _error(pattern[:n]) != wrong), default=None)
