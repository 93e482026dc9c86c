"""The whole path without a network: a stand-in provider, the proxy before it, two answers."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NoReturn

import aiohttp
import orjson
from aiohttp_sse_client.client import EventSource

from mintoken import admin, logs, tables
from mintoken.clock import month_of, utc_ms
from mintoken.config import Config, ServerConfig, StorageConfig, UpstreamConfig
from mintoken.models import Intensity
from mintoken.options import Address
from mintoken.reports import GroupBy
from mintoken.server import running
from mintoken.stand_in import MODEL, QUESTION, stand_in
from mintoken.stores.sqlite import SqliteStore, open_sqlite

REQUEST = {
    "model": MODEL,
    "messages": [{"role": "user", "content": QUESTION}],
    "stream": True,
}
SHOWN = (Intensity.NONE, Intensity.FULL)
NOTE = (
    "The stand-in's answers are canned. The saving shows how it works; it is no measurement "
    "of what a real model would save."
)
USAGE_COLUMNS = {
    "group": "Key",
    "requests": "Requests",
    "input_tokens": "Input",
    "injected_tokens": "of it injected",
    "output_tokens": "Output",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back through the proxy: the streamed text, and Mintoken's own headers."""

    intensity: Intensity
    text: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the demo showed; each usage row is that of the answer in its place."""

    answers: list[Answer]
    usage: list[dict[str, object]]
    saving: dict[str, object]


def run_demo(*, as_json: bool = False, pace_s: float = 0.012) -> None:
    """Tell the story on stdout as it happens, one word every `pace_s`; or print it as JSON."""
    # The proxy's own log would stand in the middle of the story.
    logs.configure(io.StringIO())
    if as_json:
        story = asyncio.run(tell(lambda _: None, pace_s=0))
        tables.print_json({"note": NOTE, "question": QUESTION} | asdict(story))
        return
    story = asyncio.run(tell(_print_now, pace_s=pace_s))
    print("\nWhat Mintoken recorded:")
    tables.print_table(story.usage, USAGE_COLUMNS)
    print(
        "{output_tokens} output tokens less ({output_percent} %), for {injected_tokens} more input "
        "tokens.".format(**story.saving)
    )
    print(NOTE)


def _print_now(text: str) -> None:
    print(text, end="", flush=True)


async def tell(say: Say, *, pace_s: float) -> Story:
    """Ask the same question without compression and with it, and add up."""
    async with stand_in(pace_s) as provider:
        with TemporaryDirectory(prefix="mintoken-demo-") as folder:
            config = Config(
                server=ServerConfig(
                    listen=Address("127.0.0.1", 0), admin_listen=Address("127.0.0.1", 0)
                ),
                upstream=UpstreamConfig(base_url=provider),
                storage=StorageConfig(data_dir=Path(folder)),
            )
            keys = [await _key(config, intensity) for intensity in SHOWN]
            say(f"The provider is a stand-in on this machine. It is asked: {QUESTION}\n")
            async with running(config) as listening:
                url = f"http://{listening.public}/v1/chat/completions"
                answers = [await ask(url, *one, say) for one in zip(keys, SHOWN, strict=True)]
            usage = await _usage(config)
    return Story(answers, usage, _saving(usage))


async def _key(config: Config, intensity: Intensity) -> str:
    """A key for one answer, so that the usage by key is that of the answer."""
    store = await _open(config)
    try:
        settings = admin.KeySettings(name=f"demo, {intensity}")
        issued = await admin.create_key(
            store, config.storage.data_dir, admin.FIRST_ACCOUNT, settings, now_ms=utc_ms()
        )
        return issued.token
    finally:
        await store.close()


async def _usage(config: Config) -> list[dict[str, object]]:
    store = await _open(config)
    try:
        lines = await store.report(month=month_of(utc_ms()), group_by=GroupBy.KEY)
        names = {key.id: key.name for key in (await admin.everything(store)).keys}
    finally:
        await store.close()
    order = [f"demo, {intensity}" for intensity in SHOWN]
    rows = [asdict(line) | {"group": names[line.group]} for line in lines]
    return sorted(rows, key=lambda row: order.index(str(row["group"])))


def _open(config: Config) -> Awaitable[SqliteStore]:
    return open_sqlite(config.storage.data_dir, clock_ms=utc_ms)


def _saving(usage: list[dict[str, Any]]) -> dict[str, object]:
    without, compressed = usage
    saved = without["output_tokens"] - compressed["output_tokens"]
    return {
        "output_tokens": saved,
        "output_percent": round(100 * saved / without["output_tokens"]),
        "injected_tokens": compressed["injected_tokens"],
    }


async def ask(url: str, token: str, intensity: Intensity, say: Say) -> Answer:
    """Stream one chat through the proxy; `say` gets the text as it arrives.

    Raises ConnectionError when it does not come to its end.
    """
    heads: list[Mapping[str, str]] = []
    async with (
        aiohttp.ClientSession(trace_configs=[_noting_headers(heads)]) as session,
        EventSource(
            url,
            option={"method": "POST"},
            session=session,
            on_error=_broke_off,
            headers={
                "Authorization": f"Bearer {token}",
                "X-Provider-Key": "sk-stand-in-needs-none",
                "X-Mintoken-Intensity": intensity.value,
            },
            json=REQUEST,
        ) as events,
    ):
        headers = {
            str(name): value for name, value in heads[0].items() if name.startswith("X-Mintoken")
        }
        say(f"\n--- {intensity} ---\n" + "".join(f"{n}: {v}\n" for n, v in headers.items()) + "\n")
        text = ""
        async for event in events:
            if event.data == "[DONE]":
                break
            piece = _text(event.data)
            text += piece
            say(piece)
    say("\n")
    return Answer(intensity, text, headers)


def _noting_headers(heads: list[Mapping[str, str]]) -> aiohttp.TraceConfig:
    """EventSource keeps the response to itself, so its headers are read on their way to it."""

    async def note(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        end: aiohttp.TraceRequestEndParams,
    ) -> None:
        heads.append(end.response.headers)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    return trace


def _broke_off() -> NoReturn:
    # EventSource would ask again, for ever; a chat that is asked twice is paid for twice.
    raise ConnectionError("The answer broke off.")


def _text(data: str) -> str:
    choices = orjson.loads(data)["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""
