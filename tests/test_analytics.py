"""What the dashboard asks a store: the same as adding up the rows, and still so after a purge."""

import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise, product

import pytest
from store_cases import (
    MONTH,
    NOW,
    add_account,
    ask,
    key,
    reservation,
    reserve,
    settle,
    settlement,
    undo,
)

from mintoken.context import request_id
from mintoken.models import Intensity, Outcome, QuotaCounts
from mintoken.reports import (
    HOUR_MS,
    OTHER,
    USAGE_SUMS,
    Bucket,
    Latency,
    Quota,
    RequestFilter,
    Span,
    SplitBy,
    Usage,
)
from mintoken.stores.base import Store

HOUR = NOW // HOUR_MS
ENDS = [*[Outcome.OK] * 6, Outcome.CLIENT_CLOSED, Outcome.UPSTREAM_ERROR, Outcome.CRASHED]
ANY = RequestFilter()


async def fill(store: Store, *, rows: int = 900, in_order: bool = False) -> None:
    """Settled rows of two accounts, three keys and a dozen models, and a few that are open."""
    chance = random.Random(7)
    await add_account(store, "b")
    await store.save(key("key-2", name="second"))
    asked, ended = [], []
    times = [NOW - chance.randrange(24 * 24 * HOUR_MS) for _ in range(rows)]
    for at in sorted(times) if in_order else times:
        account, key_id = chance.choice([("a", "key-a"), ("a", "key-2"), ("b", "key-b")])
        model = f"m{min(chance.randrange(12), chance.randrange(12))}"
        level = chance.choice(list(Intensity))
        one = reservation(
            request_id(at), account, started_at=at, key_id=key_id, model=model,
            injected_tokens=chance.randrange(9), intensity=level,
        )  # fmt: skip
        asked.append(one)
        how = chance.choice(ENDS)
        took = chance.choice([None, 0, 1, 5, chance.randrange(9000)])
        ended.append(
            settlement(
                one.id, charged=chance.randrange(99), outcome=how, first_byte_ms=took,
                duration_ms=(took or 0) + chance.randrange(100),
                status=502 if how is Outcome.UPSTREAM_ERROR else 200,
            )
        )  # fmt: skip
    await reserve(store, *asked)
    await settle(store, *ended[:-5])


@pytest.fixture(params=[False, True], ids=["mixed", "in order"])
async def filled(store: Store, request) -> Store:
    await fill(store, in_order=request.param)
    return store


def settled(database, account_id: str = "a") -> list[dict]:
    """The account's settled rows themselves, the newest first."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            "SELECT * FROM usage WHERE outcome <> 'reserved' AND account_id = ? ORDER BY id DESC",
            [account_id],
        )
        return [dict(row) for row in rows]


def added(rows: list[dict]) -> Usage:
    return Usage(
        requests=len(rows),
        errors=sum(r["outcome"] not in ("ok", "client_closed") or r["status"] >= 400 for r in rows),
        first_bytes=sum(r["first_byte_ms"] is not None for r in rows),
        durations=sum(r["duration_ms"] is not None for r in rows),
        **{
            name: sum(r[name] or 0 for r in rows)
            for name in USAGE_SUMS
            if name.endswith(("_tokens", "_ms"))
        },
    )


def within(rows: list[dict], span: Span) -> list[dict]:
    return [row for row in rows if span.start <= row["started_at"] // HOUR_MS < span.end]


SPANS = [
    Span(HOUR - 24 * 30, HOUR + 1),
    Span(HOUR - 24 * 20 - 5, HOUR - 24 * 3 - 11),
    Span(HOUR - 30, HOUR - 20),
    Span((HOUR - 48) // 24 * 24, HOUR // 24 * 24),
    Span((HOUR - 48) // 24 * 24 + 1, HOUR // 24 * 24 - 1),
    Span(HOUR + 100, HOUR + 200),
]


@pytest.mark.parametrize("span", SPANS)
async def test_sums_are_those_of_the_rows_in_any_span(filled, database, span):
    rows = within(settled(database), span)
    assert (await filled.summary("a", span)).usage == added(rows)
    for found, name in (
        (await filled.by_key("a", span), "key_id"),
        (await filled.by_model("a", span), "model"),
    ):
        counts = Counter(row[name] for row in rows)
        ranked = sorted(counts, key=lambda group: (-counts[group], group))
        assert [one.group for one in found] == ranked
        for one in found:
            assert one.usage == added([row for row in rows if row[name] == one.group])


@pytest.mark.parametrize(("bucket", "by"), [*product(Bucket, SplitBy)])
async def test_a_time_series_has_a_value_for_every_bucket(filled, database, bucket, by):
    span = Span.around(NOW - 17 * 24 * HOUR_MS, NOW + HOUR_MS, bucket)
    rows = within(settled(database), span)
    lines = await filled.timeseries("a", span, bucket=bucket, by=by)
    starts = range(span.start, span.end, bucket.hours)
    column = {SplitBy.LEVEL: "intensity", SplitBy.MODEL: "model"}.get(by)
    counts = Counter(row[column] if column else "" for row in rows)
    groups = sorted(counts, key=lambda group: (-counts[group], group))
    if by is SplitBy.MODEL:
        assert len(groups) == 12
        groups = [*groups[:7], OTHER]
    assert [line.group for line in lines] == groups
    for line in lines:
        for place, start in enumerate(starts):
            mine = [
                row
                for row in within(rows, Span(start, start + bucket.hours))
                if column is None
                or row[column] == line.group
                or (line.group == OTHER and row[column] not in groups)
            ]
            assert {n: v[place] for n, v in line.sums.items()} == asdict(added(mine))


async def test_a_time_without_requests_is_a_line_of_zeros_or_no_line(store):
    span = Span(HOUR, HOUR + 3)
    asked = {"bucket": Bucket.HOUR}
    [line] = await store.timeseries("a", span, by=SplitBy.NONE, **asked)
    assert (line.group, line.sums["requests"]) == ("", (0, 0, 0))
    assert await store.timeseries("a", span, by=SplitBy.MODEL, **asked) == []
    nothing = await store.summary("a", span)
    assert (nothing.usage, nothing.duration) == (Usage(), Latency())
    assert await store.by_key("nobody", span) == await store.by_model("nobody", span) == []


@pytest.mark.parametrize(
    ("bucket", "first", "last"),
    [
        (Bucket.HOUR, "2026-11-26T02", "2026-11-26T03"),
        (Bucket.DAY, "2026-11-26T00", "2026-11-27T00"),
        (Bucket.WEEK, "2026-11-23T00", "2026-11-30T00"),
    ],
)
def test_a_span_goes_around_whole_buckets_and_a_week_begins_on_monday(bucket, first, last):
    now = 1_795_660_165_000  # Thursday, 2026-11-26T02:29:25Z
    span = Span.around(now, now + 1, bucket)
    assert [_text(span.start), _text(span.end)] == [first, last]
    assert Span.around(span.start * HOUR_MS, span.end * HOUR_MS, bucket) == span


def _text(hour: int) -> str:
    [(text,)] = sqlite3.connect(":memory:").execute(
        "SELECT strftime('%Y-%m-%dT%H', ?, 'unixepoch')", [hour * 3600]
    )
    return text


async def test_long_lists_of_models_end_with_the_others(store):
    ids = [request_id(NOW) for _ in range(150)]
    models = ["much"] * 30 + [f"m{i}" for i in range(120)]
    await reserve(store, *(reservation(i, model=m) for i, m in zip(ids, models, strict=True)))
    await settle(store, *(settlement(i) for i in ids))
    found = await store.by_model("a", Span(HOUR, HOUR + 1))
    assert len(found) == 100
    assert (found[0].group, found[0].usage.requests) == ("much", 30)
    assert (found[-1].group, found[-1].usage.requests) == (OTHER, 22)
    assert sum(one.usage.output_tokens for one in found) == 150 * 5


async def test_what_is_open_is_no_usage_and_what_is_settled_twice_counts_once(store):
    span, id_ = Span(HOUR, HOUR + 1), request_id(NOW)
    await reserve(store, reservation(id_))
    assert (await store.summary("a", span)).usage == Usage()
    for charged in (5, 99):
        await settle(store, settlement(id_, charged=charged))
    usage = (await store.summary("a", span)).usage
    assert (usage.requests, usage.errors, usage.charged_tokens) == (1, 0, 5)
    assert await store.audit() == []


async def test_what_crashed_is_an_error_without_a_latency(open_store, store):
    other = await open_store()
    await reserve(other, reservation(request_id(NOW)))
    await other.close()
    assert await store.recover(counts=QuotaCounts.OUTPUT) == 1
    found = await store.summary("a", Span(HOUR, HOUR + 1))
    assert (found.usage.requests, found.usage.errors, found.usage.durations) == (1, 1, 0)
    assert found.duration == Latency()
    assert await store.audit() == []


# Latency


def test_a_percentile_lies_within_its_bucket_where_its_share_says():
    assert Latency.of({}) == Latency()
    assert Latency.of({0: 0}) == Latency()
    assert Latency.of({1: 100}) == Latency(2, 2, 2)
    assert Latency.of({128: 100}) == Latency(160, 189, 191)
    assert Latency.of({96: 50, 1024: 49, 6144: 1}) == Latency(128, 1494, 1536)
    assert Latency.of({0: 1}) == Latency(0, 1, 1)


async def test_the_buckets_of_the_database_are_those_of_the_percentiles(store, database):
    bounds = [ms for (ms,) in ask(database, "SELECT ms FROM latency_buckets ORDER BY ms")]
    assert bounds[:12] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert bounds[-1] > 4 * 24 * HOUR_MS
    for least, following in pairwise(bounds):
        assert Latency.of({least: 2, following: 2}).p50 == following


async def test_percentiles_are_near_those_of_the_rows(filled, database):
    span = SPANS[0]
    found = await filled.summary("a", span)
    for name, latency in (("first_byte_ms", found.first_byte), ("duration_ms", found.duration)):
        took = sorted(r[name] for r in within(settled(database), span) if r[name] is not None)
        for percent, value in ((50, latency.p50), (95, latency.p95), (99, latency.p99)):
            true = took[len(took) * percent // 100]
            assert true / 1.5 - 1 <= value <= true * 1.5 + 1


# Requests


async def pages(store: Store, wanted: RequestFilter, limit: int) -> list:
    found, before = [], ""
    while page := await store.requests("a", wanted=wanted, limit=limit, before=before):
        assert len(page) <= limit
        found += page
        before = page[-1].id
    return found


FILTERS = [
    RequestFilter(key_id=key_id, model=model, intensity=level, outcome=outcome)
    for key_id, model, level, outcome in product(
        (None, "key-2"),
        (None, "m0", "m11", "unknown"),
        (None, Intensity.LITE),
        (None, Outcome.OK, Outcome.CRASHED, Outcome.CLIENT_CLOSED),
    )
]


async def test_pages_have_every_settled_row_that_is_wanted_once_and_newest_first(filled, database):
    rows = settled(database)
    for wanted in FILTERS:
        named = {n: v for n, v in asdict(wanted).items() if v is not None}
        expected = [row["id"] for row in rows if named.items() <= row.items()]
        for limit in (3, 1000):
            found = await pages(filled, wanted, limit)
            assert [one.id for one in found] == expected, wanted
    for wanted in (ANY, RequestFilter(model="m0"), FILTERS[-1]):
        assert await filled.requests("nobody", wanted=wanted, limit=5) == []


async def test_a_row_comes_as_it_is(filled, database):
    [found] = await filled.requests("a", wanted=ANY, limit=1)
    row = settled(database)[0]
    assert asdict(found) == {name: row[name] for name in asdict(found)}
    assert found.stream is True
    assert not {"conversation", "worker", "account_id"} & asdict(found).keys()


async def test_pages_end_where_a_purge_has_deleted(filled, database):
    ask(database, "UPDATE usage SET month = '2026-10' WHERE started_at < ?", NOW - 9 * 24 * HOUR_MS)
    ask(database, "UPDATE month_usage SET month = '2026-10'")
    assert await filled.purge(before=MONTH, limit=10_000) > 100
    rows = settled(database)
    wanted = RequestFilter(model="m1")
    expected = [row["id"] for row in rows if row["model"] == "m1"]
    assert [one.id for one in await pages(filled, wanted, 7)] == expected
    oldest = rows[-1]["id"]
    assert await filled.requests("a", wanted=wanted, limit=5, before=oldest) == []


# Keys and quota


async def test_a_key_was_last_used_when_its_last_request_began(filled, database):
    for account, keys in (("a", {"key-a", "key-2"}), ("b", {"key-b"})):
        found = await filled.last_used(account)
        assert found.keys() == keys
        for key_id, at in found.items():
            [(last,)] = ask(database, "SELECT max(started_at) FROM usage WHERE key_id = ?", key_id)
            assert 0 <= last - at < 1000


async def test_using_a_key_is_no_change_of_the_directory(store):
    known = (await store.directory()).revision
    assert await store.last_used("a") == {}
    await reserve(store, reservation(request_id(NOW)))
    assert await store.last_used("a") == {"key-a": NOW}
    await reserve(store, reservation(request_id(NOW + 999), started_at=NOW + 999))
    assert await store.last_used("a") == {"key-a": NOW}
    await reserve(store, reservation(request_id(NOW + 1000), started_at=NOW + 1000))
    assert await store.last_used("a") == {"key-a": NOW + 1000}
    assert await store.directory(known) is None


async def test_the_quota_says_what_is_used_and_held_of_the_month(store):
    await add_account(store, "b", 100)
    await reserve(store, reservation("1", "b"), reservation("2", "b"))
    await settle(store, settlement("1"))
    assert await store.quota("b", MONTH) == Quota(used=5, reserved=10, limit=100)
    assert await store.quota("b", "2026-12") == Quota(used=0, reserved=0, limit=100)
    assert await store.quota("nobody", MONTH) == Quota(used=0, reserved=0, limit=0)


# What keeps the sums right


async def test_a_purge_changes_no_sum(filled, database):
    span = SPANS[0]
    before = [await ask_everything(filled, span), ask(database, "SELECT * FROM latency_days")]
    ask(database, "UPDATE usage SET month = '2026-10' WHERE started_at < ?", NOW - 9 * 24 * HOUR_MS)
    ask(database, "DELETE FROM month_usage")
    ask(
        database,
        "INSERT INTO month_usage SELECT account_id, month,"
        " sum(iif(outcome = 'reserved', 0, charged_tokens)),"
        " sum(iif(outcome = 'reserved', reserved_tokens, 0)), count(*) FROM usage GROUP BY 1, 2",
    )
    assert await filled.purge(before=MONTH, limit=10_000) > 100
    assert [await ask_everything(filled, span), ask(database, "SELECT * FROM latency_days")] == (
        before
    )
    assert await filled.audit() == []


async def ask_everything(store: Store, span: Span) -> list:
    return [
        await store.summary("a", span),
        await store.by_key("a", span),
        await store.by_model("a", span),
        await store.timeseries("a", span, bucket=Bucket.HOUR, by=SplitBy.LEVEL),
        await store.last_used("a"),
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE usage_hours SET output_tokens = output_tokens - 1 WHERE rowid_is", "less than"),
        ("UPDATE usage_hours SET errors = errors + 1 WHERE rowid_is", "rows': errors"),
        ("DELETE FROM usage_hours WHERE rowid_is", "less than"),
        ("DELETE FROM usage WHERE account_id = 'a'", "rows': requests"),
        ("UPDATE usage_totals SET cached_tokens = 7 WHERE step = 1 AND", "a total is not"),
        ("DELETE FROM usage_totals WHERE step = 24 AND", "a total is not"),
        ("UPDATE totals_until SET hour = hour - 100 WHERE", "a total is not"),
        ("UPDATE latency_days SET durations = durations + 1 WHERE", "latencies"),
        ("UPDATE usage SET input_tokens = 21 WHERE account_id = 'a'", "input_tokens"),
    ],
)
async def test_the_audit_finds_a_sum_that_is_not_that_of_its_rows(filled, database, change, says):
    assert await filled.audit() == []
    hour = "(SELECT max(hour) FROM usage_hours WHERE account_id = 'a')"
    change = change.replace("rowid_is", f"account_id = 'a' AND hour = {hour}")
    ask(database, change + " account_id = 'a'" * change.endswith(("AND", "WHERE")))
    wrong = await filled.audit()
    assert any(says in line for line in wrong), wrong
    assert all(line.startswith("account a") for line in wrong)


@pytest.mark.parametrize("in_order", [False, True])
async def test_an_older_database_gets_its_sums_from_its_rows(open_store, database, in_order):
    store = await open_store()
    await add_account(store)
    await fill(store, in_order=in_order)
    tables = ("usage_hours", "usage_totals", "totals_until", "latency_days", "latency_buckets")
    kept = [sorted(ask(database, f"SELECT * FROM {table}")) for table in tables]
    used = await store.last_used("a")
    await store.close()
    undo(database, "0008_rollups.sql")
    again = await open_store()
    assert [sorted(ask(database, f"SELECT * FROM {table}")) for table in tables] == kept
    for key_id, at in (await again.last_used("a")).items():
        assert 0 <= at - used[key_id] < 1000
    assert await again.audit() == []


async def test_what_an_older_version_purged_is_in_the_sums_of_its_month(open_store, database):
    store = await open_store()
    await add_account(store)
    await reserve(store, reservation("1", month="2026-10"), reservation("2"))
    await settle(store, settlement("1"), settlement("2"))
    assert await store.purge(before=MONTH, limit=10) == 1
    await store.close()
    undo(database, "0008_rollups.sql")
    again = await open_store()
    assert await again.audit() == []
    found = await again.by_model("a", Span.around(1_790_812_800_000, NOW + 1))  # 2026-10-01
    assert sorted((one.group, one.usage.output_tokens) for one in found) == [
        ("(purged)", 5), ("gpt-x", 5),
    ]  # fmt: skip
    assert [one.id for one in await again.requests("a", wanted=ANY, limit=9)] == ["2"]
