"""The seam of the wire protocols: what Mintoken needs to know of one."""

import re
from collections.abc import Mapping
from typing import Protocol

from mintoken.errors import MintokenError
from mintoken.exchange import Spoken, Turn
from mintoken.models import Outcome


class Meter(Protocol):
    """Reads one answer over the relay's shoulder; never raises on what it is fed."""

    def feed(self, events: list[bytes]) -> None:
        """Take the data of the next server-sent events; many at once are heard sooner."""

    def feed_body(self, body: bytes) -> None:
        """Take a whole JSON answer."""

    def skip(self, size: int) -> None:
        """Note `size` bytes that could not be read as events."""

    @property
    def text_bytes(self) -> int:
        """Bytes of visible text so far; costs nothing to ask."""

    def ended(self) -> Outcome | None:
        """How the answer ended by what was fed; None if it has not."""

    @property
    def usage_sign(self) -> re.Pattern[bytes]:
        """What is in the bytes of every event of which `only_usage` is true, and in few others."""

    def only_usage(self, event: bytes) -> bool:
        """Whether an event's data are the answer to `Turn.usage_question`, and nothing else."""

    def spoken(self) -> Spoken:
        """What the answer said so far."""


class WireProtocol(Protocol):
    """One provider's protocol. Everything here is pure: bytes in, values or bytes out."""

    name: str
    path: str

    def credential(self, provider_key: str) -> Mapping[str, str]:
        """The request headers that carry the caller's provider key upstream."""

    def read(self, body: bytes) -> Turn:
        """Read a request body.

        Raises MintokenError `invalid_json` or `json_too_deep`; an odd but well-formed body is read
        as far as it can be.
        """

    def inject(self, body: bytes, turn: Turn, text: str, *, ask_usage: bool = False) -> bytes:
        """The body with `text` as system text, every other byte as it was.

        The same body where the text is there already or `turn.inject_at` is None. With `ask_usage`
        it also gets `turn.usage_question`, before everything else in it.
        """

    def meter(self) -> Meter:
        """A fresh meter for one answer."""

    def error(self, error: MintokenError, *, in_stream: bool) -> bytes:
        """The error as a response body, or as a server-sent event that ends a stream."""
