"""What the suites of the stores share: values, and how to ask a database file itself."""

import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from importlib import resources
from pathlib import Path

from mintoken.models import (
    Account,
    CountedBy,
    Intensity,
    Key,
    Outcome,
    Reservation,
    Rule,
    RuleAction,
    Settlement,
    TokenUsage,
)
from mintoken.stores.base import Batch, Store

NOW = 1_795_000_000_000
DAY = 86_400_000
MONTH = "2026-11"
Open = Callable[[], Awaitable[Store]]


async def add_account(store: Store, name: str = "a", monthly_tokens: int = 0) -> None:
    await store.save(Account(id=name, name=name, monthly_tokens=monthly_tokens, created_at=NOW + 1))
    await store.save(key(f"key-{name}", account_id=name))


def key(id_: str, *, account_id: str = "a", name: str = "main", revoked_at=None) -> Key:
    return Key(
        id=id_,
        account_id=account_id,
        name=name,
        prefix="mt_live_abcd",
        hash=id_.encode(),
        intensity=Intensity.FULL,
        smart=True,
        control=10,
        concise=5,
        auto_stop=False,
        shares_since=5,
        origin="key-0",
        rpm=3,
        concurrency=4,
        created_at=NOW,
        expires_at=NOW + 5,
        revoked_at=revoked_at,
    )


def rule(id_: str, *, account_id: str = "a", **more) -> Rule:
    values = {"action": RuleAction.NEVER_COMPRESS, "pattern": "x", "created_at": NOW} | more
    return Rule(id=id_, account_id=account_id, **values)


def reservation(id_: str, account_id: str = "a", *, reserved=10, needed=1, **more) -> Reservation:
    values = {
        "started_at": NOW,
        "month": MONTH,
        "model": "gpt-x",
        "key_id": f"key-{account_id}",
        "arm": "",
        "injected_tokens": 7,
        "intensity": Intensity.LITE,
    } | more
    return Reservation(
        id=id_,
        account_id=account_id,
        protocol="openai_chat",
        stream=True,
        reason="key",
        prompt_version="1",
        bytes_in=100,
        reserved_tokens=reserved,
        needed_tokens=needed,
        **values,
    )


def settlement(id_: str, *, charged: int = 5, outcome: Outcome = Outcome.OK, **more) -> Settlement:
    tokens = TokenUsage(input=20, output=5, cached=3, reasoning=2, counted_by=CountedBy.UPSTREAM)
    values = {"status": 200, "first_byte_ms": 12, "duration_ms": 34} | more
    return Settlement(
        id=id_,
        outcome=outcome,
        model_served="gpt-x-1",
        finish_reason="stop",
        upstream_request_id="req_1",
        tokens=tokens,
        charged_tokens=charged,
        bytes_out=56,
        **values,
    )


async def reserve(store: Store, *reservations: Reservation):
    return await store.commit(Batch(reservations=reservations))


async def settle(store: Store, *settlements: Settlement) -> None:
    await store.commit(Batch(settlements=settlements))


def counters(database: Path, account_id: str = "a") -> tuple[int, int, int]:
    [found] = ask(
        database,
        "SELECT used, reserved, requests FROM month_usage WHERE account_id = ?",
        account_id,
    )
    return found


def ask(database: Path, sql: str, *values) -> list:
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def undo(database: Path, migration: str) -> None:
    """Take the file back to the version before this migration, if it only created things."""
    folder = resources.files("mintoken.stores") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    version = [file.name for file in files].index(migration)
    later = "".join(file.read_text() for file in files[version:])
    created = re.findall(r"^CREATE (TABLE|INDEX|TRIGGER) (\w+)", later, re.MULTILINE)
    with closing(sqlite3.connect(database)) as connection, connection:
        for kind, name in sorted(created, reverse=True):  # Triggers and tables, then indexes.
            connection.execute(f"DROP {kind} IF EXISTS {name}")
        connection.execute(f"PRAGMA user_version = {version}")
