"""The level holds for a conversation, wherever its next message arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mintoken.conversations import Conversations
from mintoken.detect import load_detector
from mintoken.exchange import MOST_TURNS, Asked
from mintoken.models import Intensity

DETECTOR = load_detector()
QUESTION, CHAT = "What is a mutex?", "Suggest a name for my cat."
LETTER, LOGS = "Write a letter to my aunt.", "Summarize these logs: ERROR ERROR"


def conversations(**options):
    return Conversations(DETECTOR, b"secret" * 10, **options)


def talk(where, *turns, key="key", **facts):
    """What each message of a conversation gets, one request after the other."""
    asked = [Asked(turns=turns[:at], **facts) for at in range(1, len(turns) + 1)]
    decisions = [where.decide(key, one) for one in asked]
    return [decision and decision.reason.removeprefix("detect:") for decision in decisions]


@pytest.mark.parametrize(
    ("turns", "reasons"),
    [
        ((QUESTION, CHAT, LOGS), ["explanation"] * 3),
        ((CHAT, QUESTION, LOGS), [None] * 3),
        ((LETTER, "continue", QUESTION), ["draft"] * 3),
        ((QUESTION, LETTER, "continue"), ["explanation", "draft", "draft"]),
        ((CHAT, "more detail please", LETTER), [None, "more_detail", "more_detail"]),
    ],
)
def test_the_first_decision_holds_until_nothing_may_be_compressed(turns, reasons):
    assert talk(conversations(), *turns) == reasons


@given(st.lists(st.sampled_from([QUESTION, CHAT, LETTER, LOGS, "go on", "What about it?"])))
def test_a_worker_that_has_seen_nothing_comes_to_the_same(turns):
    remembers = conversations()
    for at in range(1, len(turns) + 1):
        asked = Asked(turns=tuple(turns[:at]))
        assert remembers.decide("key", asked) == conversations().decide("key", asked)


def test_how_a_request_is_made_counts_for_it_alone():
    where = conversations()
    assert talk(where, QUESTION) == ["explanation"]
    titled = where.decide("key", Asked(turns=(QUESTION, CHAT), structure=True))
    assert titled.intensity is Intensity.NONE
    assert talk(where, QUESTION, CHAT, "go on") == ["explanation"] * 3


def test_what_the_system_says_later_compresses_nothing_and_leaves_the_conversation_as_it_was():
    where = conversations()
    assert talk(where, QUESTION) == ["explanation"]
    later = {"later": ("The user is 30.", "Be concise.")}
    assert talk(where, QUESTION, CHAT, **later) == ["brevity"] * 2
    assert talk(where, QUESTION, CHAT, later=("For the next agent.",)) == ["explanation"] * 2
    assert where._hashes("key", Asked(later=("x",))) == where._hashes("key", Asked())


@pytest.mark.parametrize("more", [1, 7, 100])
@pytest.mark.parametrize("part", ["turns", "later"])
def test_a_conversation_too_long_to_be_looked_at_is_not_compressed(part, more):
    texts = {"turns": (QUESTION,)} | {part: ("go on",) * (MOST_TURNS + more)}
    [reason] = {conversations().decide("key", Asked(**texts)).reason for _ in range(2)}
    assert reason == "detect:long"
    some = {"turns": (QUESTION, *("go on",) * (MOST_TURNS - 1))}
    assert conversations().decide("key", Asked(**some)).reason == "detect:explanation"


def test_conversations_that_begin_alike_do_not_meet():
    where = conversations()
    assert talk(where, QUESTION, LETTER) == ["explanation", "draft"]
    assert talk(where, QUESTION, CHAT, "go on") == ["explanation"] * 3
    assert talk(where, QUESTION, "go on", key="other") == ["explanation"] * 2
    assert talk(where, QUESTION, "go on", system="Be concise.") == ["brevity"] * 2


def test_where_one_text_ends_and_the_next_begins_makes_a_difference():
    where = conversations()
    one = where._hashes("key", Asked(turns=("ab", "c", "d")))
    other = where._hashes("key", Asked(turns=("a", "bc", "d")))
    assert one != other


def test_the_hash_needs_the_servers_secret():
    asked = Asked(turns=(QUESTION,))
    other = Conversations(DETECTOR, b"another secret")
    assert conversations()._hashes("key", asked) != other._hashes("key", asked)


def test_memory_is_bounded_and_what_was_used_last_stays():
    where = conversations(most=3)
    for number in range(10):
        talk(where, f"Name {number} cats")
    assert len(where._known) == 3
    assert talk(where, "Name 0 cats", "go on") == [None] * 2
    assert len(where._known) == 3


def test_what_is_known_is_not_looked_for_again():
    looked = []

    class Watched:
        of_request = DETECTOR.of_request

        def of_texts(self, asked):
            looked.append(asked.turns[-1:])
            return DETECTOR.of_texts(asked)

        def of_conversation(self, asked):
            looked.append(asked.turns)
            return DETECTOR.of_conversation(asked)

    where = Conversations(Watched(), b"secret")
    talk(where, QUESTION, CHAT, "go on")
    assert looked == [(QUESTION,), (CHAT,), ("go on",)]
    talk(where, LETTER, "go on", "go on")
    assert looked[3:] == [(LETTER,)]
