"""Which conversations are in which arm: by chance, for good, and as many as was said."""

import json
import math
from typing import Any

import pytest
from conftest import Proxy, StartProxy
from fake_upstream import DONE, END, FakeUpstream, delta, stream_head, usage_chunk

from mintoken import admin, keys
from mintoken.arms import RETRIED, Arm, Assignment, assign
from mintoken.clock import utc_ms
from mintoken.exchange import Opening
from mintoken.models import Intensity
from mintoken.prompts import CONCISE, NO_WORDING, load_prompts
from mintoken.protocols.openai_chat import OpenAIChat
from mintoken.stores.sqlite import open_sqlite

PROMPTS = load_prompts()
WORDINGS = {
    Arm.PRODUCT: PROMPTS.wording(Intensity.FULL),
    Arm.CONTROL: NO_WORDING,
    Arm.CONCISE: CONCISE,
}
SECRET = b"s" * 32
MANY = 20_000


def opening(*pieces: str) -> Opening:
    data = [piece.encode() for piece in pieces]
    return Opening(pieces=tuple(map(memoryview, data)), text_bytes=sum(map(len, data)))


def arm(number: int, *, control: int = 0, concise: int = 0, key_id: str = "key") -> Assignment:
    begin = opening("You help.", f"Question {number}?")
    return assign(SECRET, key_id, begin, control=control, concise=concise)


@pytest.mark.parametrize(("control", "concise"), [(0, 0), (10, 0), (50, 0), (10, 5), (25, 25)])
def test_each_arm_has_its_share(control: int, concise: int) -> None:
    arms = [arm(n, control=control, concise=concise).arm for n in range(MANY)]
    for one, percent in ((Arm.CONTROL, control), (Arm.CONCISE, concise)):
        share = percent / 100
        # Five standard deviations of the binomial: the secret is fixed, so it is this or that.
        bound = 5 * math.sqrt(MANY * share * (1 - share))
        assert abs(arms.count(one) - MANY * share) <= bound
    assert arms.count(Arm.PRODUCT) == MANY - arms.count(Arm.CONTROL) - arms.count(Arm.CONCISE)


def test_a_conversation_stays_in_its_arm_and_shares_only_grow() -> None:
    for number in range(1000):
        before = arm(number, control=10, concise=10).arm
        assert arm(number, control=10, concise=10).arm is before
        if before is not Arm.PRODUCT:
            assert arm(number, control=25, concise=25).arm is before


def test_the_arm_depends_on_the_key_the_secret_and_the_opening_alone() -> None:
    openings = [opening(*pieces) for pieces in (("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""))]
    found = {assign(SECRET, "key", one, control=10, concise=0).conversation for one in openings}
    found.add(assign(SECRET, "other", openings[0], control=10, concise=0).conversation)
    found.add(assign(b"t" * 32, "key", openings[0], control=10, concise=0).conversation)
    assert len(found) == 6
    assert all(len(one) == 16 for one in found)


def test_what_is_stopped_is_tried_again_in_some_conversations_whatever_their_arm() -> None:
    for wanted in (Arm.PRODUCT, Arm.CONTROL):
        some = [one for one in (arm(n, control=50) for n in range(MANY)) if one.arm is wanted]
        share = sum(one.retries for one in some) / len(some)
        assert abs(share - RETRIED) < 5 * math.sqrt(RETRIED / len(some))


def test_an_assignment_is_the_same_in_every_version() -> None:
    # Or running conversations would change arms when the server is upgraded.
    assert arm(1, control=10) == Assignment(Arm.PRODUCT, "5e482d5d8c86c9f7", 20)


# What becomes of a request


def chat(*texts: str, content: str = "string", system: str = "") -> bytes:
    """A conversation's request, as odd as JSON may be."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for text in texts:
        said = text if content == "string" else [{"type": "text", "text": text}]
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": "Well."}]
    body = json.dumps({"model": "gpt-4o", "messages": messages[:-1]}, indent=1)
    return body[:-1].encode() + b', "seed": 1e0 }'


def texts_of(proxy: Proxy) -> dict[Arm, str]:
    """For each arm a first message that is in it."""
    secret = keys.server_secret(proxy.data_dir)
    asked = map("Question {}".format, range(100))
    openings = {text: OpenAIChat().read(chat(text)).opening() for text in asked}
    texts = {
        assign(secret, "key_1", begin, control=25, concise=25).arm: text
        for text, begin in openings.items()
    }
    assert set(texts) == set(WORDINGS)
    return texts


def told(answer: Any) -> tuple[str, str]:
    return answer.headers["X-Mintoken-Intensity"], answer.headers["X-Mintoken-Reason"]


@pytest.fixture
async def proxy(start_proxy: StartProxy) -> Proxy:
    return await start_proxy(key={"id": "key_1", "control": 25, "concise": 25})


async def test_each_arm_gets_what_it_is_for_in_every_turn_and_in_every_form(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    done = 0
    for arm, text in texts_of(proxy).items():
        wording = WORDINGS[arm]
        first = {"role": "system", "content": wording.text}
        added = json.dumps(first, separators=(",", ":")) + "," if wording.text else ""
        decided = ("full", "key") if arm is Arm.PRODUCT else ("none", "control")
        for turns in ([text], [text, "And then?"], [text, "And then?", "Why?"]):
            for content in ("string", "array"):
                body = chat(*turns, content=content)
                answer = await proxy.post(body)
                done += 1
                row = (await proxy.settled(done))[-1]
                sent = upstream.requests[-1].body
                assert sent == body.replace(b'"messages": [', b'"messages": [' + added.encode())
                assert told(answer) == decided
                assert (row["intensity"], row["reason"]) == decided
                assert (row["arm"], row["opening_bytes"]) == (arm, len(text))
                assert row["prompt_version"] == wording.version
                assert row["injected_tokens"] == wording.tokens
    by_conversation = {(row["conversation"], row["arm"]) for row in proxy.rows()}
    assert len(by_conversation) == 3


@pytest.mark.parametrize("where", ["header", "query"])
@pytest.mark.parametrize("level", [Intensity.NONE, Intensity.ULTRA])
async def test_what_the_caller_asks_for_is_done_and_his_arm_is_recorded(
    proxy: Proxy, upstream: FakeUpstream, where: str, level: Intensity
) -> None:
    query = f"?intensity={level}" if where == "query" else ""
    named = {"X-Mintoken-Intensity": level.value} if where == "header" else {}
    for done, (arm, text) in enumerate(texts_of(proxy).items(), start=1):
        answer = await proxy.session.post(
            f"{proxy.base_url}/chat/completions{query}",
            data=chat(text),
            headers={"Content-Type": "application/json"} | proxy.headers | named,
        )
        await answer.read()
        row = (await proxy.settled(done))[-1]
        assert told(answer) == (level, where)
        wording, sent = PROMPTS.wording(level), upstream.requests[-1].body
        assert (sent == chat(text)) == (level is Intensity.NONE)
        assert json.dumps(wording.text)[1:-1].encode() in sent
        assert (row["arm"], row["intensity"], row["reason"]) == (arm, level, where)
        assert (row["prompt_version"], row["injected_tokens"]) == (wording.version, wording.tokens)


async def test_a_stream_is_in_its_arm_too(proxy: Proxy, upstream: FakeUpstream) -> None:
    texts = texts_of(proxy)
    steps = [stream_head(), delta("Hi."), delta(finish="stop"), usage_chunk(7, 9), DONE, END]
    upstream.play(*steps)
    upstream.requests.clear()
    body = chat(texts[Arm.CONTROL])[:-1] + b', "stream": true}'
    answer = await proxy.post(body)
    assert told(answer) == ("none", "control")
    assert upstream.requests[0].body == body
    [row] = await proxy.settled()
    assert (row["arm"], row["output_tokens"]) == ("control", 9)


async def test_a_text_that_is_there_already_is_recorded_as_nothing(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    bodies = [chat(f"Q {n}", system="Be kind.\n\nAnswer concisely.") for n in range(40)]
    for body in bodies:
        await proxy.post(body)
    rows = await proxy.settled(len(bodies))
    there = [(row, body) for row, body in zip(rows, bodies, strict=True) if row["arm"] == "concise"]
    assert there
    sent = [one.body for one in upstream.requests]
    for row, body in there:
        assert body in sent
        assert (row["prompt_version"], row["injected_tokens"]) == ("", 0)


async def test_what_detection_leaves_alone_stays_in_its_arm(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"id": "key_1", "control": 25, "smart": True})
    for number in range(30):
        await proxy.post(chat(f"Translate this into German: {number}"))
    rows = await proxy.settled(30)
    assert {(row["arm"], row["intensity"], row["reason"]) for row in rows} == {
        ("product", "none", "detect:translate"),
        ("control", "none", "control"),
    }


async def test_without_an_experiment_or_messages_there_is_no_arm(
    start_proxy: StartProxy, proxy: Proxy
) -> None:
    plain = await start_proxy()
    await plain.post(chat("Hello"))
    await proxy.post(b'{"model":"gpt-4o","messages":[]}')
    for where in (plain, proxy):
        [row] = await where.settled()
        assert (row["arm"], row["conversation"], row["opening_bytes"]) == ("", "", 0)
    [row] = proxy.rows()
    assert row["reason"] == "no_messages"


async def test_a_large_body_is_in_an_arm_too(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"control": 50})
    bodies = [chat(f"{number}" + "x " * 400_000 + f"{number}") for number in range(8)]
    for body in bodies * 2:
        await proxy.post(body)
    rows = await proxy.settled(16)
    assert [row["arm"] for row in rows[:8]] == [row["arm"] for row in rows[8:]]
    assert len({row["conversation"] for row in rows}) == 8
    assert {row["opening_bytes"] for row in rows} == {800_002}


async def test_a_rotated_key_goes_on_with_the_experiment(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(
        key={"id": "key_1", "name": "test", "control": 40, "concise": 10, "auto_stop": False}
    )
    bodies = [chat(f"Question {number}") for number in range(20)]
    for body in bodies:
        await proxy.post(body)
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    first, second = [
        await admin.rotate_key(store, proxy.data_dir, "test", overlap_ms=0, now_ms=utc_ms())
        for _ in range(2)
    ]
    assert (second.key.control, second.key.concise, second.key.auto_stop) == (40, 10, False)
    asked = 20
    while (await proxy.post(bodies[0])).status == 200:
        asked += 1  # until the server knows of the rotation
    proxy.keys += [proxy.key, first.token]
    proxy.key = second.token
    for body in bodies:
        await proxy.post(body)
    rows = await proxy.settled(asked + 20)
    for before, after in zip(rows[:20], rows[-20:], strict=True):
        assert before["key_id"] == "key_1" != after["key_id"] == second.key.id
        for column in ("arm", "conversation", "opening_bytes"):
            assert before[column] == after[column]
    samples = await store.samples(experiments=[second.key.experiment])
    assert {one.key_id for one in samples} == {"key_1"}
    assert sum(one.conversations for one in samples) == 20
    await store.close()
