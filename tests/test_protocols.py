"""One suite for every wire protocol."""

from pathlib import Path

import pytest

from mintoken.errors import Code, MintokenError
from mintoken.models import CountedBy, TokenUsage
from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.sse import EventParser

SAMPLES = Path(__file__).parent / "samples"
LEVELS = sorted((Path(__file__).parent.parent / "mintoken/data/prompts").glob("*.md"))
TEXTS = [path.read_text().strip() for path in LEVELS] + ['Be "brief".\n\\o/ é😀', "x"]

USAGE = TokenUsage(input=19, output=10, cached=8, counted_by=CountedBy.UPSTREAM)


@pytest.fixture(params=[OpenAIChat()], ids=lambda protocol: protocol.name)
def protocol(request):
    return request.param


@pytest.fixture
def sample(protocol):
    return lambda name: (SAMPLES / protocol.name / name).read_bytes()


def injected(protocol, body, text):
    return protocol.inject(body, protocol.read(body), text)


def test_the_path_is_a_route(protocol):
    assert protocol.path.startswith("/v1/")


def test_the_provider_key_goes_into_the_credential_and_not_into_a_repr(protocol):
    assert any("sk-canary" in value for value in protocol.credential("sk-canary").values())
    assert "sk-canary" not in repr(protocol)


def test_a_sample_request_is_read(protocol, sample):
    turn = protocol.read(sample("request.json"))
    assert turn.model
    assert turn.stream
    assert turn.cap == 300
    assert turn.inject_at is not None
    assert turn.prompt().texts


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_goes_into_a_sample_request_once_and_nothing_else_changes(protocol, sample, text):
    body = sample("request.json")
    changed = injected(protocol, body, text)
    at, size = protocol.read(body).inject_at, len(changed) - len(body)
    assert size > len(text)
    assert changed[:at] + changed[at + size :] == body
    assert injected(protocol, changed, text) == changed
    assert injected(protocol, body, text) == changed


@pytest.mark.parametrize("text", ["", *TEXTS])
def test_a_question_for_the_usage_goes_in_once_and_nothing_else_changes(protocol, sample, text):
    body = sample("request.json")
    turn = protocol.read(body)
    question = turn.usage_question
    assert question
    changed = protocol.inject(body, turn, text, ask_usage=True)
    assert changed.count(question) == 1
    assert changed.replace(question, b"", 1) == injected(protocol, body, text)
    assert protocol.read(changed).usage_question == b""


def test_the_answer_to_that_question_is_told_from_every_other_event(protocol, sample):
    meter = protocol.meter()
    events = EventParser().feed(sample("stream.sse"))
    assert [meter.only_usage(event) for event in events] == [False] * (len(events) - 2) + [
        True,
        False,
    ]
    assert not meter.only_usage(sample("error.json"))


def test_a_sample_answer_is_metered(protocol, sample):
    meter = protocol.meter()
    meter.feed_body(sample("reply.json"))
    spoken = meter.spoken()
    assert spoken.done
    assert not spoken.failed
    assert (spoken.model, spoken.finish_reason) == ("gpt-4o-2024-08-06", "stop")
    assert spoken.text == "Hello! How can I assist you today?"
    assert spoken.usage == USAGE


def test_a_sample_stream_is_metered(protocol, sample):
    meter, parser = protocol.meter(), EventParser()
    assert not meter.spoken().done
    for event in parser.feed(sample("stream.sse")):
        meter.feed([event])
    spoken = meter.spoken()
    assert parser.at_boundary
    assert spoken.done
    assert spoken.text == "Hello! How can I assist you today?"
    assert (spoken.model, spoken.finish_reason) == ("gpt-4o-2024-08-06", "stop")
    assert spoken.usage == USAGE


def test_a_sample_error_is_a_failure(protocol, sample):
    meter = protocol.meter()
    meter.feed_body(sample("error.json"))
    assert meter.spoken().failed


def test_an_unfinished_answer_is_not_done(protocol, sample):
    meter, parser = protocol.meter(), EventParser()
    for event in parser.feed(sample("stream.sse").replace(b"data: [DONE]\n\n", b"")):
        meter.feed([event])
    assert not meter.spoken().done
    meter.feed_body(sample("reply.json")[:-20])
    assert not meter.spoken().done


@pytest.mark.parametrize("code", Code)
def test_an_error_is_one_event_of_a_stream_too(protocol, code):
    error = MintokenError(code, "Line\nbreak é.", param="messages")
    body = protocol.error(error, in_stream=False)
    (event,) = EventParser().feed(protocol.error(error, in_stream=True))
    assert event == body
    meter = protocol.meter()
    meter.feed([event])
    assert meter.spoken().failed
