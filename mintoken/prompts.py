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
_TOKENS = {Intensity.NONE: 0, Intensity.LITE: 34, Intensity.FULL: 61, Intensity.ULTRA: 67}


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts of one version; `version` is recorded with every request that got one."""

    version: str
    texts: Mapping[Intensity, str]

    def text(self, intensity: Intensity) -> str:
        """The system text of a level; "" for NONE."""
        return self.texts.get(intensity, "")

    def tokens(self, intensity: Intensity) -> int:
        """Tokens that injecting this level adds to a prompt."""
        return _TOKENS[intensity]


def load_prompts() -> Prompts:
    """Read the texts that come with the package. The version follows their content."""
    folder = files("mintoken") / "data" / "prompts"
    texts: dict[Intensity, str] = {
        level: (folder / f"{level}.md").read_text(encoding="utf-8").strip()
        for level in Intensity
        if level is not Intensity.NONE
    }
    digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()
    return Prompts(f"{EDITION}-{digest[:8]}", MappingProxyType(texts))
