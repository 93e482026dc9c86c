"""Must-have facts of an answer: is each of them in it, decided without a model."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

# What a renderer or a keyboard makes of the same characters. Emphasis and code marks say nothing.
_PLAIN = str.maketrans("‘’‚“”„‐‑–—−\u00a0\u202f", "'''\"\"\"-----  ", "*`\u200b")
# Where words have no spaces between them, as in Chinese, a phrase may begin and end anywhere.
_WORD = "0-9A-Za-z_\u00aa-\u024f"
_BEFORE_WORD, _AFTER_WORD = f"(?<![{_WORD}])", f"(?![{_WORD}])"
# 12 is neither in 3.12 nor in 12,500.
_BEFORE_NUMBER, _AFTER_NUMBER = rf"{_BEFORE_WORD}(?<![0-9][.,])", rf"{_AFTER_WORD}(?![.,][0-9])"
_FENCED = re.compile(r"\s*```[A-Za-z]*\n(.*?)\n\s*```\s*", re.S)
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that a good answer says; `says` tells it to people and to a judge.

    A phrase is found in any case and across line ends, as whole words; `lock*` is also in `locked`.
    `/.../` is a regular expression on the answer as it is. `any_of`: one of them is in the answer.
    `none_of`: none of them is. `keys`: the answer is a JSON object with these, `a.b` for those
    within, and `values` says what is in them. An empty answer holds no fact.
    """

    says: str
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)

    def is_in(self, answer: str) -> bool:
        """Does the answer say it?"""
        return bool(answer.strip()) and all(self._tests(answer))

    def _tests(self, answer: str) -> Iterator[bool]:
        if self.any_of:
            yield any(_occurs(phrase, answer) for phrase in self.any_of)
        yield not any(_occurs(phrase, answer) for phrase in self.none_of)
        if self.keys or self.values:
            document = _json(answer)
            yield all(_at(document, path) is not _ABSENT for path in self.keys)
            yield all(_same(_at(document, path), value) for path, value in self.values.items())


def pattern(phrase: str) -> re.Pattern[str]:
    """What a phrase is looked for with. Raises re.error."""
    if is_expression(phrase):
        return re.compile(phrase[1:-1], re.IGNORECASE)
    text = phrase.translate(_PLAIN).strip()
    if not text:
        raise re.error("nothing is left of it without * and `; write it as /expression/")
    before = after = ""
    if re.match(f"[{_WORD}]", text):
        before = _BEFORE_NUMBER if text[0].isdigit() else _BEFORE_WORD
    if re.search(f"[{_WORD}]$", text) and not phrase.endswith("*"):
        after = _AFTER_NUMBER if text[-1].isdigit() else _AFTER_WORD
    return re.compile(before + r"\s+".join(map(re.escape, text.split())) + after, re.IGNORECASE)


def is_expression(phrase: str) -> bool:
    """Is it a regular expression, /between slashes/?"""
    return len(phrase) > 2 and phrase.startswith("/") and phrase.endswith("/")


_pattern = lru_cache(maxsize=4096)(pattern)


def _occurs(phrase: str, answer: str) -> bool:
    text = answer if is_expression(phrase) else _plain(answer)
    return _pattern(phrase).search(text) is not None


@lru_cache(maxsize=8)
def _plain(answer: str) -> str:
    return answer.translate(_PLAIN)


def _json(answer: str) -> Any:
    """The JSON that the answer is, in a code fence or without; None if it is none."""
    fenced = _FENCED.fullmatch(answer)
    try:
        return json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return None


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, dict) and name in document:
            document = document[name]
        else:
            return _ABSENT
    return document


def _same(found: Any, wanted: object) -> bool:
    # 1 == True in Python, but not in JSON.
    if isinstance(found, bool) is not isinstance(wanted, bool):
        return False
    return bool(found == wanted)
