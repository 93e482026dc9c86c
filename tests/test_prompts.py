"""The texts of the levels: short, stable, and counted."""

from importlib.resources import files

import pytest

from mintoken.models import Intensity
from mintoken.prompts import CONCISE, NO_WORDING, Wording, load_prompts
from mintoken.tokens import Tokenizer

PROMPTS = load_prompts()
CEILINGS = {Intensity.LITE: 40, Intensity.FULL: 70, Intensity.ULTRA: 70}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(None)


@pytest.mark.parametrize(("level", "ceiling"), CEILINGS.items())
def test_a_text_stays_under_its_ceiling(
    tokenizer: Tokenizer, level: Intensity, ceiling: int
) -> None:
    assert 0 < tokenizer.count(PROMPTS.text(level), "gpt-4o") <= ceiling


@pytest.mark.parametrize("wording", [CONCISE, *map(PROMPTS.wording, CEILINGS)])
def test_the_recorded_tokens_are_those_of_the_text_and_its_blank_line(
    tokenizer: Tokenizer, wording: Wording
) -> None:
    assert wording.tokens == tokenizer.count(f"\n\n{wording.text}", "gpt-4o")


def test_a_change_of_text_shows_in_the_version() -> None:
    # Both parts change with the text: raise EDITION, and put the new version here.
    assert PROMPTS.version == "1-6b1a2e49"


def test_texts_are_the_files_of_the_package_without_their_line_end() -> None:
    for level in CEILINGS:
        file = files("mintoken") / "data" / "prompts" / f"{level}.md"
        assert file.read_bytes() == f"{PROMPTS.text(level)}\n".encode()


def test_none_has_no_text() -> None:
    assert PROMPTS.text(Intensity.NONE) == ""
    assert PROMPTS.wording(Intensity.NONE) == NO_WORDING


def test_every_level_has_a_text_of_its_own() -> None:
    assert len({PROMPTS.text(level) for level in Intensity}) == len(Intensity)
