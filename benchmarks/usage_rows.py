"""A database with millions of usage rows, made in one statement."""

import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

BIG = "big"
"""The account with nine rows in ten; it has ten keys, and there are nine other accounts.

One row in five is of an experiment of these keys, in conversations of five requests."""
_MIGRATION = "0008_rollups.sql"
_YEAR_MS = 365 * 86_400_000

# Even in time over the year before now, with more of some models, and few that fail. Of 25 rows,
# five make a conversation, `talk`.
_ROWS = """
WITH RECURSIVE rows (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM rows WHERE i + 1 < :rows),
dice (i, at, talk, a, b, c, d) AS MATERIALIZED (
    SELECT i, :first + i * :span / :rows, iif(i % 5, NULL, i / 25), abs(random() % 1000000),
        abs(random() % 1000000), abs(random() % 1000000), abs(random() % 1000000)
    FROM rows
)
INSERT INTO usage (id, account_id, key_id, started_at, month, protocol, model, model_served, stream,
    intensity, reason, arm, conversation, opening_bytes, prompt_version, input_tokens,
    output_tokens, cached_tokens, injected_tokens, counted_by, status, outcome, finish_reason,
    upstream_request_id, first_byte_ms, duration_ms, bytes_in, bytes_out, reserved_tokens,
    charged_tokens, worker)
SELECT
    printf(
        '%08x-%04x-7%03x-8%03x-%06x%06x', at >> 16, at & 65535, i & 4095, i >> 12 & 4095, a, b
    ),
    iif(a % 10 OR talk NOT NULL, 'big', 'account-' || (b % 9)),
    'key-' || CASE WHEN talk NOT NULL THEN talk % 10 WHEN a % 10 THEN b % 10 ELSE 10 + b % 9 END,
    at, strftime('%Y-%m', at / 1000, 'unixepoch'), 'openai_chat',
    CASE WHEN talk NOT NULL THEN 'model-' || min(talk / 10 % 6, talk / 60 % 6)
        WHEN c % 100000 = 7 THEN 'rare' ELSE 'model-' || min(c % 6, d % 6) END,
    'model-served', 1,
    CASE b / 10 % 4 WHEN 0 THEN 'none' WHEN 1 THEN 'lite' WHEN 2 THEN 'full' ELSE 'ultra' END,
    'key',
    CASE WHEN talk IS NULL THEN '' WHEN talk / 360 % 10 = 0 THEN 'control'
        WHEN talk / 360 % 10 = 1 THEN 'concise' ELSE 'product' END,
    iif(talk NOT NULL, printf('%08x%08x', talk * 2654435761 & 4294967295, talk), ''),
    iif(talk NOT NULL, 100 << 2 * (talk % 7), 0),
    '1', 200 + c % 2000, 50 + d % 900, c % 300, 90, 'upstream',
    iif(d % 100 < 3, 502, 200),
    CASE WHEN d % 100 < 3 THEN 'upstream_error' WHEN d % 100 < 5 THEN 'client_closed'
        WHEN d % 10000 = 77 THEN 'crashed' ELSE 'ok' END,
    'stop', 'req_' || hex(randomblob(12)), 150 + a % 900, 900 + b % 20000, 1000, 4000, 1000,
    50 + d % 900, 'worker'
FROM dice"""
_MONTHS = """
INSERT INTO month_usage (account_id, month, used, requests)
SELECT account_id, month, sum(charged_tokens), count(*) FROM usage GROUP BY 1, 2"""


def make_rows(folder: Path, *, rows: int, now_ms: int) -> None:
    """Make it as a version without roll-ups left it: opening it adds them up."""
    files = sorted(
        (resources.files("mintoken.stores") / "migrations").iterdir(), key=lambda file: file.name
    )
    older = [file for file in files if file.name.endswith(".sql") and file.name < _MIGRATION]
    folder.chmod(0o700)
    path = folder / "mintoken.db"
    path.touch(0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("PRAGMA cache_size=-500000")
        database.execute(f"PRAGMA application_id={int.from_bytes(b'MTKN', 'big')}")
        for file in older:
            database.executescript(file.read_text("utf-8"))
        database.execute(f"PRAGMA user_version={len(older)}")
        database.execute("DROP TRIGGER usage_reserved")
        database.execute("BEGIN")
        _add_accounts(database)
        database.execute(_ROWS, {"rows": rows, "first": now_ms - _YEAR_MS, "span": _YEAR_MS})
        database.execute(_MONTHS)
        database.execute("COMMIT")
        first = older[0].read_text("utf-8")
        trigger = first[first.index("CREATE TRIGGER usage_reserved") :]
        database.executescript(trigger[: trigger.index("END;") + 4])


def _add_accounts(database: sqlite3.Connection) -> None:
    names = [BIG, *(f"account-{i}" for i in range(9))]
    database.executemany("INSERT INTO accounts VALUES (?1, ?1, 0, 0)", [(name,) for name in names])
    database.executemany(
        "INSERT INTO keys (id, account_id, name, prefix, hash, intensity, control, concise, rpm,"
        " concurrency, created_at)"
        " VALUES (?1, ?2, ?1, 'mt_live_abcd', CAST(?1 AS BLOB), 'full', 10, 10, 0, 0, 0)",
        [(f"key-{i}", BIG if i < 10 else f"account-{i - 10}") for i in range(19)],
    )
