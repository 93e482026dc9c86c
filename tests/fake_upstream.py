"""A provider on a real port that plays a script: bytes, pauses, deaths and garbage."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import orjson

STALL = "stall"
"""Send nothing more until the other side closes."""
DIE = "die"
"""Reset the connection."""
CLOSE = "close"
"""Close the connection in an orderly way."""

Step = bytes | str | asyncio.Event


@dataclass
class Received:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection it came on is closed."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class FakeUpstream:
    """Plays one script per request, `default` when none is waiting; remembers every request."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.scripts: deque[list[Step]] = deque()
        self.default: list[Step] = [json_reply(completion())]
        self.arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def play(self, *steps: Step) -> None:
        """Answer the next request that has no script yet with these steps."""
        self.scripts.append(list(steps))

    async def received(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        received: list[Received] = []
        try:
            while (request := await _read_request(reader)) is not None:
                received.append(request)
                self.requests.append(request)
                async with self.arrived:
                    self.arrived.notify_all()
                if not await self._answer(request, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # asyncio's own callback cannot stand a task that was cancelled.
        finally:
            for request in received:
                request.gone.set()
            writer.close()
            self._tasks.discard(task)

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        script = self.scripts.popleft() if self.scripts else self.default
        for step in script:
            if isinstance(step, asyncio.Event):
                if await _closed_before(step, reader):
                    return False
            elif step == STALL:
                await reader.read(1)
                return False
            elif step == DIE:
                writer.transport.abort()
                return False
            elif step == CLOSE:
                return False
            else:
                assert isinstance(step, bytes)
                writer.write(step)
                await writer.drain()
        return True

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _closed_before(event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Wait for the event; True if the other side closed first."""
    waits, watch = asyncio.create_task(event.wait()), asyncio.create_task(reader.read(1))
    await asyncio.wait({waits, watch}, return_when=asyncio.FIRST_COMPLETED)
    closed = not waits.done()
    for task in (waits, watch):
        task.cancel()
    await asyncio.gather(waits, watch, return_exceptions=True)
    return closed


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = lines[0].split(" ")
    headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
    length = int(next((v for k, v in headers if k.lower() == "content-length"), "0"))
    return Received(method, target, headers, await reader.readexactly(length))  # type: ignore[arg-type]


Provider = TypeVar("Provider", bound=FakeUpstream)


@asynccontextmanager
async def fake_upstream(
    port: int = 0, *, kind: type[Provider] = FakeUpstream
) -> AsyncIterator[Provider]:
    upstream = kind()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", port)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()
        await server.wait_closed()


def completion(content: str | None = "Hello there.", **changes: object) -> dict[str, object]:
    """A chat completion of ten prompt and three completion tokens."""
    body: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }
    return body | changes


def reply(
    body: bytes,
    *,
    status: str = "200 OK",
    headers: Iterable[tuple[str, str]] = (),
    content_type: str = "application/json",
) -> bytes:
    """A whole HTTP response with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def json_reply(
    body: object, *, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    return reply(orjson.dumps(body), status=status, headers=headers)


def stream_head(*headers: tuple[str, str]) -> bytes:
    """The head of a chunked stream of events."""
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: object) -> bytes:
    """One server-sent event with JSON data."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def delta(content: str | None = None, *, finish: str | None = None, **more: object) -> bytes:
    """One chat completion chunk as an event in an HTTP chunk."""
    body = {} if content is None else {"content": content}
    return _part(choices=[{"index": 0, "delta": body | more, "finish_reason": finish}])


def usage_chunk(prompt: int, output: int) -> bytes:
    """The chunk without choices that carries the provider's usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return _part(choices=[], usage=usage)


def _part(**fields: object) -> bytes:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
    }
    return chunk(event(head | fields))


DONE = chunk(b"data: [DONE]\n\n")
END = b"0\r\n\r\n"
