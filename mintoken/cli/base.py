"""What the commands share: options, the open store, the clock, and how one record is shown."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from mintoken import admin, tables
from mintoken.clock import utc_ms
from mintoken.config import Config, load_config
from mintoken.errors import StorageError
from mintoken.models import Directory
from mintoken.people import Role
from mintoken.stores.base import Store
from mintoken.stores.sqlite import DATABASE_FILE, open_sqlite

NOTHING_GIVEN = "Give at least one option that says what to change."

_T = TypeVar("_T")


def _remembered(context: typer.Context, path: Path | None) -> Path | None:
    """`--config` counts before the command and after it; the one after it wins."""
    root = context.find_root()
    root.obj = path or root.obj
    return root.obj if isinstance(root.obj, Path) else None


ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_remembered,
        metavar="PATH",
        help="The configuration file; else $MINTOKEN_CONFIG, else ./config.toml if it is there.",
    ),
]
OfAccount = Annotated[str, typer.Option(metavar="NAME", help="Whose; an account's name or id.")]
AsRole = Annotated[
    Role, typer.Option(help="owner: everything; admin: keys and rules; viewer: looks only.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NewName = Annotated[str | None, typer.Option(metavar="TEXT", help="A name for people.")]


def configured(path: Path | None) -> Config:
    """The configuration. Raises ConfigError."""
    return load_config(path, os.environ)


def in_store(config: Config, work: Callable[[Store], Awaitable[_T]], *, looks: bool = False) -> _T:
    """Do something in the store, and close it again. Who only looks does not create one.

    Raises StorageError, and what `work` does.
    """
    data_dir = config.storage.data_dir
    if looks and not (data_dir / DATABASE_FILE).exists():
        raise StorageError(
            f"There is no database in {data_dir} (storage.data_dir). Name the configuration with "
            "--config, go to the folder where the server runs, or start it first."
        )

    async def opened() -> _T:
        store = await open_sqlite(data_dir, clock_ms=utc_ms)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def and_everything(
    config: Config, work: Callable[[Store], Awaitable[_T]], *, looks: bool = False
) -> tuple[_T, Directory]:
    """What the work makes in the store, and all accounts and keys after it."""

    async def both(store: Store) -> tuple[_T, Directory]:
        return await work(store), await admin.everything(store)

    return in_store(config, both, looks=looks)


def checked_month(text: str, option: str) -> str:
    """A month as it was given. Raises typer.BadParameter."""
    if re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", text) is None:
        raise typer.BadParameter(f"{text!r} is no month. Give one like 2026-11.", param_hint=option)
    return text


def utc_moment(text: str, option: str, *, besides: str = "") -> int:
    """A date or time as it was given, in UTC milliseconds. Raises typer.BadParameter.

    A date is its first moment; a time without zone is UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no date. Give one like 2027-01-31 or 2027-01-31T18:00Z{besides}.",
            param_hint=option,
        ) from None


def show(document: Mapping[str, object], sentence: str, *, as_json: bool) -> None:
    """Print what a command did: the document for programs, the sentence for people."""
    if as_json:
        tables.print_json(document)
    else:
        print(sentence)


def show_list(
    rows: Sequence[tables.Row],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    no_limit_at_0: Sequence[str],
) -> None:
    """Print records: all their fields for programs, a table for people."""
    if as_json:
        tables.print_json(rows)
    else:
        limits = [{name: row[name] or "none" for name in no_limit_at_0} for row in rows]
        shown = [{**row, **limit} for row, limit in zip(rows, limits, strict=True)]
        tables.print_table(shown, columns)
