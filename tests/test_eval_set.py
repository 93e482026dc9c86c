"""Prompt sets: the one that comes with Mintoken can be passed, and a bad one is told in full."""

from collections import Counter
from pathlib import Path

import pytest

from mintoken.errors import ConfigError
from mintoken.eval_set import EvalPrompt, load_set, read_set

BUNDLED = load_set(None).prompts


def test_the_bundled_set_is_as_large_as_promised() -> None:
    counts = Counter(prompt.category for prompt in BUNDLED)
    assert len(BUNDLED) >= 40
    assert len(counts) == 8
    assert min(counts.values()) >= 5
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert f"The {len(BUNDLED)} prompts that come along" in readme


@pytest.mark.parametrize("prompt", BUNDLED, ids=lambda prompt: prompt.id)
def test_a_good_short_answer_passes_and_others_fail(prompt: EvalPrompt) -> None:
    assert prompt.reference
    for fact in prompt.facts:
        assert fact.is_in(prompt.reference), fact.says
        assert not fact.is_in(""), fact.says
        assert not fact.is_in("Lorem ipsum dolor sit amet, consectetur."), fact.says


@pytest.mark.parametrize("prompt", BUNDLED, ids=lambda prompt: prompt.id)
def test_no_question_answers_itself(prompt: EvalPrompt) -> None:
    if prompt.category == "people":
        return  # There the question has all that the text is to say.
    assert not all(fact.is_in(prompt.user) for fact in prompt.facts)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[prompt]]\nid = "one"\ncategory = "mine"\nsystem = "You sell lamps."\nuser = "Hi?"\n'
        'facts = [{ says = "It greets.", any = ["hello", "hi"], not = ["bye"] }]\n'
    )
    found = load_set(path)
    [prompt] = found.prompts
    assert (found.name, prompt.id, prompt.system) == ("mine.toml", "one", "You sell lamps.")
    assert prompt.facts[0].is_in("Hi there.")
    assert not prompt.facts[0].is_in("Hi and bye.")
    path.write_text(path.read_text() + "# changed\n")
    assert load_set(path).digest != found.digest


BAD = b"""
other = 1
[[prompt]]
id = "Not good"
user = ""
facts = []
[[prompt]]
id = "two"
category = "mine"
user = "What?"
reference = "No."
colour = "red"
facts = [
  { says = "x", any = ["/(/"] },
  { says = "x", any = "text" },
  { any = ["x"] },
  { says = "x", keys = [1], values = 3, when = 1 },
  { says = "x", any = ["``"] },
  5,
]
[[prompt]]
id = "two"
category = "mine"
user = "What?"
reference = "No."
facts = [{ says = "It says yes.", any = ["yes"] }]
"""


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_set(BAD, "bad.toml")
    problems = "\n".join(caught.value.problems)
    for told in (
        "bad.toml: unknown table or value other",
        "prompt 1 (Not good): id may hold",
        "prompt 1 (Not good): category: a text is needed",
        "prompt 1 (Not good): user: a text is needed",
        "prompt 1 (Not good): facts: at least one",
        "prompt 2 (two): unknown field colour",
        "prompt 2 (two): fact 1: /(/ is no regular expression",
        "prompt 2 (two): fact 2: any: a list of texts is needed",
        "prompt 2 (two): fact 3: says: a text is needed",
        "prompt 2 (two): fact 4: keys: a list of texts",
        "prompt 2 (two): fact 4: values: a table",
        "prompt 2 (two): fact 4: unknown field when",
        "prompt 2 (two): fact 5: `` is no regular expression: nothing is left",
        "prompt 2 (two): fact 6: one of any, not, keys and values is needed",
        "prompt 3 (two): another prompt has this id",
        "prompt 3 (two): fact 1 (It says yes.) is not found in its own reference answer",
    ):
        assert told in problems


@pytest.mark.parametrize(
    "data", [b"[[prompt", b"\xff", b"", b"prompt = 1", b"prompt = []"], ids=repr
)
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="bad"):
        read_set(data, "bad.toml")
