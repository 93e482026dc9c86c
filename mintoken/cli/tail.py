"""`mintoken tail`: the live feed in the terminal."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any

import aiohttp
import typer
from aiohttp_sse_client.client import EventSource

from mintoken.cli.base import AsJson

PAUSE_S = 1.0
"""Seconds before it connects again."""
KEY = "MINTOKEN_TOKEN"
WIDTHS = {
    "started_at": 20, "key_name": 16, "model": 24, "intensity": 6, "reason": 24, "outcome": 16,
    "input_tokens": 12, "output_tokens": 13, "duration_ms": 11,
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
        print(_line({name: name for name in WIDTHS}))
    async for event in events(url, token, tell=lambda what: print(what, file=sys.stderr)):
        print(json.dumps(event) if as_json else _line(event), flush=True)


async def events(
    url: str, token: str, *, tell: Callable[[str], None], pause_s: float = PAUSE_S
) -> AsyncIterator[dict[str, Any]]:
    """The account's requests as they are settled, none lost and none twice, for ever.

    `tell` is told when the connection broke. Raises typer.BadParameter where the key is of no use.
    """
    place = ""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            headers = {"Authorization": f"Bearer {token}"}
            try:
                await _check_key(session, url, headers)
                if place:
                    headers["Last-Event-ID"] = place
                async with EventSource(
                    f"{url}/api/events", session=session, headers=headers, max_connect_retry=0
                ) as source:
                    async for event in source:
                        place = event.last_event_id
                        if event.type != "begin":
                            yield json.loads(event.data)
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                tell(f"{url} does not answer. Trying again ...")
            await asyncio.sleep(pause_s)


async def _check_key(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
    async with session.get(f"{url}/api/me", headers=headers) as answer:
        if answer.status == 404:
            raise typer.BadParameter(f"{url} is no admin listener.", param_hint="--url")
        if answer.status in (401, 403):
            raise typer.BadParameter("This is no admin key that is in use.", param_hint="--key")
        answer.raise_for_status()


def _line(event: Mapping[str, Any]) -> str:
    """One line; whatever a caller named his model, it does not steer the terminal."""
    cells = (
        "".join(one if one.isprintable() else "\ufffd" for one in str(event[name]))[:width]
        for name, width in WIDTHS.items()
    )
    return "  ".join(
        cell.rjust(width) if name.endswith(("tokens", "_ms")) else cell.ljust(width)
        for cell, (name, width) in zip(cells, WIDTHS.items(), strict=True)
    ).rstrip()
