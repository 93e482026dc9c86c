"""Events out of bytes cut anywhere."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mintoken import sse
from mintoken.sse import EventFilter, EventParser

FRAGMENTS = (
    b"data: one",
    b"data:two",
    b"data:  spaced",
    b"data",
    b"data: ",
    b"data:",
    b"datax: no",
    b"event: delta",
    b"id: 7",
    b": comment",
    b":",
    b"unknown",
    b'data: {"a":"b: c"}',
    "data: é漢😀".encode(),
    b"\xef\xbb\xbf",
    b"data: \xff\x00",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r",
    b"\n\n",
    b"\ndata: x\n\ndata: y\n\n",
)
STREAMS = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join)


def lines_of(stream: bytes) -> list[bytes]:
    """Naively: every line, the last one being that which has not ended."""
    return re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))


def events_of(stream: bytes) -> list[bytes]:
    """Naively: the events of a whole stream, read line by line."""
    events, data = [], []
    for line in lines_of(stream)[:-1]:
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    return events


def stands_between_events(stream: bytes) -> bool:
    *lines, unended = lines_of(stream)
    block = []
    for line in lines:
        block = [*block, line] if line else []
    return not unended and all(line.startswith(b":") for line in block)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(stream) + 1) for place in places} | {len(stream)})
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=20))
def test_any_cut_gives_the_events_of_a_naive_reading(stream, places):
    parser = EventParser()
    events = [event for piece in cut(stream, places) for event in parser.feed(piece)]
    assert events == events_of(stream)
    assert parser.skipped == 0


@given(STREAMS)
def test_one_byte_at_a_time_gives_the_same_events_and_boundaries(stream):
    parser, events = EventParser(), []
    assert parser.at_boundary
    for end in range(1, len(stream) + 1):
        events += parser.feed(stream[end - 1 : end])
        assert parser.at_boundary is stands_between_events(stream[:end])
    assert events == events_of(stream)


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=20))
def test_events_above_the_cap_are_counted_and_not_kept_however_they_are_cut(stream, places):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "MAX_EVENT_BYTES", 12)
        whole, parser = EventParser(), EventParser()
        kept = whole.feed(stream + b"\n\n")
        events = []
        for piece in cut(stream + b"\n\n", places):
            events += parser.feed(piece)
            assert len(parser._tail) <= 13
    assert events == kept
    assert parser.skipped == whole.skipped
    assert all(len(event) <= 12 for event in kept)


SIGN = re.compile(b"no")


def unwanted(data: bytes) -> bool:
    return data in (b"no", b"a\nno")


DROPPED = (
    b"data: no\n\n",
    b"\r\ndata: no\r\n\r\n",
    b"data:no\r\r",
    b"data: a\ndata: no\n\n",
    b": no\n",
    b": no",
)
FILTERED = st.lists(st.sampled_from((*FRAGMENTS, *DROPPED * 3)), max_size=30).map(b"".join)


def without_unwanted(stream: bytes, limit: int = 1000) -> bytes:
    """Naively: line by line; blank lines and comments before an event are not part of it."""
    passed, block = b"", b""
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$", stream):
        if not block and line.startswith((b":", b"\r", b"\n")):
            passed += line
            continue
        block += line
        if not line.strip(b"\r\n"):
            drop = len(block.rstrip()) <= limit and unwanted(b"\n".join(events_of(b"\n" + block)))
            passed += b"" if drop else block
            block = b""
    return passed + block


@given(FILTERED, st.lists(st.integers(0, 1000), max_size=20))
def test_any_cut_of_a_stream_is_filtered_alike_and_nothing_else_is_lost(stream, places):
    events = EventFilter(SIGN, unwanted)
    passed = b"".join(map(events.feed, cut(stream, places))) + events.rest()
    assert passed == without_unwanted(stream)
    assert events.rest() == b""


@given(FILTERED)
def test_one_byte_at_a_time_is_filtered_alike_and_stands_between_events_where_the_source_does(
    stream,
):
    events, parser, passed = EventFilter(SIGN, unwanted), EventParser(), b""
    for end in range(1, len(stream) + 1):
        byte = stream[end - 1 : end]
        passed += events.feed(byte)
        parser.feed(byte)
        if parser.at_boundary and not stream.startswith(b"\xef\xbb\xbf"):
            assert passed == without_unwanted(stream[:end])
    assert passed + events.rest() == without_unwanted(stream)


@given(FILTERED, st.lists(st.integers(0, 1000), max_size=20))
def test_long_events_pass_unfiltered_however_they_are_cut(stream, places):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "MAX_FILTERED_BYTES", 8)  # as long as "data: no"
        whole = EventFilter(SIGN, unwanted)
        passed = whole.feed(stream) + whole.rest()
        events, pieces = EventFilter(SIGN, unwanted), b""
        for piece in cut(stream, places):
            pieces += events.feed(piece)
            assert len(events._held) <= 8 + 2
    assert passed == pieces + events.rest() == without_unwanted(stream, 8)


def test_what_cannot_be_unwanted_is_passed_on_at_once():
    events = EventFilter(SIGN, unwanted)
    assert events.feed(b": keep") == b": keep"
    assert events.feed(b"-alive\r") == b"-alive\r"
    assert events.feed(b"\n\r") == b"\n\r"
    assert events.feed(b"\ndata: a\r\n\r") == b"\ndata: a\r\n\r"
    assert events.feed(b"\ndata: no\r\n\r") == b"\n"
    assert events.feed(b"\n\ndata: b\n\ndata: n") == b"\ndata: b\n\n"
    assert events.feed(b"o\n\n") == b""
    assert events.feed(b"data: " + b"x" * sse.MAX_FILTERED_BYTES)[:7] == b"data: x"
    assert events.feed(b"yz") == b"yz"
    assert events.feed(b"\n") == b"\n"
    assert events.feed(b"\ndata: c") == b"\n"
    assert events.rest() == b"data: c"


def test_a_filtered_line_that_comes_byte_by_byte_is_read_in_linear_time():
    def seconds(size):
        events, start = EventFilter(SIGN, unwanted), time.process_time()
        for _ in range(size):
            events.feed(b"x")
        return time.process_time() - start

    seconds(10_000)
    assert seconds(200_000) < 60 * max(seconds(10_000), 0.001)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": keep-alive\n\ndata: a\n\n", [b"a"]),
        (b": OPENROUTER PROCESSING\n\n", []),
        (b"event: ping\n\n", []),
        (b"event: delta\nid: 1\nretry: 10\ndata: a\nfoo\n\n", [b"a"]),
        (b"data:\n\n", [b""]),
        (b"data\n\n", [b""]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n", []),
        (b"data: [DONE]\n\ndata: unfinished", [b"[DONE]"]),
        (b"", []),
    ],
)
def test_events_of_known_streams(stream, events):
    assert EventParser().feed(stream) == events


@pytest.mark.parametrize(
    ("stream", "boundary"),
    [
        (b"", True),
        (b"\xef\xbb", False),
        (b"\xef\xbb\xbf", True),
        (b"data: a", False),
        (b"data: a\n", False),
        (b"data: a\n\n", True),
        (b"data: a\r\n\r", True),
        (b": hello", False),
        (b": hello\n", True),
        (b": hello\n\n", True),
        (b"event: x\n", False),
        (b"data: a\n: hello\n", False),
        (b"\n", True),
    ],
)
def test_an_event_can_be_put_in_between_events_only(stream, boundary):
    parser = EventParser()
    parser.feed(stream)
    assert parser.at_boundary is boundary


def test_an_overlong_event_is_counted_and_the_next_one_is_read():
    parser = EventParser()
    size = 3 * sse.MAX_EVENT_BYTES
    for piece in cut(b"data: " + b"x" * size + b"\n\ndata: next\n\n", list(range(0, size, 65536))):
        events = parser.feed(piece)
        assert len(parser._tail) <= sse.MAX_EVENT_BYTES + 1
    assert events == [b"next"]
    assert parser.skipped == len(b"data: ") + size + 1
    assert parser.at_boundary


def test_an_event_of_just_the_cap_is_kept():
    data = b"x" * (sse.MAX_EVENT_BYTES - len(b"data: "))
    parser = EventParser()
    assert parser.feed(b"data: " + data) + parser.feed(b"\n") + parser.feed(b"\n") == [data]
    assert parser.skipped == 0


def test_an_endless_comment_is_not_kept():
    parser = EventParser()
    parser.feed(b"data: a\n\n:")
    for _ in range(100):
        parser.feed(b"x" * 65536)
    assert len(parser._tail) == 1
    assert parser.skipped == 0
    assert parser.feed(b"\n\ndata: b\n\n") == [b"b"]


def test_a_line_that_comes_byte_by_byte_is_read_in_linear_time():
    def seconds(size):
        parser, start = EventParser(), time.process_time()
        for _ in range(size):
            parser.feed(b"x")
        return time.process_time() - start

    seconds(10_000)
    assert seconds(200_000) < 60 * max(seconds(10_000), 0.001)
