"""Which level suits what: the table's order, its predicates, and the bars of the corpus."""

import json
import tomllib
from collections import Counter
from importlib.resources import files

import pytest
from corpus.__main__ import BAR
from corpus.labelled import LEVELS, PARTS, agreement, matrix, read, tried
from hypothesis import given
from hypothesis import strategies as st
from json_bodies import CHAT_BODIES

from mintoken.conversations import Conversations
from mintoken.detect import PREDICATES, REPEAT_CHARACTERS, SHORT_CAP, load_detector
from mintoken.exchange import Asked
from mintoken.models import Decision, Intensity
from mintoken.protocols.openai_chat import OpenAIChat

DETECTOR = load_detector()
RULES = tomllib.loads((files("mintoken") / "data" / "rules.toml").read_text(encoding="utf-8"))
CODE = "```\na\n```\n"
LANGUAGES = {"en", "de", "es", "pt", "fr", "hi", "zh", "ja"}


def reason(*turns, system="", **facts):
    decision = DETECTOR.detect(Asked(system=system, turns=turns, **facts))
    return decision and decision.reason.removeprefix("detect:")


@pytest.mark.parametrize(
    ("facts", "signal"),
    [
        ({"structure": True}, "response_format"),
        ({"forced_tool": True}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"prediction": True}, "prediction"),
        ({"audio": True}, "audio"),
        ({"cap": SHORT_CAP}, "short_cap"),
        ({"cap": 0}, "short_cap"),
        ({"tool_result": True}, "tool_result"),
        ({"cap": SHORT_CAP + 1}, "explanation"),
        ({}, "explanation"),
    ],
)
def test_how_a_request_is_made_comes_before_what_it_says(facts, signal):
    assert reason("What is a mutex?", **facts) == signal


@pytest.mark.parametrize(
    ("turns", "signal"),
    [
        (("What is a mutex?", "What is a mutex?"), "repeats"),
        (("What is a mutex?", "And?", "what is a MUTEX, please??"), "repeats"),
        (("什么是互斥锁", "什么是互斥锁？"), "repeats"),
        (("What is a mutex?", "What is a monitor?"), "explanation"),
        (("go on", "go on"), None),
        (("Thanks a lot", "Blue", *"abcdefgh", "Thanks a lot"), None),
        ((f"{'x ' * REPEAT_CHARACTERS}", f"{'x ' * REPEAT_CHARACTERS}"), None),
    ],
)
def test_a_question_that_is_asked_again_wants_more(turns, signal):
    assert reason(*turns) == signal


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        (f"Which one?\n{CODE}or\n{CODE}", "code_blocks"),
        (f"Which one?\n{CODE}", None),
        (f"Is this open to SQL injection?\n{CODE}or\n{CODE}", "security"),
        (f"What is better?\n{CODE}or\n{CODE}", "code_blocks"),
    ],
)
def test_code_blocks_come_after_what_is_never_compressed_and_before_questions(text, signal):
    assert reason(text) == signal


def test_where_nothing_is_said_there_is_nothing_to_say():
    assert DETECTOR.detect(Asked()) is None
    assert DETECTOR.detect(Asked(turns=("",))) is None


def told(*messages):
    """What is said of (role, content) pairs."""
    body = {"messages": [{"role": role, "content": content} for role, content in messages]}
    asked = OpenAIChat().read(json.dumps(body).encode()).asked()
    decision = Conversations(DETECTOR, b"secret").decide("key", asked)
    return decision and decision.reason.removeprefix("detect:")


@pytest.mark.parametrize(
    ("messages", "signal"),
    [
        ([("system", "Translate to German: hello there")], "translate"),
        ([("developer", "Translate to German: hello there")], "translate"),
        ([("system", "Answer in one sentence.")], "brevity"),
        ([("system", "Write 500 words on bees.")], "length"),
        ([("system", "Find a hotel."), ("assistant", ""), ("tool", "12 found")], "tool_result"),
        ([("user", "why?"), ("system", "Be concise.")], "brevity"),
        (
            [("user", "hm"), ("assistant", "Yes?"), ("developer", "Translate to German: x")],
            "translate",
        ),
        ([("user", "hm"), ("assistant", "Yes?"), ("developer", "500 words, please.")], "length"),
        ([("user", "why?"), ("system", "The user is a doctor."), ("user", "Well?")], "explanation"),
        ([("user", "why?"), ("tool", "12"), ("assistant", "12"), ("user", "Well?")], "tool_result"),
    ],
)
def test_whoever_says_it_is_heard(messages, signal):
    assert told(*messages) == signal


def test_a_decision_has_the_level_of_its_row():
    found = DETECTOR.detect(Asked(turns=("Translate this into German: hello",)))
    assert found == Decision(Intensity.NONE, "detect:translate")


def test_the_table_has_rows_of_every_level_in_the_order_of_caution():
    for kind, levels in (("request", ["none"]), ("text", ["none", "lite", "ultra", "full"])):
        found = [row["level"] for row in RULES[kind]]
        assert list(dict.fromkeys(found)) == levels
        assert found == sorted(found, key=levels.index)


def test_every_name_is_used_once_and_every_predicate_is_named():
    rows = RULES["request"] + RULES["text"]
    assert max(Counter(row["name"] for row in rows).values()) == 1
    assert {row["predicate"] for row in rows if "predicate" in row} == PREDICATES.keys()


def test_the_corpus_is_large_and_has_every_language_for_what_is_never_compressed():
    requests = [one for part in PARTS for one in read(part)]
    assert len(requests) >= 330
    assert len({one.body for one in requests}) == len(requests)
    assert {one.level for one in requests} == set(LEVELS)
    kinds = {one.kind for one in requests if one.level == "none"} - {"structure"}
    for part in PARTS:
        found = {(one.kind, one.language) for one in read(part)}
        assert found >= {(kind, language) for kind in kinds for language in LANGUAGES}


def test_nothing_of_the_corpus_that_must_not_be_compressed_is():
    assert [one for one in tried(*PARTS) if one.harms] == []


@pytest.mark.parametrize("parts", [PARTS, ("held_out",)])
def test_detection_agrees_with_the_corpus(parts):
    found = tried(*parts)
    assert agreement(found) >= BAR, matrix(found)


def is_known(decision):
    """Is it one that the table can make?"""
    rows = (*RULES["request"], *RULES["text"])
    made = [Decision(Intensity(row["level"]), f"detect:{row['name']}") for row in rows]
    return decision in (None, *made)


@given(CHAT_BODIES)
def test_no_chat_body_makes_it_fail(body):
    assert is_known(DETECTOR.detect(OpenAIChat().read(body).asked()))


TEXTS = st.lists(
    st.sampled_from(["translate ", "write ", "…", "\n", ". ", "漢", "é", "\x02", "```"])
)


@given(TEXTS.map("".join), TEXTS.map("".join))
def test_no_text_makes_it_fail(system, text):
    assert is_known(DETECTOR.detect(Asked(system=system, turns=(text, text))))
