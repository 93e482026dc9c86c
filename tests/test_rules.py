"""Custom rules: which one wins, what a pattern may be, and that none can hang the proxy."""

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mintoken.chat_asked import EDGE_CHARACTERS, clipped
from mintoken.models import Decision, Intensity, Rule, RuleAction
from mintoken.rules import (
    MAX_STEPS,
    MAX_STEPS_TOGETHER,
    MOST_BYTES,
    QUICK_WORK,
    CompiledRules,
    PatternError,
    compile_rules,
    measure,
)

NEVER, ALWAYS = RuleAction.NEVER_COMPRESS, RuleAction.ALWAYS_COMPRESS
BLOWS_UP = "(a|b)*a(a|b){%d}x"
"""As an automaton it has more states than there are atoms; each is only made when it is needed."""


def rule(id_: str, pattern: str, action: RuleAction = NEVER, **more: int) -> Rule:
    fields = {"priority": 0, "created_at": 1} | more
    return Rule(id=id_, account_id="a", action=action, pattern=pattern, **fields)


def decided(text: str, *rules: Rule) -> str | None:
    decision = compile_rules(rules).decide(text)
    return decision and decision.reason.removeprefix("rule:")


# --- Which rule wins ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "intensity"),
    [
        (RuleAction.NEVER_COMPRESS, Intensity.NONE),
        (RuleAction.ALWAYS_COMPRESS, Intensity.ULTRA),
        (RuleAction.LEVEL_NONE, Intensity.NONE),
        (RuleAction.LEVEL_LITE, Intensity.LITE),
        (RuleAction.LEVEL_FULL, Intensity.FULL),
        (RuleAction.LEVEL_ULTRA, Intensity.ULTRA),
    ],
)
def test_an_action_is_a_level_and_the_rule_is_the_reason(
    action: RuleAction, intensity: Intensity
) -> None:
    rules = compile_rules([rule("r_1", "refund", action)])
    assert rules.decide("I want a refund.") == Decision(intensity, "rule:r_1")
    assert rules.decide("I want to know.") is None


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ({"priority": 1, "action": ALWAYS, "created_at": 2}, {"action": NEVER}),
        ({"priority": -1, "action": ALWAYS}, {"priority": -2, "action": NEVER}),
        ({"action": NEVER, "created_at": 2}, {"action": ALWAYS, "created_at": 1}),
        ({"action": NEVER, "created_at": 2}, {"action": RuleAction.LEVEL_NONE, "created_at": 1}),
        ({"action": ALWAYS, "created_at": 1}, {"action": RuleAction.LEVEL_LITE, "created_at": 2}),
    ],
    ids=["priority", "negative priority", "never_compress", "never over level:none", "older"],
)
def test_the_higher_priority_wins_then_never_compress_then_the_older(
    winner: dict, loser: dict
) -> None:
    one, other = rule("wins", "x", **winner), rule("loses", "x", **loser)
    assert decided("x", one, other) == decided("x", other, one) == "wins"
    assert compile_rules([other, one]).matching("x") == (one, other)


def test_only_rules_that_match_take_part() -> None:
    high, low = rule("high", "a", priority=5), rule("low", "b", ALWAYS)
    rules = compile_rules([high, low])
    assert rules.decide("b") == Decision(Intensity.ULTRA, "rule:low")
    assert rules.matching("b") == (low,)
    assert rules.matching("") == ()
    assert rules.decide("") is None


def test_no_rules_decide_nothing() -> None:
    assert compile_rules([]).decide("x") is None
    assert compile_rules([]).matching("x") == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "^", "(?i)A", "[ab]c"]),
            st.sampled_from(RuleAction),
            st.integers(-2, 2),
            st.integers(1, 3),
        ),
        max_size=12,
    ),
    st.text("abcA", max_size=6),
)
def test_the_winner_is_the_first_of_those_that_match_one_by_one(
    parts: list[tuple[str, RuleAction, int, int]], text: str
) -> None:
    rules = [
        rule(f"r{n}", pattern, action, priority=priority, created_at=created_at)
        for n, (pattern, action, priority, created_at) in enumerate(parts)
    ]
    alone = [one for one in rules if decided(text, one)]
    best = min(
        alone, default=None,
        key=lambda one: (-one.priority, one.action is not NEVER, one.created_at, one.id),
    )  # fmt: skip
    assert decided(text, *rules) == (best and best.id)


# --- What is matched ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("refund", "Refund", False),
        ("(?i)refund", "REFUND", True),
        ("(?i)überweisung", "ÜBERWEISUNG", True),
        ("翻訳", "これを翻訳して", True),
        (r"\bcat\b", "concatenate", False),
        ("^a$", "x\na\ny", False),
        ("(?m)^a$", "x\na\ny", True),
        ("a.b", "a\nb", False),
        ("(?s)a.b", "a\nb", True),
        ("a.b", "aüb", True),
        (r"a\z", "ba", True),
        ("^", "", True),
        ("\ufffd", "\ud800", False),
        (r"\?", "\ud800", True),
    ],
)
def test_a_pattern_is_searched_in_the_text(pattern: str, text: str, matches: bool) -> None:
    assert (decided(text, rule("r", pattern)) is not None) == matches


@pytest.mark.parametrize("fill", ["a", "ü", "漢", "😀", "\n"])
@pytest.mark.parametrize("size", [0, 2 * EDGE_CHARACTERS - 9, 2 * EDGE_CHARACTERS - 8, 10**6])
def test_the_first_and_the_last_characters_of_a_long_text_are_looked_at(
    fill: str, size: int
) -> None:
    text = f"first{fill * size}last"
    assert decided(text, rule("r", "^first")) == "r"
    assert decided(text, rule("r", r"last\z")) == "r"
    whole = decided(text, rule("r", f"^first(?:{fill})*last\\z")) == "r"
    assert whole == (len(text) <= 2 * EDGE_CHARACTERS or fill == "\n")


def test_the_middle_of_a_long_text_is_not_looked_at() -> None:
    edge = "x" * EDGE_CHARACTERS
    found = compile_rules([rule("r", "here")])
    assert found.decide(edge[:-4] + "here" + edge + "x") is not None
    assert found.decide(edge + "x" + "here" + edge[:-4]) is not None
    assert found.decide(edge + "here" + edge) is None


def test_two_line_ends_stand_for_the_middle() -> None:
    text = "a" * EDGE_CHARACTERS + "middle" + "b" * EDGE_CHARACTERS
    assert decided(text, rule("r", "(?m)a$")) == "r"
    assert decided(text, rule("r", "(?m)^b")) == "r"
    assert decided(text, rule("r", "a\n\nb")) == "r"
    assert decided(text, rule("r", "a.*b")) is None


@given(st.text(max_size=10), st.integers(1, 3 * EDGE_CHARACTERS))
def test_no_text_has_more_bytes_looked_at_than_the_most(end: str, size: int) -> None:
    assert len(clipped(end + "😀" * size + end).encode(errors="replace")) <= MOST_BYTES


# --- What a pattern may be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "1 to 500 characters; this one has 0. '\\^' matches every text"),
        ("x" * 501, "this one has 501"),
        ("(a", r"missing \): \(a"),
        ("ab)c", r"unexpected \).*, at character 3"),
        (r"\)\(é)", r"unexpected \).*, at character 6"),
        ("ü[b", r"missing \]: \[b, at character 2"),
        ("a{5,2}", "invalid repetition size.*, at character 2"),
        ("x{1001}", "invalid repetition size"),
        ("*a", "no argument for repetition operator: \\*, at character 1"),
        ("a\\", "trailing"),
        (r"fine\q", r"invalid escape sequence: \\q, at character 5"),
        (r"end\Z", r"at character 4. Write \\z"),
        ("(?=x)(?=y)", "at character 1. There is no lookahead or lookbehind"),
        ("a(?!x)", "at character 2. There is no lookahead or lookbehind"),
        ("é(?<=x)a", "at character 2. There is no lookahead or lookbehind"),
        ("(?<!x)a", "at character 1. There is no lookahead or lookbehind"),
        (r"(a)\1", "at character 4. There are no backreferences"),
        (r"\\1\1", "at character 4. There are no backreferences"),
        ("(?P<n>a)(?P=n)", "at character 9. There are no backreferences"),
        (r"(?P<n>a)\k<n>", "at character 9. There are no backreferences"),
        ("\ud800", "it is not text"),
        (r"\pL{50}", "too large"),
    ],
)
def test_a_bad_pattern_is_refused_with_what_is_wrong_and_where(pattern: str, says: str) -> None:
    with pytest.raises(PatternError, match=says):
        measure(pattern)


def test_a_refused_pattern_of_another_kind_of_regex_says_why_it_is_so() -> None:
    with pytest.raises(PatternError, match="so that every pattern takes linear time"):
        measure("(?=a)")


def test_the_patterns_of_an_account_have_a_size_together() -> None:
    steps = measure("(?i)refund")
    assert steps < 30
    assert measure("(?i)refund", room=steps) == steps
    with pytest.raises(PatternError, match=f"5,000 steps are allowed, {steps - 1} are left"):
        measure("(?i)refund", room=steps - 1)


def test_a_hundred_ordinary_rules_fit() -> None:
    patterns = [rf"(?i)\b(?:translate|rewrite|word{n})\b" for n in range(100)]
    assert sum(map(measure, patterns)) <= MAX_STEPS_TOGETHER


def assert_refused_or_works(pattern: str, text: str) -> None:
    try:
        measure(pattern)
    except PatternError:
        pass
    else:
        assert compile_rules([rule("r", pattern)]).unusable == ()
    decision = compile_rules([rule("r", pattern)]).decide(text)
    assert decision in (None, Decision(Intensity.NONE, "rule:r"))


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_pattern_is_refused_or_works(pattern: str, text: str) -> None:
    assert_refused_or_works(pattern, text)


@given(st.text("()[]{}?*+|\\^$.,:=!<>Pdwb12aé", max_size=12), st.text(max_size=20))
def test_any_pattern_of_special_characters_is_refused_or_works(pattern: str, text: str) -> None:
    assert_refused_or_works(pattern, text)


# --- Rules that another version stored ----------------------------------------------------------


BAD = "(?=x)"


def test_an_unusable_rule_of_level_none_matches_everything() -> None:
    for action in (NEVER, RuleAction.LEVEL_NONE):
        bad = rule("bad", BAD, action)
        rules = compile_rules([bad, rule("good", "a", ALWAYS, priority=-1)])
        assert rules.decide("a") == rules.decide("") == Decision(Intensity.NONE, "rule:bad")
        [(unusable, why)] = rules.unusable
        assert unusable == bad
        assert "no lookahead" in why


def test_an_unusable_rule_of_another_level_matches_nothing() -> None:
    rules = compile_rules([rule("bad", BAD, ALWAYS, priority=9), rule("good", "a", ALWAYS)])
    assert rules.decide("a") == Decision(Intensity.ULTRA, "rule:good")
    assert rules.decide("b") is None
    assert [one.id for one, _ in rules.unusable] == ["bad"]


def test_stored_rules_that_are_too_large_together_keep_those_that_win() -> None:
    large = [rule(f"r{n}", rf"\pL+ {n}", ALWAYS, created_at=n) for n in range(6)]
    rules = compile_rules(large)
    assert rules.steps <= MAX_STEPS_TOGETHER
    assert [one.id for one in rules.ranked] == ["r0", "r1", "r2", "r3"]
    assert [one.id for one, _ in rules.unusable] == ["r4", "r5"]


# --- No rule can hang the proxy -----------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a|a?)+b", "(.*)*x", "(a*)*(a*)*b"])
def test_what_hangs_other_engines_takes_no_time_here(pattern: str) -> None:
    rules = compile_rules([rule("r", pattern)])
    started = time.perf_counter()
    rules.decide("a" * 100_000 + "!")
    measure(pattern)
    assert time.perf_counter() - started < 0.1


def worst() -> tuple[CompiledRules, str]:
    """About as large as rules may be, and a text of which every byte needs a new state."""
    rng = random.Random(1)
    rules = [rule("found", "found", priority=-1)]
    rules += [rule(f"r{n}", BLOWS_UP % (300 + n)) for n in range(15)]
    return compile_rules(rules), "".join(rng.choice("ab") for _ in range(2 * EDGE_CHARACTERS - 5))


def test_the_worst_rules_and_text_take_seconds_and_never_a_wrong_answer() -> None:
    rules, text = worst()
    assert 4000 < rules.steps <= MAX_STEPS_TOGETHER
    assert not rules.is_quick(len(text))
    assert rules.decide(f"{text}found") == Decision(Intensity.NONE, "rule:found")


def test_what_is_quick_is_decided_by_the_size_of_rules_and_text() -> None:
    rules = compile_rules([rule("r", BLOWS_UP % 100)])
    most = QUICK_WORK // rules.steps
    assert most < MOST_BYTES
    assert rules.is_quick(most)
    assert not rules.is_quick(most + 1)
    assert compile_rules([rule("r", "^")]).is_quick(10_000)
    assert MAX_STEPS * MOST_BYTES > QUICK_WORK


def test_rules_with_equal_patterns_are_two_rules() -> None:
    one = rule("one", "x")
    assert [r.id for r in compile_rules([one, replace(one, id="two")]).matching("x")] == [
        "one",
        "two",
    ]
