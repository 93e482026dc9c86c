"""System text into a JSON body without touching its other bytes."""

import ctypes
import json
import re
from typing import Any, TypeVar

import msgspec

from mintoken.errors import Code, MintokenError

_Strict = TypeVar("_Strict", bound=msgspec.Struct)
_Loose = TypeVar("_Loose", bound=msgspec.Struct)

_ANYTHING = msgspec.json.Decoder(msgspec.Raw)
_POSITION = re.compile(r"\(byte (\d+)\)")

# Surrogate escapes whose backslash is not itself escaped: after one backslash, or after more.
_SURROGATE = re.compile(rb"\\(?<!\\\\)u[dD][89a-fA-F][0-9a-fA-F]{2}")
_LATE_SURROGATE = re.compile(rb"(\\(?<!\\\\)(?:\\\\)++)u[dD][89a-fA-F][0-9a-fA-F]{2}")
_ESCAPE = re.compile(rb"(?<!\\)\\")
_STRETCH_BYTES = 1 << 18
_BACKSLASH = ord("\\")


def decode(
    body: bytes, strict: msgspec.json.Decoder[_Strict], loose: msgspec.json.Decoder[_Loose]
) -> tuple[_Strict | _Loose, bytes]:
    """Read a JSON object (RFC 8259, UTF-8 only) by `strict`, or by `loose` if its types are odd.

    Also gives the bytes that were read, to which every `msgspec.Raw` in the value belongs: `body`,
    or, if it has halves of surrogate pairs, which JSON allows and msgspec does not, a copy of the
    same length with every surrogate escape as U+FFFD. Raises MintokenError `invalid_json`, saying
    where, or `json_too_deep`.
    """
    _check_utf8(body)
    source = body
    try:
        try:
            return _decode_either(source, strict, loose), source
        except msgspec.DecodeError:
            source = _without_surrogates(body)
            if source == body:
                raise
            return _decode_either(source, strict, loose), source
    except RecursionError:
        problem = MintokenError(Code.JSON_TOO_DEEP)
    except msgspec.ValidationError:
        problem = MintokenError(Code.INVALID_JSON, "Its top level is not an object.")
    except msgspec.DecodeError as error:
        position = _POSITION.search(str(error))
        at = position[1] if position else len(body)
        problem = MintokenError(Code.INVALID_JSON, f"It breaks at byte {at}.")
    raise problem


def _check_utf8(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        at = error.start
    else:
        return
    raise MintokenError(Code.INVALID_JSON, f"It is not UTF-8 at byte {at}.")


def _decode_either(
    source: bytes, strict: msgspec.json.Decoder[_Strict], loose: msgspec.json.Decoder[_Loose]
) -> _Strict | _Loose:
    try:
        return strict.decode(source)
    except msgspec.ValidationError:
        pass
    try:
        return loose.decode(source)
    except msgspec.ValidationError:
        _ANYTHING.decode(source)  # it may be worse than not an object: broken, or too deep
        raise


def _without_surrogates(body: bytes) -> bytes:
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    pieces, start = [], 0
    while start < len(body):  # by stretches: one long call would keep every other thread waiting
        cut = _ESCAPE.search(body, start + _STRETCH_BYTES)
        end = cut.start() if cut else len(body)
        pieces.append(
            _LATE_SURROGATE.sub(rb"\1ufffd", _SURROGATE.sub(rb"\\ufffd", body[start:end]))
        )
        start = end
    return b"".join(pieces)


class _Buffer(ctypes.Structure):
    """Py_buffer of Python's stable C interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


def _address_and_size(holder: Any) -> tuple[int, int]:
    buffer = _Buffer()
    _get_buffer(holder, buffer, 0)
    try:
        return buffer.buf or 0, buffer.len
    finally:
        _release_buffer(buffer)


def span(source: bytes, value: msgspec.Raw) -> tuple[int, int]:
    """Where `value`, decoded out of `source`, starts and ends in it, in bytes.

    A Raw is a window on the bytes it was decoded from, so its address tells: searching for it
    would find a lookalike, and walking there costs more than all of the decoding.
    """
    start, size = _address_and_size(value)
    first, length = _address_and_size(source)
    at = start - first
    if not 0 <= at <= length - size:
        raise ValueError("the value was not decoded out of these bytes")
    return at, at + size


def insert(body: bytes, *additions: tuple[int, bytes]) -> bytes:
    """`body` with each addition before its byte `at`; in the order of their places, in one copy."""
    view, start = memoryview(body), 0
    pieces: list[bytes | memoryview] = []
    for at, addition in additions:
        pieces += view[start:at], addition
        start = at
    pieces.append(view[start:])
    return b"".join(pieces)


def quoted(text: str) -> bytes:
    """`text` as a JSON string, with its quotes."""
    return msgspec.json.encode(text)


def string_says(body: bytes, end: int, text: str, *, after: str) -> bool:
    """Whether the JSON string with its closing quote at `end` is `text`, or ends in it.

    `after` must come before a `text` that is not all of the string. However it is escaped.
    """
    last = body[max(0, end - 48) : end]
    if _BACKSLASH not in last and not last.endswith(text[-8:].encode()):
        return False  # nearly always, and soon: these eight characters are not escaped
    suffix = after + text
    # No character takes more than 6 bytes for each of its UTF-16 units.
    start = max(0, end - 3 * len(suffix.encode("utf-16-le")))
    opening = _opening_quote(body, start, end)
    start = opening + 1 if opening >= 0 else _character_start(body, start)
    tail: str = json.loads(b'"%b"' % body[start:end])
    return tail.endswith(suffix) or (opening >= 0 and tail == text)


def _opening_quote(body: bytes, start: int, end: int) -> int:
    at = body.rfind(b'"', start, end)
    while at >= 0 and _is_escaped(body, at):
        at = body.rfind(b'"', start, at)
    return at


def _character_start(body: bytes, at: int) -> int:
    if _is_escaped(body, at):
        return at + 1
    while body[at] & 0xC0 == 0x80:
        at += 1
    return at


def _is_escaped(body: bytes, at: int) -> bool:
    size = 64
    before = body[max(0, at - size) : at]
    while not before.strip(b"\\") and len(before) == size:
        size *= 8
        before = body[max(0, at - size) : at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def last_object(
    body: bytes, end: int, reach: int, decoder: msgspec.json.Decoder[_Loose]
) -> _Loose | None:
    """The object right before `end` by `decoder`; None without one of up to `reach` bytes."""
    window = body[max(0, end - reach) : end].rstrip(b" \t\r\n")
    at = window.rfind(b"{") if window.endswith(b"}") else -1
    while at >= 0:
        try:
            return decoder.decode(window[at:])
        except (msgspec.DecodeError, UnicodeDecodeError):
            at = window.rfind(b"{", 0, at)
    return None
