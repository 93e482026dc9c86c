"""Counts tokens: tiktoken, offline, and off the event loop when there is much to count."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from threading import Lock

import structlog
from tiktoken import Encoding
from tiktoken.model import encoding_name_for_model

from mintoken import vocabulary
from mintoken.exchange import Image, Prompt, Spoken
from mintoken.models import CountedBy, TokenUsage
from mintoken.vocabulary import DEFAULT_ENCODING, RECIPES

INLINE_BYTES = 2048
"""Less than this is counted on the event loop (0.8 ms at worst)."""
CHUNK_CHARACTERS = 64 * 1024
"""Of one repeated character this takes 25 ms; from a million on tiktoken panics."""
COUNTED_CHARACTERS = 8 * 1024 * 1024
"""More than any context window holds. What is beyond is estimated."""

BYTES_PER_TOKEN = 4
# Tools and schemas are billed below their raw JSON, which overshoots by 20 to 43 %.
EXTRA_BYTES_PER_TOKEN = 5
TOKENS_PER_MESSAGE = 4

PromptReader = Callable[[], Prompt]
Then = Callable[[TokenUsage], None]

LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Family:
    """What a family of models bills beside the text that tiktoken counts, in tokens.

    Measured on recorded traffic with provider usage. `exact` is False where hidden reasoning or
    another vendor's own tokenizer makes every count an estimate.
    """

    prefixes: tuple[str, ...]
    exact: bool
    text: int = 0
    """On top of each choice that is text."""
    call: int = 0
    """On top of a choice's single tool call."""
    calls: tuple[int, int] | None = None
    """On top of several: in all, and per call. None where that was not measured."""
    opening: int = 3
    """Once per prompt."""
    image: tuple[int, int] = (85, 170)
    """OpenAI's published price of an image: base, and per tile of 512 x 512."""


# The first that fits, so the longer ones come first.
FAMILIES = (
    Family(("gpt-4o-mini",), exact=True, call=7, calls=(16, 6), image=(2833, 5667)),
    Family(("gpt-4o", "chatgpt-4o", "gpt-4.1"), exact=True, call=7, calls=(16, 6)),
    Family(("gpt-4.",), exact=False),
    Family(("gpt-4",), exact=True, call=4),
    Family(("gpt-3.5", "gpt-35"), exact=True, call=7),
    Family(("gpt-5.",), exact=False, text=3, call=10, opening=2, image=(70, 140)),
    Family(("gpt-5",), exact=False, text=9, call=16, opening=2, image=(70, 140)),
    Family(("gpt-oss",), exact=False, text=10, call=17),
    Family(("o1", "o3", "o4"), exact=False, opening=2, image=(75, 150)),
)
OTHERS = Family((), exact=False)


@lru_cache(maxsize=256)
def family_of(model: str) -> Family:
    """The family whose constants count for a model; OTHERS for those of other vendors."""
    base = _base_model(model)
    return next((family for family in FAMILIES if base.startswith(family.prefixes)), OTHERS)


@lru_cache(maxsize=256)
def encoding_of(model: str) -> str:
    """The vocabulary for a model by tiktoken's own table; o200k_base where we carry no better."""
    try:
        name = encoding_name_for_model(_base_model(model))
    except KeyError:
        return DEFAULT_ENCODING
    return name if name in RECIPES else DEFAULT_ENCODING


def _base_model(model: str) -> str:
    # tiktoken's table takes ft:gpt-4.1 for a gpt-4, and knows no ft:gpt-3.5-turbo:org::id.
    return model[3:].partition(":")[0] if model.startswith("ft:") else model


@dataclass(frozen=True, slots=True)
class _Count:
    tokens: int = 0
    exact: bool = True

    def __add__(self, other: "_Count") -> "_Count":
        return _Count(self.tokens + other.tokens, self.exact and other.exact)


class Tokenizer:
    """Counts texts and whole exchanges. Safe to share between threads."""

    def __init__(self, cache_dir: Path | None) -> None:
        self._cache_dir = cache_dir
        self._encodings: dict[str, Encoding] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="tokens")

    @property
    def ready(self) -> bool:
        """Is the default vocabulary loaded?"""
        return DEFAULT_ENCODING in self._encodings

    def load(self) -> None:
        """Load the default vocabulary (blocks for some 0.4 s). Raises TokenizerError."""
        self._encoding(DEFAULT_ENCODING)

    def close(self) -> None:
        """Finish what was begun (blocks) and hand it to the event loop; later counts run inline."""
        self._pool.shutdown()

    def count(self, text: str, model: str) -> int:
        """Tokens of a text (blocks; an estimate where tiktoken fails). Raises TokenizerError."""
        return self._count((text,), model).tokens

    async def measure(
        self, spoken: Spoken, prompt: PromptReader, model: str, *, prompt_bytes: int
    ) -> TokenUsage:
        """Tokens of an exchange: the provider's own count, else ours. Never raises.

        `prompt` is asked only if we have to count; what it reads has `prompt_bytes`.
        """
        usage = self._begin(spoken, prompt, model, prompt_bytes)
        return await asyncio.wrap_future(usage) if isinstance(usage, Future) else usage

    def measure_soon(
        self, spoken: Spoken, prompt: PromptReader, model: str, then: Then, *, prompt_bytes: int
    ) -> None:
        """`measure` for who cannot wait: calls `then` in the running loop, at once or later."""
        usage = self._begin(spoken, prompt, model, prompt_bytes)
        if isinstance(usage, Future):
            loop = asyncio.get_running_loop()
            usage.add_done_callback(lambda done: loop.call_soon_threadsafe(then, done.result()))
        else:
            then(usage)

    def _begin(
        self, spoken: Spoken, prompt: PromptReader, model: str, prompt_bytes: int
    ) -> TokenUsage | Future[TokenUsage]:
        if spoken.usage is not None:
            return spoken.usage
        small = len(spoken.said) + prompt_bytes < INLINE_BYTES
        if not small or encoding_of(model) not in self._encodings:
            with suppress(RuntimeError):  # The pool is closed.
                return self._pool.submit(self._measured, spoken, prompt, model, prompt_bytes)
        return self._measured(spoken, prompt, model, prompt_bytes)

    def _measured(
        self, spoken: Spoken, prompt: PromptReader, model: str, prompt_bytes: int
    ) -> TokenUsage:
        try:
            sent, said = self._input(prompt(), model), self._output(spoken, model)
        except Exception as error:  # noqa: BLE001 - measurement fails open
            LOG.error("count_failed", error=type(error).__name__)
            sent = _by_size(prompt_bytes)
            said = _by_size(len(spoken.said) + spoken.unread_bytes)
        exact = family_of(model).exact and sent.exact and said.exact
        counted_by = CountedBy.TIKTOKEN if exact else CountedBy.ESTIMATE
        return TokenUsage(input=sent.tokens, output=said.tokens, counted_by=counted_by)

    def _output(self, spoken: Spoken, model: str) -> _Count:
        family = family_of(model)
        count = self._count((spoken.text,), model)
        for calls in spoken.tool_calls:
            count += _choice_extra(family, calls)
        return count + _by_size(spoken.unread_bytes) if spoken.unread_bytes else count

    def _input(self, prompt: Prompt, model: str) -> _Count:
        family = family_of(model)
        count = self._count(prompt.texts, model) + _Count(0, prompt.exact)
        count += _Count(TOKENS_PER_MESSAGE * prompt.messages + family.opening)
        for image in prompt.images:
            count += _Count(image_tokens(image, family), exact=False)
        if prompt.extra_bytes:
            count += _Count(ceil(prompt.extra_bytes / EXTRA_BYTES_PER_TOKEN), exact=False)
        return count

    def _count(self, texts: Iterable[str], model: str) -> _Count:
        encoding = self._encoding(encoding_of(model))
        count, left = _Count(), COUNTED_CHARACTERS
        for chunk in (chunk for text in texts for chunk in _chunks(text)):
            left -= len(chunk)
            count += _count_chunk(encoding, chunk) if left >= 0 else _by_size(_size(chunk))
        return count

    def _encoding(self, name: str) -> Encoding:
        if name not in self._encodings:
            with self._lock:
                if name not in self._encodings:
                    self._encodings[name] = vocabulary.load(name, self._cache_dir)
        return self._encodings[name]


def image_tokens(image: Image, family: Family) -> int:
    """OpenAI's tile formula: fit into 2048 x 2048, shortest side to 768, tiles of 512 x 512."""
    base, per_tile = family.image
    if image.low:
        return base
    width, height = (image.width, image.height) if image.width and image.height else (1024, 1024)
    shrink = min(1.0, 2048 / max(width, height), 768 / min(width, height))
    # Rounded to whole pixels first, or 1536.0000000000002 would be a tile more.
    across, down = (max(1, ceil(round(side * shrink) / 512)) for side in (width, height))
    return base + per_tile * across * down


def _choice_extra(family: Family, calls: int) -> _Count:
    if calls == 0:
        return _Count(family.text)
    if calls == 1:
        return _Count(family.call)
    if family.calls is None:
        return _Count(family.call * calls, exact=False)
    return _Count(family.calls[0] + family.calls[1] * calls)


def _chunks(text: str) -> Iterator[str]:
    """Cut where a word begins if one does near the end, so that hardly a token is split."""
    start = 0
    while len(text) - start > CHUNK_CHARACTERS:
        end = start + CHUNK_CHARACTERS
        space = text.rfind(" ", max(start + 1, end - 256), end)
        yield text[start : (start := space if space > 0 else end)]
    yield text[start:]


def _count_chunk(encoding: Encoding, chunk: str) -> _Count:
    try:
        return _Count(len(encoding.encode_ordinary(chunk)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - a panic inside tiktoken is no Exception
        return _by_size(_size(chunk))


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def _by_size(size: int) -> _Count:
    return _Count(ceil(size / BYTES_PER_TOKEN), exact=False)
