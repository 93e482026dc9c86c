"""Prompt sets: read from TOML, with every problem reported at once."""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mintoken.errors import ConfigError
from mintoken.eval_facts import Fact, pattern

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PROMPT_FIELDS = {"id", "category", "system", "user", "reference", "facts"}
_FACT_FIELDS = {"says", "any", "not", "keys", "values"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPrompt:
    """One question with its rubric; `system` is the caller's own system text, "" without one.

    `reference` is an answer that holds every fact, "" if the set gives none.
    """

    id: str
    category: str
    system: str
    user: str
    reference: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in their order; `digest` changes with every change of the file."""

    name: str
    digest: str
    prompts: tuple[EvalPrompt, ...]


def load_set(path: Path | None) -> PromptSet:
    """The set in a file, or the one that comes with the package.

    Raises ConfigError with everything that is wrong in it, and OSError.
    """
    bundled = files("mintoken") / "data" / "eval.toml"
    name = path.name if path else "bundled"
    return read_set((path or bundled).read_bytes(), name)


def read_set(data: bytes, name: str) -> PromptSet:
    """The set that a TOML document describes. Raises ConfigError."""
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{name}: not TOML in UTF-8: {error}"]) from None
    tables = document.get("prompt")
    if not isinstance(tables, list) or not tables:
        raise ConfigError([f"{name}: no [[prompt]] is in it"])
    problems = [f"unknown table or value {other}" for other in document if other != "prompt"]
    prompts, seen = [], set[str]()
    for number, table in enumerate(tables, 1):
        prompt, wrong = _read_prompt(table if isinstance(table, dict) else {})
        if prompt.id in seen:
            wrong.append("another prompt has this id")
        seen.add(prompt.id)
        problems += [f"prompt {number} ({prompt.id or 'no id'}): {text}" for text in wrong]
        prompts.append(prompt)
    if problems:
        raise ConfigError([f"{name}: {problem}" for problem in problems])
    return PromptSet(name, hashlib.sha256(data).hexdigest()[:16], tuple(prompts))


def _read_prompt(table: Mapping[str, Any]) -> tuple[EvalPrompt, list[str]]:
    problems = [f"unknown field {name}" for name in table if name not in _PROMPT_FIELDS]
    texts = {name: _text(table, name, problems) for name in ("id", "category", "user")}
    extras = {name: _text(table, name, problems, "") for name in ("system", "reference")}
    if texts["id"] and not _ID.fullmatch(texts["id"]):
        problems.append("id may hold a-z, 0-9, and after the first . _ and - (64 at most)")
    tables = table.get("facts")
    if not isinstance(tables, list) or not tables:
        problems.append("facts: at least one is needed")
        tables = []
    facts = []
    for number, given in enumerate(tables, 1):
        fact, wrong = _read_fact(given if isinstance(given, dict) else {})
        problems += [f"fact {number}: {text}" for text in wrong]
        facts.append(fact)
    prompt = EvalPrompt(**texts, **extras, facts=tuple(facts))
    if not problems and prompt.reference:
        problems += _missed(prompt)
    return prompt, problems


def _missed(prompt: EvalPrompt) -> Iterator[str]:
    for number, fact in enumerate(prompt.facts, 1):
        if not fact.is_in(prompt.reference):
            yield f"fact {number} ({fact.says}) is not found in its own reference answer"


def _read_fact(table: Mapping[str, Any]) -> tuple[Fact, list[str]]:
    problems = [f"unknown field {name}" for name in table if name not in _FACT_FIELDS]
    lists = {name: _phrases(table, name, problems) for name in ("any", "not", "keys")}
    values = table.get("values", {})
    if not isinstance(values, dict):
        problems.append("values: a table of paths and values is needed")
        values = {}
    if not any(lists.values()) and not values:
        problems.append("one of any, not, keys and values is needed")
    for phrase in (*lists["any"], *lists["not"]):
        try:
            pattern(phrase)
        except re.error as error:
            problems.append(f"{phrase} is no regular expression: {error}")
    fact = Fact(
        says=_text(table, "says", problems),
        any_of=lists["any"],
        none_of=lists["not"],
        keys=lists["keys"],
        values=values,
    )
    return fact, problems


def _phrases(table: Mapping[str, Any], name: str, problems: list[str]) -> tuple[str, ...]:
    given = table.get(name, [])
    if isinstance(given, list) and all(isinstance(one, str) and one.strip(" *") for one in given):
        return tuple(given)
    problems.append(f"{name}: a list of texts is needed")
    return ()


def _text(
    table: Mapping[str, Any], name: str, problems: list[str], absent: str | None = None
) -> str:
    given = table.get(name, absent)
    if isinstance(given, str) and (given.strip() or absent is not None):
        return given
    problems.append(f"{name}: a text is needed")
    return ""
