"""A provider's prompt cache hits as often through Mintoken as it does directly."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import aiohttp
import pytest
from conftest import PROVIDER_CANARY, Proxy, StartProxy, usage_rows
from fake_upstream import FakeUpstream, Received, completion, fake_upstream, json_reply

from mintoken.models import Intensity

CONVERSATIONS, TURNS = 10, 6
BLOCK_TOKENS, LEAST_TOKENS = 128, 1024
"""As OpenAI documents its cache: prefixes from 1,024 tokens on, by 128."""
TOKEN_CHARACTERS = 4
WITHIN = 0.01
SYSTEM = " ".join(Random("system").choices(("act", "answer", "kindly", "only", "when"), k=1500))

Messages = list[dict[str, Any]]


class Caching(FakeUpstream):
    """A provider that knows the prefixes of prompts again, and tells how much it knew."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[bytes] = set()
        self.prompt_tokens = self.cached_tokens = 0

    def forget(self) -> None:
        self.known.clear()
        self.prompt_tokens = self.cached_tokens = 0

    @property
    def hit_ratio(self) -> float:
        return self.cached_tokens / self.prompt_tokens

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        prompt = rendered(json.loads(request.body)["messages"])
        prefixes = list(blocks(prompt))
        known = sum(prefix in self.known for prefix in prefixes) * BLOCK_TOKENS
        cached = known if known >= LEAST_TOKENS else 0
        self.known.update(prefixes)
        tokens = len(prompt) // TOKEN_CHARACTERS
        self.prompt_tokens += tokens
        self.cached_tokens += cached
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        writer.write(json_reply(completion(f"Answer {tokens % 7}.", usage=usage)))
        await writer.drain()
        return True


def rendered(messages: Messages) -> str:
    """What the model reads: roles and texts, however they were sent."""
    said = []
    for message in messages:
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        said.append(f"<{message['role']}>{''.join(texts)}</>")
    return "".join(said)


def blocks(prompt: str) -> Iterator[bytes]:
    """The hash of each prefix of whole blocks."""
    hashed, size = hashlib.blake2b(digest_size=16), BLOCK_TOKENS * TOKEN_CHARACTERS
    for end in range(size, len(prompt) + 1, size):
        hashed.update(prompt[end - size : end].encode())
        yield hashed.digest()


@pytest.fixture
async def upstream() -> AsyncIterator[Caching]:
    async with fake_upstream(kind=Caching) as provider:
        yield provider


def message(role: str, text: str, content: str, *, last: bool = False) -> dict[str, Any]:
    if content == "string":
        return {"role": role, "content": text}
    part: dict[str, Any] = {"type": "text", "text": text}
    # Clients put their breakpoint on the newest message, and take it away from the one before.
    breakpoint_ = {"cache_control": {"type": "ephemeral"}} if last else {}
    return {"role": role, "content": [part | breakpoint_]}


def said(number: int, turn: int) -> str:
    words = ("why", "how", "what", "river", "lamp", "engine", "of", "the")
    return " ".join(Random(f"{number} {turn}").choices(words, k=700))


def conversation(number: int, turns: int, content: str, system: str) -> Messages:
    messages = [message("system", system, content)] if system else []
    for turn in range(turns):
        is_last = turn == turns - 1
        messages.append(message("user", said(number, turn), content, last=is_last))
        messages.append(message("assistant", f"Answer {turn}. " + said(turn, number), content))
    return messages[:-1]


async def replay(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], content: str, system: str
) -> None:
    """Conversations beside each other, turn by turn."""

    async def ask(number: int, turns: int) -> None:
        body = {"model": "gpt-4o", "messages": conversation(number, turns, content, system)}
        async with session.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200
            await answer.read()

    for turns in range(1, TURNS + 1):
        await asyncio.gather(*(ask(number, turns) for number in range(CONVERSATIONS)))


async def ratios(
    proxy: Proxy, upstream: Caching, content: str, system: str, **headers: str
) -> tuple[float, float]:
    """How much of the prompts came from the cache directly, and through Mintoken by its rows."""
    direct = {"Authorization": f"Bearer {PROVIDER_CANARY}"}
    upstream.forget()
    await replay(proxy.session, upstream.base_url, direct, content, system)
    directly = upstream.hit_ratio
    upstream.forget()
    before = len(usage_rows(proxy.data_dir))
    await replay(proxy.session, proxy.base_url, proxy.headers | headers, content, system)
    rows = await proxy.settled(before + CONVERSATIONS * TURNS)
    cached = sum(row["cached_tokens"] for row in rows[before:])
    assert cached == upstream.cached_tokens
    assert sum(row["input_tokens"] for row in rows[before:]) == upstream.prompt_tokens
    return directly, upstream.hit_ratio


@pytest.mark.parametrize("level", Intensity)
@pytest.mark.parametrize("content", ["string", "array"])
@pytest.mark.parametrize("system", [SYSTEM, ""], ids=["system", "no system"])
async def test_every_level_leaves_the_prompt_cache_its_hits(
    proxy: Proxy, upstream: Caching, level: Intensity, content: str, system: str
) -> None:
    headers = {"X-Mintoken-Intensity": level.value}
    directly, through = await ratios(proxy, upstream, content, system, **headers)
    assert directly > 0.5
    assert abs(through / directly - 1) <= WITHIN


@pytest.mark.parametrize(
    "key",
    [{"smart": True}, {"control": 25, "concise": 25}, {"smart": True, "control": 50}],
    ids=["smart", "experiment", "both"],
)
@pytest.mark.parametrize("content", ["string", "array"])
async def test_what_is_chosen_by_conversation_leaves_it_its_hits_too(
    start_proxy: StartProxy, upstream: Caching, key: dict[str, Any], content: str
) -> None:
    proxy = await start_proxy(key=key)
    directly, through = await ratios(proxy, upstream, content, SYSTEM)
    assert abs(through / directly - 1) <= WITHIN


async def test_the_replay_shows_a_level_that_changes_from_turn_to_turn(
    proxy: Proxy, upstream: Caching
) -> None:
    """Or it would show nothing of the others."""
    levels = ["lite", "ultra"]
    upstream.forget()
    for turns in range(1, TURNS + 1):
        for number in range(CONVERSATIONS):
            body = {"model": "gpt-4o", "messages": conversation(number, turns, "string", SYSTEM)}
            await proxy.post(body, X_Mintoken_Intensity=levels[turns % 2])
    changing = upstream.hit_ratio
    directly, through = await ratios(
        proxy, upstream, "string", SYSTEM, **{"X-Mintoken-Intensity": "lite"}
    )
    assert abs(through / directly - 1) <= WITHIN
    assert changing < 0.8 * directly
