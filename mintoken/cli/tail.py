"""`mintoken tail`: the live feed in the terminal."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import aiohttp
import typer
from aiohttp_sse_client.client import EventSource

from mintoken.cli.base import AsJson
from mintoken.tables import console

PAUSE_S = 1.0
"""Seconds before it connects again."""
KEY = "MINTOKEN_ADMIN_KEY"
WIDTHS = {
    "started_at": 20, "key_name": 16, "model": 24, "intensity": 6, "reason": 24, "outcome": 16,
    "input_tokens": 8, "output_tokens": 8, "duration_ms": 8,
}  # fmt: skip


def tail(
    url: Annotated[
        str, typer.Option(metavar="URL", help="Where the admin listener is.")
    ] = "http://127.0.0.1:8788",
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help=f"An admin key; better in ${KEY}.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show each request when it has ended, until Ctrl-C; a broken connection is taken up again."""
    token = key or os.environ.get(KEY, "")
    if not token:
        raise typer.BadParameter(
            f"Give an admin key, or put it into ${KEY}. One is made by: mintoken admin-keys create",
            param_hint="--key",
        )
    try:
        asyncio.run(_follow(url.rstrip("/"), token, as_json=as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _follow(url: str, token: str, *, as_json: bool) -> None:
    if not as_json:
        print(_line({name: name.removesuffix("_at") for name in WIDTHS}))
    async for event in events(url, token):
        print(json.dumps(event) if as_json else _line(event), flush=True)


async def events(url: str, token: str) -> AsyncIterator[dict[str, Any]]:
    """The account's requests as they are settled, none lost and none twice.

    Raises typer.BadParameter where asking again is of no use.
    """
    place = ""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            headers = {"Authorization": f"Bearer {token}"}
            headers |= {"Last-Event-ID": place} if place else {}
            try:
                await _check(session, f"{url}/api/events", headers)
                source = EventSource(
                    f"{url}/api/events", session=session, headers=headers, max_connect_retry=0
                )
                async with source:
                    async for event in source:
                        place = event.last_event_id or place
                        if event.type == "message" and event.data:
                            yield json.loads(event.data)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                console(__import__("sys").stderr).print(f"{_why(error)} Connecting again ...")
            await asyncio.sleep(PAUSE_S)
