"""The least that an aiohttp relay can do: no authentication, no counting, no errors of its own."""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web


class Bare:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    async def client(self, _: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._session:
            yield

    async def chat(self, request: web.Request) -> web.StreamResponse:
        url = self._upstream + request.path
        headers = {"Content-Type": request.headers["Content-Type"]}
        body = await request.read()
        async with self._session.post(url, data=body, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            response.content_length = answer.content_length
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response


if __name__ == "__main__":
    port, upstream, *on = sys.argv[1:]
    bare, app = Bare(upstream), web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", bare.chat)
    app.cleanup_ctx.append(bare.client)
    loop = uvloop.new_event_loop() if on == ["uvloop"] else None
    web.run_app(app, host="127.0.0.1", port=int(port), loop=loop, access_log=None, print=None)
