"""Events out of a server-sent event stream whose bytes are cut anywhere."""

import re
from collections.abc import Callable

MAX_EVENT_BYTES = 1 << 20
MAX_FILTERED_BYTES = 16 * 1024
"""An event of more is let through as it comes: what is filtered out is far smaller."""

_BOM = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"  # as ints: looking for bytes in bytes is five times slower
_EVENT_END = re.compile(rb"(?>\r\n?|\n)(?>\r\n?|\n)")
_BLANK_LINES = (b"\n\n", b"\n\r", b"\r\r")  # as each of them ends, whatever line end it had before
_BETWEEN = re.compile(rb"(?:[\r\n]|:[^\r\n]*[\r\n])*")  # blank lines and comments
_LINE_END = re.compile(rb"[\r\n]")


class EventParser:
    """Reads one stream as the HTML standard says (§9.2.6), and keeps only the data.

    An event of more than `MAX_EVENT_BYTES` is not kept: its bytes (each line end as one) are added
    to `skipped`. Memory stays under that cap and one read, whatever comes.
    """

    __slots__ = ("_after_cr", "_overlong", "_started", "_tail", "skipped")

    def __init__(self) -> None:
        self.skipped = 0
        self._tail = bytearray()  # of the event that is not complete: empty between events
        self._overlong = False
        self._after_cr = False
        self._started = False

    @property
    def at_boundary(self) -> bool:
        """Whether the stream stands between events, where one more could be put in."""
        return not self._tail

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that `data` completes; events without data are left out."""
        if self._started and not self._tail and not self._after_cr:
            events = _plain_events(data)
            if events is not None:
                return events
        text = self._with_plain_line_ends(data)
        return self._take(text) if text else []

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        if not self._started:
            data = self._without_bom(data)
        if not data:
            return data
        ends_crlf = self._after_cr and data.startswith(b"\n")
        self._after_cr = data.endswith(b"\r")
        if ends_crlf:
            data = data[1:]
        if _CR in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _without_bom(self, data: bytes) -> bytes:
        data = bytes(self._tail) + data
        self._tail.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._tail += data
            return b""
        self._started = True
        return data.removeprefix(_BOM)

    def _take(self, text: bytes) -> list[bytes]:
        if self._overlong:
            text = self._skip(text)
        if not text:
            return []
        end = self._last_boundary(text)
        if end < 0:
            self._hold(text)
            return []
        whole = bytes(self._tail) + text[:end]
        self._tail.clear()
        self._hold(text[end:])
        return self._events(whole)

    def _last_boundary(self, text: bytes) -> int:
        at = text.rfind(b"\n\n")
        if at >= 0:
            return at + 2
        blank_first = text.startswith(b"\n") and (not self._tail or self._tail.endswith(b"\n"))
        return 1 if blank_first else -1

    def _hold(self, text: bytes) -> None:
        tail = self._tail
        tail += text
        while tail.startswith((b":", b"\n")):
            end = tail.find(b"\n")
            if end < 0:
                del tail[1:]  # a comment may go on for ever
                return
            del tail[: end + 1]
        if len(tail) > MAX_EVENT_BYTES + 1:
            self._overlong = True
            self.skipped += len(tail)
            del tail[:-1]

    def _skip(self, text: bytes) -> bytes:
        joined = bytes(self._tail) + text
        at = joined.find(b"\n\n")
        if at < 0:
            self.skipped += len(text)
            self._tail[:] = text[-1:]
            return b""
        self.skipped += at
        self._overlong = False
        self._tail.clear()
        return joined[at + 2 :]

    def _events(self, whole: bytes) -> list[bytes]:
        plain = _plain_events(whole)
        if plain is not None:
            return plain
        events = []
        for block in whole.split(b"\n\n"):
            if len(block) > MAX_EVENT_BYTES and self._is_overlong(block):
                continue
            data = _data(block)
            if data is not None:
                events.append(data)
        return events

    def _is_overlong(self, block: bytes) -> bool:
        while block.startswith((b":", b"\n")):
            block = block.partition(b"\n")[2]
        if len(block) <= MAX_EVENT_BYTES:
            return False
        self.skipped += len(block) + 1
        return True


class EventFilter:
    """Lets one stream through, every byte as it came, but for the events that are `unwanted`.

    `unwanted` judges an event by its data, and only one whose bytes have the `sign`: looking for
    that takes little time. Until an event is complete it is held back, and nothing else is.
    """

    __slots__ = ("_after_dropped_cr", "_held", "_seen", "_sign", "_until", "_unwanted")

    def __init__(self, sign: re.Pattern[bytes], unwanted: Callable[[bytes], bool]) -> None:
        self._sign = sign
        self._unwanted = unwanted
        self._held = b""  # of the event that is not complete
        self._until: re.Pattern[bytes] | None = None  # the end of what is let through as it comes
        self._seen = b""  # the last bytes of that, where its end may begin
        self._after_dropped_cr = False

    def feed(self, data: bytes) -> bytes:
        """What may go out, now that `data` has come."""
        if self._after_dropped_cr and data:
            self._after_dropped_cr = False
            data = data.removeprefix(b"\n")
        passed = b""
        if self._until is not None:
            passed, data = self._through(self._until, data)
        return passed + self._events(data) if data else passed

    def rest(self) -> bytes:
        """What is held of an event that will never be complete."""
        rest, self._held = self._held, b""
        return rest

    def _through(self, until: re.Pattern[bytes], data: bytes) -> tuple[bytes, bytes]:
        joined = self._seen + data
        end = until.search(joined)
        if end is None:
            self._seen = joined[-2:]
            return data, b""
        self._until = None
        size = end.end() - len(self._seen)
        return data[:size], data[size:]

    def _events(self, data: bytes) -> bytes:
        start = max(0, len(self._held) - 2)  # the held one's end may begin there
        text = self._held + data
        passed: list[bytes] = []
        begin = at = 0
        while sign := self._sign.search(text, at):
            event = _last_event(text, at, sign.start())
            if event > sign.start():  # It stands in a comment.
                at = event
                continue
            end = _EVENT_END.search(text, max(start, sign.start()))
            if end is None:
                break
            at = end.end()
            if self._is_unwanted(text[event:at]):
                passed.append(text[begin:event])
                begin = at
        self._after_dropped_cr = 0 < begin == len(text) and text.endswith(b"\r")
        at = _last_event(text, at, len(text))
        self._held = text[at:]
        passed.append(text[begin:at])
        if self._held.startswith(b":") or len(self._held) > MAX_FILTERED_BYTES + 2:
            passed.append(self._let_through())
        return b"".join(passed)

    def _let_through(self) -> bytes:
        self._until = _LINE_END if self._held.startswith(b":") else _EVENT_END
        self._seen = self._held[-2:]
        return self.rest()

    def _is_unwanted(self, event: bytes) -> bool:
        event = event.rstrip(b"\r\n")
        if len(event) > MAX_FILTERED_BYTES:
            return False
        data = _data(event.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        return data is not None and self._unwanted(data)


def _last_event(text: bytes, start: int, end: int) -> int:
    """Where the last event begins that does so in `text[start:end]`; comments are no part of it."""
    blank = max(text.rfind(lines, start, end) for lines in _BLANK_LINES)
    between = _BETWEEN.match(text, blank + 2 if blank >= 0 else start)
    return between.end() if between else start


def _plain_events(text: bytes) -> list[bytes] | None:
    """The data, if `text` is nothing but whole events of one `data: ` line each, else None."""
    if not text.startswith(b"data: ") or len(text) > MAX_EVENT_BYTES or _CR in text:
        return None
    if text.find(b"\n") == len(text) - 2 and text[-1] == _LF:
        return [text[6:-2]]
    if not text.endswith(b"\n\n"):
        return None
    events = text[6:-2].split(b"\n\ndata: ")
    return events if text.count(b"\n") == 2 * len(events) else None


def _data(block: bytes) -> bytes | None:
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in block.split(b"\n")
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
