"""What a provider refused is remembered for a while, and not for ever."""

from mintoken import refusals
from mintoken.refusals import Refusals


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_was_refused_is_known_for_that_provider_and_model_only() -> None:
    known = Refusals(Clock())
    known.add("http://a/v1", "m")
    assert known.has("http://a/v1", "m")
    assert not known.has("http://b/v1", "m")
    assert not known.has("http://a/v1", "n")


def test_a_refusal_is_forgotten_after_its_time() -> None:
    clock = Clock()
    known = Refusals(clock)
    known.add("a", "m")
    clock.now = refusals.REMEMBERED_S - 1
    assert known.has("a", "m")
    clock.now = refusals.REMEMBERED_S
    assert not known.has("a", "m")
    known.add("a", "m")
    assert known.has("a", "m")


def test_beyond_the_limit_the_oldest_are_forgotten() -> None:
    known = Refusals(Clock())
    for number in range(refusals.MOST):
        known.add("a", f"m{number}")
    known.add("a", "m0")
    known.add("a", "one more")
    assert known.has("a", "m0")
    assert known.has("a", "one more")
    assert not known.has("a", "m1")
    assert known.has("a", "m2")


def test_only_the_start_of_a_name_is_kept_however_long_it_is() -> None:
    known = Refusals(Clock())
    known.add("a", "m" * 1_000_000)
    assert known.has("a", "m" * 1_000_000)
    assert sum(len(model) for _, model in known._since) < 1000
