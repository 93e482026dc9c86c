"""A Chat Completions request, decoded once for all who look at it; its values are JSON still."""

from collections.abc import Sequence

import msgspec

ABSENT = msgspec.Raw()
SYSTEM_ROLES = ("system", "developer")


class Message(msgspec.Struct, gc=False):
    """A message; its content is JSON of whatever kind."""

    role: str
    content: msgspec.Raw = ABSENT


class Settings(msgspec.Struct, kw_only=True):
    """What stands beside the messages."""

    model: msgspec.Raw = ABSENT
    stream: msgspec.Raw = ABSENT
    stream_options: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    max_completion_tokens: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    function_call: msgspec.Raw = ABSENT
    logprobs: msgspec.Raw = ABSENT
    prediction: msgspec.Raw = ABSENT
    modalities: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT


class ChatRequest(Settings, kw_only=True):
    messages: list[Message] = []


class OddRequest(Settings):
    """One whose messages are none, which the provider will refuse."""


def first_byte(raw: msgspec.Raw) -> bytes:
    """What kind of JSON it is; empty where there is none."""
    return b"" if raw is ABSENT else bytes(memoryview(raw)[:1])  # Most are, and it takes 0.3 us.


def leading(messages: Sequence[Message]) -> int:
    """How many messages of the system or the developer stand before all others."""
    others = (at for at, message in enumerate(messages) if message.role not in SYSTEM_ROLES)
    return next(others, len(messages))
