"""The patterns of data/rules.toml: many of them looked for at once, linear in the text's length."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from string import ascii_lowercase, ascii_uppercase

import re2

NO_SPACES = re.compile("[⺀-鿿가-힣豈-﫿]")
"""A character of a script that puts no space between words, or not between all."""

Search = Callable[[bytes], object | None]

_START, _END = "\x02", "\x03"
# All characters of the scripts without spaces are among these.
_FAR = "[\u3000-\ud7ff]"
_UNSEEN = "\xad\u200b\u2060\ufeff"
# Spaces, letters and digits of other widths and styles. Wide punctuation, which is common, stays.
_ODD = (
    f"[{_UNSEEN}\xa0\u2000-\u200a\u202f\u205f\u3000－０-９Ａ-Ｚａ-ｚ\uff65-\uffdc\ufb00-\ufb06"
    "\U0001d400-\U0001d7ff]"
)
_ODD_ONES = re.compile(_ODD)
# Lower case, and spaces for what Markdown puts around words.
_PLAIN = bytes.maketrans(ascii_uppercase.encode() + b"*`", ascii_lowercase.encode() + b"  ")
_MAX_MEMORY = 64 << 20  # bytes that RE2 may take for the states of one set
# What stands before a word: ASCII that is no letter and no digit, general punctuation, and every
# character of the scripts without spaces.
_EDGE = r"[\x00-/:-@\[-`{-\x7f¡«»¿‐-⁞⺀-鿿가-힣豈-﫿＀-￯]"
_INSIDE = "(?:)"
_SENTENCE = r"[^.!?\n。！？]*"
_SYNTAX = {
    "…": _SENTENCE,
    " … ": rf"{_SENTENCE}{_EDGE}",
    " ?": r"\s*",
    " ": r"\s+",
    r"\b": _EDGE,
    "~": r"[^\s.,;:!?]*",
    "'": "['’]",
} | {f"…{most} ": rf"([^\s.!?]+\s+){{0,{most}}}" for most in range(1, 6)}
_GAP = re.compile(r" … |…\d |…")
_CUT = re.compile(r"(\\.|\[[^\]]*\]|[()|])")
_MARK = re.compile(rf"{_GAP.pattern}| \?| |\\b|~|'|\[[^\]]*\]")


class _Set:
    """Expressions that are looked for in one pass."""

    def __init__(self, expressions: list[str]) -> None:
        self.expressions = expressions
        self._set = re2.Set.SearchSet(re2_options(_MAX_MEMORY))
        for expression in (*expressions, _START):
            self._set.Add(expression)
        self._set.Compile()

    def found(self, prepared: bytes) -> frozenset[str]:
        """Those that are in the text; all of them if RE2 had no memory to look for them."""
        found = self._set.Match(prepared)
        if not found:  # not even the start
            return frozenset(self.expressions)
        return frozenset([self.expressions[at] for at in found if at < len(self.expressions)])


class Vocabulary:
    """The patterns of many signals, written as data/rules.toml says.

    One pass looks for the pieces of all of them, so that there are few states whatever the text.
    What has every piece of a pattern with gaps is then searched for the pattern itself.
    """

    def __init__(self, signals: Mapping[int, tuple[str, ...]]) -> None:
        """Take the patterns by the number of their signal. Raises re2.error for a bad one."""
        self._whole: dict[str, int] = {}
        self._gapped: dict[str, list[tuple[int, frozenset[str], Search]]] = {}
        """By their last piece, which is more often the rarer one."""
        every: set[str] = set()
        for number, patterns in signals.items():
            patterns = tuple(one for pattern in patterns for one in _alternatives(pattern))
            whole = [pattern for pattern in patterns if not _GAP.search(pattern)]
            self._whole |= dict.fromkeys(_unions(whole), number)
            for pattern in patterns:
                pieces = _GAP.split(pattern)
                if len(pieces) > 1:
                    needed = frozenset(union for piece in pieces for union in _unions([piece]))
                    search = re2.compile(*_unions([pattern]), re2_options(_MAX_MEMORY)).search
                    last = _unions(pieces[-1:])[0]
                    self._gapped.setdefault(last, []).append((number, needed, search))
                    every |= needed
        every |= self._whole.keys()
        words = {one for one in every if one.startswith((_EDGE, _START, _INSIDE))}
        self._words, self._spaceless = (
            _Set(sorted(words | {_ODD, _FAR})),
            _Set(sorted(every - words)),
        )

    def found(self, *texts: str) -> frozenset[int]:
        """The numbers of the signals in a text; of several, at least those that are in any."""
        text = f"{_END}{_START}".join(texts)
        if not text:
            return frozenset()
        text = f"{_START}{text}{_END}"
        prepared = _prepared(text)
        pieces = self._words.found(prepared)
        if _ODD in pieces:
            prepared = _prepared(_ODD_ONES.sub(_plain, text))
            pieces = self._words.found(prepared)
        if _FAR in pieces:
            pieces |= self._spaceless.found(prepared)
        return self._signals(pieces, prepared)

    def _signals(self, pieces: frozenset[str], prepared: bytes) -> frozenset[int]:
        numbers = set()
        for piece in pieces:
            if piece in self._whole:
                numbers.add(self._whole[piece])
            for number, needed, search in self._gapped.get(piece, ()):
                if number not in numbers and needed <= pieces and search(prepared):
                    numbers.add(number)
        return frozenset(numbers)


def re2_options(max_memory: int) -> re2.Options:
    """To look whether a pattern is there, in UTF-8; `max_memory` bytes are for its automaton."""
    options = re2.Options()
    options.max_mem = max_memory
    options.never_capture = True
    options.log_errors = False
    return options


def _prepared(text: str) -> bytes:
    """In UTF-8 and lower case, without Markdown's marks."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).lower()
    return text.encode(errors="replace").translate(_PLAIN)


def _plain(odd: re.Match[str]) -> str:
    return "" if odd[0] in _UNSEEN else unicodedata.normalize("NFKC", odd[0])


def _alternatives(pattern: str) -> list[str]:
    """A pattern with gaps cut at each `|` outside brackets: of `a|b…c`, `a` needs no gap."""
    if not _GAP.search(pattern):
        return [pattern]
    found, depth = [""], 0
    for part in _CUT.split(pattern):
        depth += (part == "(") - (part == ")")
        if part == "|" and not depth:
            found.append("")
        else:
            found[-1] += part
    return found


def _unions(patterns: list[str]) -> list[str]:
    """One expression for those that begin where a word does, one for those that begin anywhere,
    one for those at the text's start.
    """
    unions: dict[str, list[str]] = {}
    for pattern in sorted(patterns):
        unions.setdefault(_beginning(pattern), []).append(_expanded(pattern.lstrip("^~")))
    return [f"{beginning}(?:{'|'.join(some)})" for beginning, some in unions.items()]


def _beginning(pattern: str) -> str:
    if pattern.startswith("^"):
        return _START
    if pattern.startswith("~"):
        return _INSIDE
    letter = next((char for char in pattern if char.isalpha()), "")
    return "" if NO_SPACES.match(letter) else _EDGE


def _expanded(pattern: str) -> str:
    """Our few marks as RE2 writes them; classes stay as they are."""
    pattern = unicodedata.normalize("NFC", pattern)
    return _MARK.sub(lambda mark: _SYNTAX.get(mark[0], mark[0]), pattern)
