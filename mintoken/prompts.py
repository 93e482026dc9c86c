"""The text of each intensity, versioned."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from mintoken.models import Intensity

EDITION = 1
"""Raised with every change of a text, so that versions can be told apart at a glance."""

# In o200k_base, the blank line that joins a text to the caller's own included. A test counts again.
_TOKENS = {Intensity.LITE: 34, Intensity.FULL: 61, Intensity.ULTRA: 67}


@dataclass(frozen=True, slots=True)
class Wording:
    """A system text, the tokens that it adds to a prompt, and the name that rows have for it."""

    text: str
    tokens: int
    version: str


NO_WORDING = Wording("", 0, "")
CONCISE = Wording("Answer concisely.", 6, "concise")
"""What a control arm may get, to see what ours is worth over it."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts of one version; `version` is recorded with every request that got one."""

    version: str
    wordings: Mapping[Intensity, Wording]

    def wording(self, intensity: Intensity) -> Wording:
        """What a level injects; nothing for NONE."""
        return self.wordings[intensity]

    def text(self, intensity: Intensity) -> str:
        """The system text of a level; "" for NONE."""
        return self.wordings[intensity].text


def load_prompts() -> Prompts:
    """Read the texts that come with the package. The version follows their content."""
    folder = files("mintoken") / "data" / "prompts"
    texts: dict[Intensity, str] = {
        level: (folder / f"{level}.md").read_text(encoding="utf-8").strip()
        for level in Intensity
        if level is not Intensity.NONE
    }
    digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()
    version = f"{EDITION}-{digest[:8]}"
    wordings = {level: Wording(text, _TOKENS[level], version) for level, text in texts.items()}
    return Prompts(version, MappingProxyType({Intensity.NONE: NO_WORDING, **wordings}))
