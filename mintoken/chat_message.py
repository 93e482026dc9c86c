"""The messages of a Chat Completions request, as far as all who read one look at them."""

from collections.abc import Sequence

import msgspec

ABSENT = msgspec.Raw()
SYSTEM_ROLES = ("system", "developer")


class Message(msgspec.Struct, gc=False):
    """A message; its content is JSON of whatever kind."""

    role: str
    content: msgspec.Raw = ABSENT


def first_byte(raw: msgspec.Raw) -> bytes:
    """What kind of JSON it is; empty where there is none."""
    return bytes(memoryview(raw)[:1])


def leading(messages: Sequence[Message]) -> int:
    """How many messages of the system or the developer stand before all others."""
    others = (at for at, message in enumerate(messages) if message.role not in SYSTEM_ROLES)
    return next(others, len(messages))
