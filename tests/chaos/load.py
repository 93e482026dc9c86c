"""A provider and callers that take little of the machine, and keep count of what happened."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from conftest import CHAT, Served
from fake_upstream import DONE, END, completion, delta, json_reply, stream_head, usage_chunk


class Provider:
    """Answers every request at once, and remembers the ids of all."""

    def __init__(self, *, tokens: int = 3) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
        self.whole = json_reply(completion(usage=usage))
        self.stream = [stream_head(), delta("a"), delta("b") + usage_chunk(10, tokens) + DONE + END]
        self.ids: list[str] = []
        self.connections: set[asyncio.Transport] = set()
        self.base_url = ""


class _Connection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._seen = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._provider.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._provider.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end or len(body) < int(_value(head, b"Content-Length")):
            return
        self._provider.ids.append(_value(head, b"X-Client-Request-Id").decode())
        self._seen.clear()
        if b'"stream":true' in body or b'"stream": true' in body:
            self._say(*self._provider.stream)
        else:
            self._transport.write(self._provider.whole)

    def _say(self, piece: bytes, *rest: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(piece)
            if rest:
                asyncio.get_running_loop().call_later(0.005, self._say, *rest)


def _value(head: bytes | bytearray, name: bytes) -> bytes:
    start = head.index(name + b": ") + len(name) + 2
    end = head.find(b"\r", start)
    return bytes(head[start : end if end >= 0 else None])


@asynccontextmanager
async def lean_provider(*, tokens: int = 3) -> AsyncIterator[Provider]:
    """The provider on a port of its own."""
    provider = Provider(tokens=tokens)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(provider), "127.0.0.1", 0
    )
    provider.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield provider
    finally:
        server.close()
        for connection in provider.connections:
            connection.abort()
        await server.wait_closed()
        await asyncio.sleep(0)


class Callers:
    """So many callers that ask again and again, every second one for a stream."""

    def __init__(self, served: Served, count: int) -> None:
        self._served = served
        self._count = count
        self._stopped = asyncio.Event()
        self.outcomes: Counter[object] = Counter()
        """How often each status came, or each kind of failure."""

    @asynccontextmanager
    async def asking(self) -> AsyncIterator["Callers"]:
        """They ask while this lasts."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector,
            headers=self._served.headers,
            timeout=aiohttp.ClientTimeout(total=20),
        ) as session:
            tasks = [asyncio.create_task(self._ask(session, n)) for n in range(self._count)]
            try:
                yield self
            finally:
                self._stopped.set()
                await asyncio.gather(*tasks)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        url = f"{self._served.url}/v1/chat/completions"
        body = CHAT | {"stream": number % 2 == 0, "max_tokens": 50}
        while not self._stopped.is_set():
            try:
                async with session.post(url, json=body) as answer:
                    await answer.read()
                self.outcomes[answer.status] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                self.outcomes[type(error).__name__] += 1
                await asyncio.sleep(0.01)  # Nobody is there just now.


class _Asker(asyncio.Protocol):
    """One connection that asks until all has been asked."""

    def __init__(self, request: bytes, turns: Iterator[int], done: asyncio.Future[None]) -> None:
        self._request = request
        self._turns = turns
        self._done = done
        self._seen = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        if next(self._turns, None) is None:
            self._transport.close()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if end and _is_whole(head, body):
            assert head.startswith(b"HTTP/1.1 200 OK")
            self._seen.clear()
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


def _is_whole(head: bytes | bytearray, body: bytes | bytearray) -> bool:
    if b"Transfer-Encoding: chunked" in head:
        return body.endswith(b"\r\n0\r\n\r\n")
    return len(body) >= int(_value(head, b"Content-Length"))


async def ask_many(
    served: Served, count: int, *, connections: int = 32, stream: bool = False
) -> None:
    """So many requests, over connections that stay open; each must be answered with 200."""
    loop = asyncio.get_running_loop()
    body = orjson.dumps(CHAT | {"stream": stream})
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: mintoken",
        "Content-Type: application/json",
    ]
    lines += [f"{name}: {value}" for name, value in served.headers.items()]
    request = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    turns, ends = iter(range(count)), [loop.create_future() for _ in range(connections)]
    for end in ends:
        await loop.create_connection(
            lambda end=end: _Asker(request, turns, end), "127.0.0.1", served.port
        )
    await asyncio.gather(*ends)
    assert next(turns, None) is None
