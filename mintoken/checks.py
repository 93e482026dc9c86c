"""What `mintoken check` looks at: is this installation fit to serve."""

import asyncio
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp

from mintoken.config import Config
from mintoken.connection import require_c_parser
from mintoken.errors import ConfigError, StorageError, TokenizerError
from mintoken.keys import SECRET_FILE, server_secret
from mintoken.pricing import load_prices
from mintoken.prompts import load_prompts
from mintoken.stores import sqlite_file
from mintoken.stores.sqlite import DATABASE_FILE, open_sqlite
from mintoken.tokens import Tokenizer

OLDEST_SQLITE = (3, 38)
"""The first with the operator ->> that the store's statements use."""
OLDEST_AIOHTTP = (3, 14, 4)
"""Older ones have known holes."""
NOT_THERE = "not there yet; the first start makes it"

Clock = Callable[[], int]


class Verdict(StrEnum):
    """BAD makes the command fail, WARN does not."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    verdict: Verdict
    detail: str


def examine(config: Config, *, clock_ms: Clock, accounts: bool = False) -> list[Finding]:
    """Look at everything (blocks), at the sums of the accounts only if asked to; creates nothing.

    `clock_ms` gives UTC milliseconds.
    """
    data_dir = config.storage.data_dir
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "data directory": lambda: _data_dir(data_dir),
        "server secret": lambda: _server_secret(data_dir),
        "database": lambda: _database(data_dir / DATABASE_FILE, clock_ms),
        "database files": lambda: _database_files(data_dir / DATABASE_FILE),
        "accounts": lambda: _accounts(data_dir, clock_ms) if accounts else iter(()),
        "tokenizer": lambda: _tokenizer(config.tiktoken_cache_dir),
        "prompts": _prompts,
        "prices": lambda: _prices(config.savings.prices),
        "SQLite": _sqlite,
        "aiohttp": _aiohttp,
    }
    findings = [Finding("configuration", Verdict.OK, f"upstream {config.upstream.base_url}")]
    for name, look in looks.items():
        try:
            findings += look()
        except (OSError, sqlite3.Error, StorageError, ConfigError, TokenizerError) as error:
            findings.append(Finding(name, Verdict.BAD, str(error).partition("\n")[0]))
    return findings


def _data_dir(path: Path) -> Iterator[Finding]:
    name = "data directory"
    if not path.exists():
        yield Finding(name, Verdict.OK, f"{path}: {NOT_THERE}")
        return
    yield Finding(name, *_privacy(0o700, path))


def _server_secret(data_dir: Path) -> Iterator[Finding]:
    path, database_path = data_dir / SECRET_FILE, data_dir / DATABASE_FILE
    if not path.exists():
        if database_path.exists():
            with sqlite_file.reading(database_path) as database:
                [(in_use,)] = database.execute("SELECT count(*) FROM keys WHERE revoked_at IS NULL")
            if in_use:
                server_secret(data_dir, expected=True)
        yield Finding("server secret", Verdict.OK, NOT_THERE)
        return
    server_secret(data_dir)
    yield Finding("server secret", *_privacy(0o600, path))


def _database_files(path: Path) -> Iterator[Finding]:
    """They say who asked how much, and when."""
    files = [file for end in ("", "-wal", "-shm") if (file := Path(f"{path}{end}")).exists()]
    if files:
        yield Finding("database files", *_privacy(0o600, *files))


def _privacy(wanted: int, *paths: Path) -> tuple[Verdict, str]:
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    if too_open := {path: mode for path, mode in modes.items() if mode & 0o077}:
        return Verdict.WARN, (
            f"open to others: {_shown(too_open)}; chmod {wanted:o} {' '.join(map(str, too_open))}"
        )
    return Verdict.OK, _shown(modes)


def _shown(modes: Mapping[Path, int]) -> str:
    return ", ".join(f"{path} ({mode:04o})" for path, mode in modes.items())


def _database(path: Path, clock_ms: Clock) -> Iterator[Finding]:
    if not path.exists():
        yield Finding("database", Verdict.OK, NOT_THERE)
        return
    asyncio.run(sqlite_file.ensure(path, now_ms=clock_ms()))
    with sqlite_file.reading(path) as database:
        [(version,)] = database.execute("PRAGMA user_version").fetchall()
        problems = [line for (line,) in database.execute("PRAGMA integrity_check(10)")]
    if problems == ["ok"]:
        yield Finding("database", Verdict.OK, f"intact, schema version {version}")
    else:
        advice = "; it was left as it is: restore a backup"
        first = problems[0].partition("\n")[0]
        yield Finding("database", Verdict.BAD, f"damaged ({first}){advice}")


def _accounts(data_dir: Path, clock_ms: Clock) -> Iterator[Finding]:
    if not (data_dir / DATABASE_FILE).exists():
        yield Finding("accounts", Verdict.OK, NOT_THERE)
        return
    wrong = asyncio.run(_audit(data_dir, clock_ms))
    yield from (Finding("accounts", Verdict.BAD, line) for line in wrong)
    if not wrong:
        yield Finding("accounts", Verdict.OK, "every month's counters are the sums of its rows")


async def _audit(data_dir: Path, clock_ms: Clock) -> list[str]:
    store = await open_sqlite(data_dir, clock_ms=clock_ms)
    try:
        return await store.audit()
    finally:
        await store.close()


def _tokenizer(cache_dir: Path | None) -> Iterator[Finding]:
    tokenizer = Tokenizer(cache_dir)
    tokenizer.load()
    tokenizer.close()
    yield Finding("tokenizer", Verdict.OK, "loads without a network")


def _prompts() -> Iterator[Finding]:
    yield Finding("prompts", Verdict.OK, f"version {load_prompts().version}")


def _prices(own: Path) -> Iterator[Finding]:
    yield Finding("prices", Verdict.OK, f"{len(load_prices(own))} names of models")


def _sqlite() -> Iterator[Finding]:
    good = sqlite3.sqlite_version_info >= OLDEST_SQLITE
    needed = "" if good else f"; {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed"
    yield Finding("SQLite", _verdict(good=good), f"{sqlite3.sqlite_version}{needed}")


def _aiohttp() -> Iterator[Finding]:
    version = tuple(map(int, re.findall(r"\d+", aiohttp.__version__)[:3]))
    good = version >= OLDEST_AIOHTTP
    needed = "" if good else f"; {'.'.join(map(str, OLDEST_AIOHTTP))} or newer is needed"
    yield Finding("aiohttp", _verdict(good=good), f"{aiohttp.__version__}{needed}")
    require_c_parser()
    yield Finding("HTTP parser", Verdict.OK, "the C parser")


def _verdict(*, good: bool) -> Verdict:
    return Verdict.OK if good else Verdict.BAD
