"""A provider without a model: it streams canned answers, as long as the system text asks for."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from mintoken.models import Intensity
from mintoken.prompts import load_prompts
from mintoken.tokens import Tokenizer

MODEL = "gpt-4o"
QUESTION = 'Why does SQLite say "database is locked"?'
"""The one question that the answers answer."""
ANSWERS = {
    Intensity.NONE: """\
Great question! The "database is locked" error is one that almost everybody who works with SQLite \
runs into sooner or later, so you are in good company.

To understand it, it helps to know that SQLite allows many readers at the same time, but only one \
writer. When one connection holds the write lock and a second one wants to write, the second one \
has to wait. If it is not allowed to wait, or has waited for longer than its timeout, SQLite gives \
up and reports SQLITE_BUSY, which your driver shows to you as "database is locked".

Here are the things that you can do about it:

1. **Set a busy timeout.** With `PRAGMA busy_timeout = 5000` a connection waits for up to five \
seconds before it gives up. The default of SQLite itself is not to wait at all.
2. **Switch to WAL mode.** With `PRAGMA journal_mode = WAL` readers no longer block the writer, \
and the writer no longer blocks readers.
3. **Keep transactions short.** Do not hold a write transaction open while you wait for a network, \
for a user or for anything else that is slow.
4. **Begin with `BEGIN IMMEDIATE`** when you know that you are going to write, so that you wait at \
the beginning and not in the middle.

In summary: somebody else is writing, and your connection did not wait for long enough. I hope \
that this helps! Let me know if you would like to see an example in your programming language.""",
    Intensity.LITE: """\
Another connection holds the write lock, and yours did not wait for it. SQLite allows many readers \
but one writer.

Set `PRAGMA busy_timeout = 5000` so that connections wait, use `PRAGMA journal_mode = WAL` so that \
readers and the writer do not block each other, and keep transactions short. Start those that \
write with `BEGIN IMMEDIATE`.""",
    Intensity.FULL: """\
Another connection holds write lock; yours did not wait long enough. Many readers, one writer.

- `PRAGMA busy_timeout = 5000`: waits up to 5 s (default: not at all)
- `PRAGMA journal_mode = WAL`: readers and writer stop blocking each other
- short write transactions, no network waits inside
- `BEGIN IMMEDIATE` when going to write""",
    Intensity.ULTRA: """\
Other connection writing; no wait. `PRAGMA busy_timeout = 5000`, WAL, short transactions.""",
}


Say = Callable[[list[dict[str, str]]], str]


def canned(messages: list[dict[str, str]]) -> str:
    """The answer to the one question, by what the system text asks for."""
    return ANSWERS[_level(messages)]


@asynccontextmanager
async def stand_in(pace_s: float, say: Say = canned) -> AsyncIterator[str]:
    """A provider on a free port that answers like OpenAI what `say` makes of the messages; its
    base URL. A stream has one word every `pace_s`.
    """
    tokenizer = Tokenizer(None)
    await asyncio.to_thread(tokenizer.load)

    async def chat(request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        answer = say(asked["messages"])
        usage = _usage(tokenizer, asked["messages"], answer)
        if not asked.get("stream"):
            return web.json_response(body=_completion(answer, usage))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in re.findall(r"\S+\s*", answer):
            await response.write(_event(choices=[{"index": 0, "delta": {"content": word}}]))
            await asyncio.sleep(pace_s)
        ending = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(_event(choices=[ending]))
        await response.write(_event(choices=[], usage=usage) + b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1"
    finally:
        await runner.cleanup()
        tokenizer.close()


def _level(messages: list[dict[str, str]]) -> Intensity:
    """Which of Mintoken's texts the system text has at its end."""
    system = "".join(one["content"] for one in messages if one["role"] == "system")
    prompts = load_prompts()
    levels = (level for level in Intensity if level is not Intensity.NONE)
    return next((at for at in levels if system.endswith(prompts.text(at))), Intensity.NONE)


def _usage(tokenizer: Tokenizer, messages: list[dict[str, str]], answer: str) -> dict[str, int]:
    return {
        "prompt_tokens": tokenizer.count("".join(one["content"] for one in messages), MODEL),
        "completion_tokens": tokenizer.count(answer, MODEL),
    }


def _completion(answer: str, usage: dict[str, int]) -> bytes:
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "chatcmpl-demo", "object": "chat.completion", "model": MODEL}
    return orjson.dumps(head | {"choices": [choice], "usage": usage})


def _event(**fields: object) -> bytes:
    chunk = {"id": "chatcmpl-demo", "object": "chat.completion.chunk", "model": MODEL} | fields
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
