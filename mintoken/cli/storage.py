"""`mintoken backup` and `mintoken purge`: what an operator does to the database as a whole."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from mintoken import admin, tables
from mintoken.cli.base import AsJson, ConfigPath, checked_month, configured, in_store, show
from mintoken.clock import month_of, utc_ms
from mintoken.keys import SECRET_FILE, copy_secret
from mintoken.stores.base import Store
from mintoken.stores.sqlite import DATABASE_FILE
from mintoken.stores.sqlite_backup import back_up

BATCH_ROWS = 250
"""Rows deleted at a time, so that a running server waits for some milliseconds only."""


def backup(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The new file; it must not be there yet.")
    ],
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Copy the database while it is in use, check the copy, and put the server's secret beside."""
    if not path.name or path.is_dir():
        raise admin.RefusedError(f"{path} is a folder. Name a new file in it.")
    if not path.parent.is_dir():
        raise admin.RefusedError(f"There is no folder {path.parent}. Make it first.")
    options = configured(config)
    data_dir = options.storage.data_dir
    in_store(options, admin.everything, looks=True)  # Refuses what is no good database.
    secret = path.with_name(f"{path.name}.{SECRET_FILE}") if _has_secret(data_dir) else None
    try:
        with ExitStack() as undo:
            if secret and copy_secret(data_dir, secret):
                undo.callback(secret.unlink)
            with tables.progress("Copying {task.percentage:.0f} %", total=1.0) as tell:
                size = back_up(data_dir / DATABASE_FILE, path, progress=tell)
            undo.pop_all()
    except FileExistsError as error:
        raise admin.RefusedError(
            f"{error.filename2 or error.filename} is there already, and a backup overwrites "
            "nothing. Name another file."
        ) from error
    document = {"path": str(path), "bytes": size, "server_secret": str(secret) if secret else None}
    sentence = f"{path} is a whole and checked copy of the database ({size:,} bytes)."
    if secret:
        sentence += f"\nKeep {secret} with it: no key in the copy works without it."
    show(document, sentence, as_json=as_json)


def _has_secret(data_dir: Path) -> bool:
    return (data_dir / SECRET_FILE).exists()


def purge(
    before: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="The first month (UTC) that is kept.")
    ],
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Delete the usage rows of months before one; what they add up to is kept."""
    if checked_month(before, "--before") > (present := month_of(utc_ms())):
        raise typer.BadParameter(
            f"The present month is {present}, and its rows are needed. Give it or an earlier one.",
            param_hint="--before",
        )
    with tables.progress("Purging: {task.completed:,.0f} rows", total=None) as tell:
        rows = in_store(configured(config), lambda store: _purge(store, before, tell), looks=True)
    sentence = f"{rows:,} usage rows of months before {before} are deleted, their sums are kept."
    show({"before": before, "rows": rows}, sentence, as_json=as_json)


async def _purge(store: Store, before: str, tell: Callable[[float], None]) -> int:
    rows, deleted = 0, BATCH_ROWS
    while deleted == BATCH_ROWS:
        began = time.monotonic()
        deleted = await store.purge(before=before, limit=BATCH_ROWS)
        rows += deleted
        tell(rows)
        # A server that waits for the lock gets it now.
        await asyncio.sleep(time.monotonic() - began)
    return rows
