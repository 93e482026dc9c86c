"""What the prompt of a Chat Completions request holds, as far as its tokens go."""

import base64
import io
from collections.abc import Iterator

import msgspec

from mintoken.chat_request import ABSENT, Message, first_byte
from mintoken.exchange import Image, Prompt

_NOTHING = (b"", b"null", b"[]", b"{}")
_HEADER_BYTES = 64 << 10  # base64 read of an image: its size stands before that
_IMAGE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF8", b"RIFF")


class _Message(Message, gc=False):
    name: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT
    function_call: msgspec.Raw = ABSENT


class _Part(msgspec.Struct, gc=False):
    type: str
    text: msgspec.Raw = ABSENT
    image_url: msgspec.Raw = ABSENT


class _ImageURL(msgspec.Struct):
    url: msgspec.Raw = ABSENT
    detail: msgspec.Raw = ABSENT


class _Format(msgspec.Struct):
    json_schema: msgspec.Raw = ABSENT


class _Request(msgspec.Struct):
    messages: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    functions: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT


_REQUEST = msgspec.json.Decoder(_Request)
_MESSAGES = msgspec.json.Decoder(list[_Message])
_PARTS = msgspec.json.Decoder(list[_Part])
_IMAGE_URL = msgspec.json.Decoder(_ImageURL)
_FORMAT = msgspec.json.Decoder(_Format)
_STRING = msgspec.json.Decoder(str)


def read_prompt(body: bytes) -> Prompt:
    """Read a request body that `splice.decode` has accepted; what is odd in it counts by its size.

    Texts are message contents and text parts; names and roles are in the overhead per message.
    """
    try:
        request = _REQUEST.decode(body)
        messages = _messages(request.messages)
        pieces = list(_pieces(request, messages))
    except (msgspec.DecodeError, RecursionError):
        return Prompt(extra_bytes=len(body), exact=False)
    return Prompt(
        texts=tuple(piece for piece in pieces if isinstance(piece, str)),
        messages=len(messages or ()),
        images=tuple(piece for piece in pieces if isinstance(piece, Image)),
        extra_bytes=sum(piece for piece in pieces if isinstance(piece, int)),
        exact=all(isinstance(piece, str) for piece in pieces),
    )


def _messages(raw: msgspec.Raw) -> list[_Message] | None:
    try:
        return _MESSAGES.decode(raw) if bytes(raw) not in _NOTHING else []
    except msgspec.ValidationError:
        return None


def _pieces(request: _Request, messages: list[_Message] | None) -> Iterator[str | Image | int]:
    """Texts, images, and the size in bytes of what is neither."""
    if messages is None:
        yield _size(request.messages)
    for message in messages or ():
        yield from _content(message.content)
        for raw in (message.tool_calls, message.function_call):
            yield from _extra(raw)
        if bytes(message.name) not in _NOTHING:
            yield 0
    yield from _extra(request.tools)
    yield from _extra(request.functions)
    if first_byte(request.response_format) == b"{":
        yield from _extra(_FORMAT.decode(request.response_format).json_schema)


def _content(raw: msgspec.Raw) -> Iterator[str | Image | int]:
    match first_byte(raw):
        case b'"':
            yield _STRING.decode(raw)
        case b"[":
            try:
                parts = _PARTS.decode(raw)
            except msgspec.ValidationError:
                yield _size(raw)
            else:
                for part in parts:
                    yield _part(part)
        case _:
            yield from _extra(raw)


def _part(part: _Part) -> str | Image | int:
    text = _string(part.text)
    match part.type:
        case "text" if text is not None:
            return text
        case "image_url":
            return _image(part.image_url)
        case _:
            return 0


def _image(raw: msgspec.Raw) -> Image:
    image = _ImageURL(url=raw)
    if first_byte(raw) == b"{":
        image = _IMAGE_URL.decode(raw)
    width, height = _size_in_pixels(image.url)
    return Image(width=width, height=height, low=bytes(image.detail) == b'"low"')


def _size_in_pixels(url: msgspec.Raw) -> tuple[int, int]:
    """Width and height out of the header of a base64 data URL; 0 x 0 where there is none."""
    start = bytes(memoryview(url)[: _HEADER_BYTES + 128]).replace(b"\\/", b"/")
    kind, _, data = start.partition(b";base64,")
    if not kind.startswith(b'"data:image/'):
        return 0, 0
    data = data.rstrip(b'"=')
    try:
        header = base64.b64decode(data[: len(data) // 4 * 4])
    except ValueError:
        return 0, 0
    if not header.startswith(_IMAGE_MAGIC):  # imagesize would parse SVG and more
        return 0, 0
    import imagesize  # It brings an XML parser: 5 % of the start, for who sends no image.

    width, height = imagesize.get(io.BytesIO(header), exif_rotation=False)
    if header[12:16] == b"VP8 ":
        width, height = width & 0x3FFF, height & 0x3FFF  # the upper bits are a scale
    return (width, height) if width > 0 and height > 0 else (0, 0)


def _string(raw: msgspec.Raw) -> str | None:
    return _STRING.decode(raw) if first_byte(raw) == b'"' else None


def _extra(raw: msgspec.Raw) -> Iterator[int]:
    if bytes(raw) not in _NOTHING:
        yield _size(raw)


def _size(raw: msgspec.Raw) -> int:
    return memoryview(raw).nbytes
