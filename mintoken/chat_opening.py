"""How a Chat Completions conversation begins, by which experiments tell it from others."""

from collections.abc import Iterator, Sequence

import msgspec

from mintoken.chat_request import ABSENT, Message, first_byte, leading
from mintoken.exchange import Opening

_BETWEEN = memoryview(b"")


class _Part(msgspec.Struct, gc=False):
    """What a part shows. Its other fields may change from turn to turn, as cache breakpoints do."""

    text: msgspec.Raw = ABSENT
    image_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT
    file: msgspec.Raw = ABSENT


_PARTS = msgspec.json.Decoder(list[_Part])


def read_opening(messages: Sequence[Message]) -> Opening:
    """Contents are not decoded, for they may have megabytes: a caller writes the same text the same
    way in each turn. Media count as what they are sent as, but not in the size.
    """
    lead = leading(messages)
    first = next((one for one in messages[lead:] if one.role == "user"), None)
    pieces = [piece for message in messages[:lead] for piece in _pieces(message.content)]
    pieces.append((_BETWEEN, 0))
    pieces += _pieces(first.content) if first else ()
    return Opening(
        pieces=tuple(piece for piece, _ in pieces),
        text_bytes=sum(size for _, size in pieces),
    )


def _pieces(content: msgspec.Raw) -> Iterator[tuple[memoryview, int]]:
    """What a message says and shows, each with the bytes that it has of text."""
    match first_byte(content):
        case b'"':
            yield _text(content)
        case b"[":
            try:
                parts = _PARTS.decode(content)
            except (msgspec.DecodeError, RecursionError):
                yield memoryview(content), 0
                return
            for part in parts:
                if memoryview(part.text).nbytes:
                    yield _text(part.text)
                for raw in (part.image_url, part.input_audio, part.file):
                    if memoryview(raw).nbytes:
                        yield memoryview(raw), 0


def _text(raw: msgspec.Raw) -> tuple[memoryview, int]:
    piece = memoryview(raw)
    return piece, piece.nbytes - 2 if first_byte(raw) == b'"' else 0  # without its quotes
