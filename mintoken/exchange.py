"""What is read of a request, and of its answer."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from mintoken.models import TokenUsage

MOST_TURNS = 128
"""Of a conversation that detection looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a prompt, in pixels; 0 x 0 where the size is not known. `low` detail or not."""

    width: int = 0
    height: int = 0
    low: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a prompt holds, as far as its tokens go.

    `texts` are its contents, `messages` how many messages they came in, `extra_bytes` the size of
    billed JSON that is not text (tools, schemas), `exact` is False where something in it can only
    be estimated.
    """

    texts: tuple[str, ...] = ()
    messages: int = 0
    images: tuple[Image, ...] = ()
    extra_bytes: int = 0
    exact: bool = True


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request asks, as far as detection and rules look; long texts without their middle.

    `system` is the leading system text, `later` are those that follow. `turns`, at least one, are
    what was to be answered: the user's messages in their order, also what the system asked after
    them, and the system text where no user says a word. Of longer conversations there are a few
    more than MOST_TURNS, the last. `last` is the last user message, without one the system text.
    `cap` is the caller's own limit of output tokens, None without one. `structure` is JSON or a
    schema as the format of the answer, `tool_result` says that a tool's is among the messages.
    """

    system: str = ""
    turns: tuple[str, ...] = ("",)
    later: tuple[str, ...] = ()
    last: str = ""
    cap: int | None = None
    structure: bool = False
    forced_tool: bool = False
    logprobs: bool = False
    prediction: bool = False
    audio: bool = False
    tool_result: bool = False

    def __repr__(self) -> str:
        return f"Asked({len(self.turns)} turns)"  # What they say is nobody's to read.


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What tells conversations apart: the leading system text and the first user message.

    `pieces` are their texts and media as the JSON had them, an empty one between the two;
    `text_bytes` is the size of the texts.
    """

    pieces: tuple[memoryview, ...] = field(default=(), repr=False)
    text_bytes: int = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A read-only view of a request body; the bytes themselves are kept elsewhere.

    `model` is "" where it is missing or not a string. `cap` is the caller's own limit of output
    tokens, None without one. `inject_at` is where system text can go, None where it cannot.
    `prompt` reads the prompt for counting, when somebody needs it, `asked` what is asked, and
    `opening` how the conversation begins.
    `usage_question` is what to add so that the provider sends its own count of a stream; empty
    where the caller has decided that.
    """

    model: str
    stream: bool
    cap: int | None
    prompt: Callable[[], Prompt]
    inject_at: int | None = None
    asked: Callable[[], Asked] = Asked
    opening: Callable[[], Opening] = Opening
    usage_question: bytes = b""

    def __repr__(self) -> str:
        return f"Turn(model={self.model!r})"  # What it says is nobody's to read.

    def judged(self) -> "Turn":
        """Without what only the choice of a level needs: a million messages take their room."""
        return msgspec.structs.replace(self, asked=Asked, opening=Opening)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What an answer said, as far as it was seen.

    `usage` is the provider's own count, None without one. `said` is everything visible joined, in
    UTF-8 (content, reasoning, refusals, tool-call names and arguments of every choice);
    `tool_calls` has one number per choice. `unread_bytes` were seen but not understood (too large,
    or encoded). `done` says that the answer came to its proper end, `failed` that the provider sent
    an error.
    """

    model: str = ""
    finish_reason: str = ""
    usage: TokenUsage | None = None
    said: bytes = field(default=b"", repr=False)
    tool_calls: tuple[int, ...] = ()
    unread_bytes: int = 0
    done: bool = False
    failed: bool = False

    @property
    def text(self) -> str:
        """What was said; to be asked only by who needs it, for megabytes take milliseconds."""
        return self.said.decode(errors="replace")
