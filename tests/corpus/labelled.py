"""The labelled requests as bodies, and how far detection agrees with them."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mintoken.conversations import Conversations
from mintoken.detect import load_detector
from mintoken.protocols.openai_chat import OpenAIChat

LEVELS = ("none", "lite", "full", "ultra", "default")
PARTS = ("tuning", "far", "near", "last", "listed", "held_out")
PLAIN_QUESTION = "What is a mutex?"


@dataclass(frozen=True)
class Labelled:
    """A request body and the level it should get; `default` is that of the key."""

    level: str
    kind: str
    language: str
    body: bytes
    shown: str


@dataclass(frozen=True)
class Tried:
    """A labelled request and what detection said of it."""

    labelled: Labelled
    level: str
    reason: str

    @property
    def agrees(self) -> bool:
        return self.level == self.labelled.level

    @property
    def harms(self) -> bool:
        """Something was compressed that must never be: the key's own level would do that too."""
        return self.labelled.level == "none" and not self.agrees


def read(part: str) -> Iterator[Labelled]:
    """The requests of one file."""
    table = tomllib.loads((Path(__file__).parent / f"{part}.toml").read_text())
    for row in table.pop("request", ()):
        yield _labelled(row.pop("level"), row.pop("class"), "-", **row)
    for level, kinds in table.items():
        for kind, entries in kinds.items():
            after, of = entries.pop("after", None), entries.pop("of", "last")
            for language, text in ((name, text) for name in entries for text in entries[name]):
                if of == "system":
                    yield _labelled(level, kind, language, system=text, turns=[PLAIN_QUESTION])
                else:
                    turns = [after, text] if after else [text]
                    yield _labelled(level, kind, language, turns=turns)


def _labelled(
    level: str,
    kind: str,
    language: str,
    *,
    turns: list[str],
    system: str = "",
    tool_result: str = "",
    fields: dict[str, Any] | None = None,
) -> Labelled:
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "Well."}]
    if turns:
        messages.pop()
    if tool_result:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": tool_result},
        ]
    body = orjson.dumps({"model": "gpt-4o", "messages": messages} | (fields or {}))
    shown = " | ".join([f"({system})"] * bool(system) + turns)
    return Labelled(level, kind, language, body, shown)


def tried(*parts: str) -> list[Tried]:
    """What detection says of every request, each of them the first that it sees."""
    detector = load_detector()
    found = []
    for labelled in (one for part in parts for one in read(part)):
        asked = OpenAIChat().read(labelled.body).asked()
        decision = Conversations(detector, b"secret").decide("key", asked)
        level = decision.intensity.value if decision else "default"
        found.append(Tried(labelled, level, decision.reason if decision else "key"))
    return found


def agreement(found: list[Tried]) -> float:
    """The share of requests on which detection agrees."""
    return sum(one.agrees for one in found) / len(found)


def matrix(found: list[Tried]) -> Counter[tuple[str, str]]:
    """How many requests of each level got each level."""
    return Counter((one.labelled.level, one.level) for one in found)
