"""The SQL of the SQLite store, and the one border where values become rows and rows values."""

import sqlite3
from datetime import date, timedelta
from operator import attrgetter

from mintoken.models import Account, Intensity, Key, Rule, RuleAction, Verdict
from mintoken.reports import PURGED, GroupBy, UsageLine

_EPOCH = date(1970, 1, 1)

# Each getter gives the values of the statement below it, in the order of its parameters.
SETTLEMENT_ROW = attrgetter(
    "outcome.value",
    "status",
    "model_served",
    "finish_reason",
    "upstream_request_id",
    "tokens.input",
    "tokens.output",
    "tokens.cached",
    "tokens.reasoning",
    "tokens.counted_by.value",
    "charged_tokens",
    "first_byte_ms",
    "duration_ms",
    "bytes_out",
    "id",
)
SETTLE = """
UPDATE usage SET outcome = ?, status = ?, model_served = ?, finish_reason = ?,
    upstream_request_id = ?, input_tokens = ?, output_tokens = ?, cached_tokens = ?,
    reasoning_tokens = ?, counted_by = ?, charged_tokens = ?, first_byte_ms = ?, duration_ms = ?,
    bytes_out = ?
WHERE id = ? AND outcome = 'reserved'"""

PROGRESS_ROW = attrgetter("output_tokens", "bytes_out", "id")
NOTE_PROGRESS = """
UPDATE usage SET output_tokens = ?, bytes_out = ? WHERE id = ? AND outcome = 'reserved'"""

RESERVATION_ROW = attrgetter(
    "id",
    "account_id",
    "key_id",
    "started_at",
    "month",
    "protocol",
    "model",
    "stream",
    "intensity.value",
    "reason",
    "arm",
    "conversation",
    "opening_bytes",
    "epoch",
    "prompt_version",
    "injected_tokens",
    "bytes_in",
    "reserved_tokens",
)
RESERVE = """
INSERT INTO usage (id, account_id, key_id, started_at, month, protocol, model, stream, intensity,
    reason, arm, conversation, opening_bytes, epoch, prompt_version, injected_tokens,
    bytes_in, reserved_tokens, worker)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING"""
THESE = "SELECT id FROM usage WHERE id IN (SELECT value FROM json_each(?))"
STANDING = """
SELECT a.monthly_tokens, coalesce(m.used, 0), coalesce(m.reserved, 0)
FROM accounts a LEFT JOIN month_usage m ON m.account_id = a.id AND m.month = ?2
WHERE a.id = ?1"""

RECOVER = """
UPDATE usage SET outcome = 'crashed',
    charged_tokens = output_tokens + iif(? = 'total', input_tokens, 0)
WHERE outcome = 'reserved' AND worker NOT IN (SELECT value FROM json_each(?))"""

ACCOUNT_ROW = attrgetter("id", "name", "monthly_tokens", "created_at")
SAVE_ACCOUNT = """
INSERT INTO accounts (id, name, monthly_tokens, created_at) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, monthly_tokens = excluded.monthly_tokens,
    created_at = excluded.created_at"""
ALL_ACCOUNTS = "SELECT id, name, monthly_tokens, created_at FROM accounts ORDER BY created_at, id"

KEY_ROW = attrgetter(
    "id",
    "account_id",
    "name",
    "prefix",
    "hash",
    "intensity.value",
    "smart",
    "rpm",
    "concurrency",
    "control",
    "concise",
    "auto_stop",
    "shares_since",
    "origin",
    "created_at",
    "expires_at",
    "revoked_at",
)
SAVE_KEY = """
INSERT INTO keys (id, account_id, name, prefix, hash, intensity, smart, rpm, concurrency,
    control, concise, auto_stop, shares_since, origin, created_at, expires_at,
    revoked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, name = excluded.name,
    prefix = excluded.prefix, hash = excluded.hash, intensity = excluded.intensity,
    smart = excluded.smart, rpm = excluded.rpm, concurrency = excluded.concurrency,
    control = excluded.control, concise = excluded.concise, auto_stop = excluded.auto_stop,
    shares_since = excluded.shares_since, origin = excluded.origin,
    created_at = excluded.created_at, expires_at = excluded.expires_at,
    revoked_at = excluded.revoked_at"""
ALL_KEYS = """
SELECT id, account_id, name, prefix, hash, intensity, smart, rpm, concurrency, control, concise,
    auto_stop, shares_since, origin, created_at, expires_at, revoked_at
FROM keys ORDER BY created_at, id"""

RULE_ROW = attrgetter("id", "account_id", "action.value", "pattern", "priority", "created_at")
SAVE_RULE = """
INSERT INTO rules (id, account_id, action, pattern, priority, created_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, action = excluded.action,
    pattern = excluded.pattern, priority = excluded.priority, created_at = excluded.created_at"""
REMOVE_RULE = "DELETE FROM rules WHERE id = ?"
ALL_RULES = """
SELECT id, account_id, action, pattern, priority, created_at FROM rules ORDER BY created_at, id"""

ALL_VERDICTS = "SELECT key_id, model, stopped, since_ms FROM verdicts"
JUDGE = """
INSERT INTO verdicts (key_id, model, stopped, since_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (key_id, model) DO UPDATE SET stopped = excluded.stopped, since_ms = excluded.since_ms
WHERE stopped <> excluded.stopped"""

REPORT = """
SELECT CASE :group_by WHEN 'day' THEN started_at / 86400000 WHEN 'key' THEN key_id
        WHEN 'model' THEN model WHEN 'outcome' THEN outcome END,
    count(*), sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens),
    sum(injected_tokens), sum(charged_tokens)
FROM usage
WHERE month = :month AND outcome <> 'reserved'
    AND (:account_id IS NULL OR account_id = :account_id)
GROUP BY 1
UNION ALL
SELECT NULL, sum(requests), sum(input_tokens), sum(output_tokens), sum(cached_tokens),
    sum(reasoning_tokens), sum(injected_tokens), sum(charged_tokens)
FROM purged_usage
WHERE month = :month AND (:account_id IS NULL OR account_id = :account_id)
HAVING count(*) > 0
ORDER BY 1"""

PURGEABLE = "SELECT id FROM usage WHERE month < ? AND outcome <> 'reserved' LIMIT ?"
KEEP_SUMS = """
INSERT INTO purged_usage (account_id, month, requests, input_tokens, output_tokens, cached_tokens,
    reasoning_tokens, injected_tokens, charged_tokens)
SELECT account_id, month, count(*), sum(input_tokens), sum(output_tokens), sum(cached_tokens),
    sum(reasoning_tokens), sum(injected_tokens), sum(charged_tokens)
FROM usage WHERE id IN (SELECT value FROM json_each(?)) GROUP BY account_id, month
ON CONFLICT (account_id, month) DO UPDATE SET requests = requests + excluded.requests,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    injected_tokens = injected_tokens + excluded.injected_tokens,
    charged_tokens = charged_tokens + excluded.charged_tokens"""
DELETE_ROWS = "DELETE FROM usage WHERE id IN (SELECT value FROM json_each(?))"

AUDIT = """
SELECT account_id, month, sum(used), sum(row_used), sum(reserved), sum(row_reserved),
    sum(requests), sum(row_requests)
FROM (
    SELECT account_id, month, used, reserved, requests,
        0 AS row_used, 0 AS row_reserved, 0 AS row_requests
    FROM month_usage
    UNION ALL
    SELECT account_id, month, 0, 0, 0, sum(iif(outcome = 'reserved', 0, charged_tokens)),
        sum(iif(outcome = 'reserved', reserved_tokens, 0)), count(*)
    FROM usage GROUP BY account_id, month
    UNION ALL
    SELECT account_id, month, 0, 0, 0, charged_tokens, 0, requests FROM purged_usage
)
GROUP BY account_id, month
HAVING sum(used) <> sum(row_used) OR sum(reserved) <> sum(row_reserved)
    OR sum(requests) <> sum(row_requests)
ORDER BY account_id, month"""


def account(row: sqlite3.Row) -> Account:
    return Account(id=row[0], name=row[1], monthly_tokens=row[2], created_at=row[3])


def key(row: sqlite3.Row) -> Key:
    return Key(
        id=row[0],
        account_id=row[1],
        name=row[2],
        prefix=row[3],
        hash=row[4],
        intensity=Intensity(row[5]),
        smart=bool(row[6]),
        rpm=row[7],
        concurrency=row[8],
        control=row[9],
        concise=row[10],
        auto_stop=bool(row[11]),
        shares_since=row[12],
        origin=row[13],
        created_at=row[14],
        expires_at=row[15],
        revoked_at=row[16],
    )


def rule(row: sqlite3.Row) -> Rule:
    return Rule(
        id=row[0],
        account_id=row[1],
        action=RuleAction(row[2]),
        pattern=row[3],
        priority=row[4],
        created_at=row[5],
    )


def verdict(row: sqlite3.Row) -> tuple[tuple[str, str], Verdict]:
    return (row[0], row[1]), Verdict(bool(row[2]), row[3])


def usage_line(group_by: GroupBy, row: sqlite3.Row) -> UsageLine:
    group = row[0]
    if group is None:
        group = PURGED
    elif group_by is GroupBy.DAY:
        group = (_EPOCH + timedelta(days=group)).isoformat()
    return UsageLine(
        group=group,
        requests=row[1],
        input_tokens=row[2],
        output_tokens=row[3],
        cached_tokens=row[4],
        reasoning_tokens=row[5],
        injected_tokens=row[6],
        charged_tokens=row[7],
    )


def discrepancy(account_id: str, month: str, *counters: int) -> str:
    names = ("used", "reserved", "requests")
    pairs = zip(names, counters[::2], counters[1::2], strict=True)
    wrong = (
        f"{name} is {kept}, its rows make {made}" for name, kept, made in pairs if kept != made
    )
    return f"account {account_id}, {month}: " + "; ".join(wrong)
