"""Which conversations are in which arm: by chance, for good, and as many as was said."""

import math

import pytest

from mintoken.arms import RETRIED, Arm, Assignment, assign

SECRET = b"s" * 32
MANY = 20_000


def arm(number: int, *, control: int = 0, concise: int = 0, key_id: str = "key") -> Assignment:
    opening = ("You help.", f"Question {number}?")
    return assign(SECRET, key_id, opening, control=control, concise=concise)


@pytest.mark.parametrize(("control", "concise"), [(0, 0), (10, 0), (50, 0), (10, 5), (25, 25)])
def test_each_arm_has_its_share(control: int, concise: int) -> None:
    arms = [arm(n, control=control, concise=concise).arm for n in range(MANY)]
    for one, percent in ((Arm.CONTROL, control), (Arm.CONCISE, concise)):
        share = percent / 100
        # Five standard deviations of the binomial: the secret is fixed, so it is this or that.
        bound = 5 * math.sqrt(MANY * share * (1 - share))
        assert abs(arms.count(one) - MANY * share) <= bound
    assert arms.count(Arm.PRODUCT) == MANY - arms.count(Arm.CONTROL) - arms.count(Arm.CONCISE)


def test_a_conversation_stays_in_its_arm_and_shares_only_grow() -> None:
    for number in range(1000):
        before = arm(number, control=10, concise=10).arm
        assert arm(number, control=10, concise=10).arm is before
        if before is not Arm.PRODUCT:
            assert arm(number, control=25, concise=25).arm is before


def test_the_arm_depends_on_the_key_the_secret_and_the_opening_alone() -> None:
    openings = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "")]
    found = {assign(SECRET, "key", one, control=10, concise=0).conversation for one in openings}
    found.add(assign(SECRET, "other", openings[0], control=10, concise=0).conversation)
    found.add(assign(b"t" * 32, "key", openings[0], control=10, concise=0).conversation)
    assert len(found) == 6
    assert all(len(one) == 16 for one in found)


def test_what_is_stopped_is_tried_again_in_some_conversations_whatever_their_arm() -> None:
    for wanted in (Arm.PRODUCT, Arm.CONTROL):
        some = [one for one in (arm(n, control=50) for n in range(MANY)) if one.arm is wanted]
        share = sum(one.retries for one in some) / len(some)
        assert abs(share - RETRIED) < 5 * math.sqrt(RETRIED / len(some))


def test_the_opening_is_measured_in_bytes_and_may_be_no_text_at_all() -> None:
    opening = ("äö", "\ud800?")
    assert assign(SECRET, "key", opening, control=1, concise=0).opening_bytes == 4 + 2
