"""What is asked about usage over HTTP: its parameters, its documents, and whose rows they are."""

from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from multidict import MultiDict
from store_cases import MONTH, NOW, add_account, reservation, reserve, settle, settlement
from yarl import URL

from mintoken.accounts import Accounts
from mintoken.clock import utc_text
from mintoken.context import ACCOUNTS, CLOCK, CONTEXT, PRICES, request_id
from mintoken.errors import Code, MintokenError
from mintoken.middlewares.errors import errors
from mintoken.models import Intensity, Outcome
from mintoken.pricing import load_prices
from mintoken.reports import HOUR_MS, Bucket, RequestFilter, Span, UsageRow
from mintoken.routes import api_usage as api
from mintoken.usage_shown import RequestPage, requests_shown

AT = 1_795_660_165_000  # 2026-11-26T02:29:25Z
HOUR = AT // HOUR_MS


def shown(span: Span) -> tuple:
    return utc_text(span.start * HOUR_MS), utc_text(span.end * HOUR_MS)


@pytest.mark.parametrize(
    ("query", "bucket", "expected"),
    [
        ({}, None, ("2026-11-01T00", "2026-11-26T03")),
        ({}, Bucket.HOUR, ("2026-11-24T02", "2026-11-26T03")),
        ({}, Bucket.DAY, ("2026-10-27T00", "2026-11-27T00")),
        ({}, Bucket.WEEK, ("2026-05-25T00", "2026-11-30T00")),
        ({"start": "2026-11-02"}, None, ("2026-11-02T00", "2026-11-26T03")),
        ({"end": "2026-10-01"}, None, ("2026-09-01T00", "2026-10-01T00")),
        ({"start": "2026-11-02T10:30", "end": "2026-11-02T10:31"}, None,
         ("2026-11-02T10", "2026-11-02T11")),
        ({"start": "2026-11-02T10:00:00+02:00", "end": "2026-11-02T09:00:00Z"}, None,
         ("2026-11-02T08", "2026-11-02T09")),
        ({"start": "2026-11-02", "end": "2026-11-03"}, Bucket.WEEK,
         ("2026-11-02T00", "2026-11-09T00")),
    ],
)  # fmt: skip
def test_a_span_is_what_the_query_says_in_whole_buckets(query, bucket, expected):
    assert shown(api.asked_span(query, AT, bucket)) == tuple(f"{e}:00:00Z" for e in expected)


@pytest.mark.parametrize(
    ("query", "bucket", "name", "advice"),
    [
        ({"start": "yesterday"}, None, "start", "ISO 8601"),
        ({"end": ""}, None, "end", "ISO 8601"),
        ({"end": "9999-12-31T23:59:59Z"}, None, "end", "ISO 8601"),
        ({"start": "0001-01-01T00:00:00+14:00"}, None, "start", "ISO 8601"),
        ({"start": "2026-11-02", "end": "2026-11-02"}, None, "start", "before the end"),
        ({"start": "2027-01-01"}, None, "start", "before the end"),
        ({"start": "2020-01-01"}, None, "start", "800 days"),
        ({"start": "2026-01-01"}, Bucket.HOUR, "bucket", "longer"),
    ],
)
def test_a_wrong_time_is_an_error_that_names_the_parameter(query, bucket, name, advice):
    with pytest.raises(MintokenError, match=advice) as found:
        api.asked_span(query, AT, bucket)
    assert (found.value.code, found.value.param) == (Code.INVALID_PARAMETER, name)


ID = request_id(AT)


@pytest.mark.parametrize(
    ("read", "name", "value"),
    [
        (api.asked_filter, "intensity", "loud"),
        (api.asked_filter, "outcome", "fine"),
        (api.asked_filter, "outcome", "reserved"),
        (api.asked_limit, "limit", "0"),
        (api.asked_limit, "limit", "201"),
        (api.asked_limit, "limit", "-1"),
        (api.asked_limit, "limit", "²"),
        (api.asked_limit, "limit", "ten"),
        (api.asked_id, "before", "1"),
        (api.asked_id, "before", ID[:-1]),
        (api.asked_id, "before", ID + "\n"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_parameter(read, name, value):
    with pytest.raises(MintokenError) as found:
        read({name: value})
    assert (found.value.code, found.value.param) == (Code.INVALID_PARAMETER, name)


def test_parameters_of_a_page_are_read_and_empty_ones_are_none():
    assert api.asked_filter({}) == RequestFilter()
    assert api.asked_filter(dict.fromkeys(("key_id", "model", "intensity", "outcome"), "")) == (
        RequestFilter()
    )
    assert api.asked_filter({"key_id": "k", "intensity": "Lite", "outcome": "crashed"}) == (
        RequestFilter(key_id="k", intensity=Intensity.LITE, outcome=Outcome.CRASHED)
    )
    assert (api.asked_limit({}), api.asked_limit({"limit": "200"})) == (50, 200)
    assert (api.asked_id({}), api.asked_id({"before": ID.upper()})) == ("", ID)


@pytest.mark.parametrize(
    ("query", "name", "advice"),
    [
        ([("strat", "1")], "strat", "Use: start, end"),
        ([("end", "1"), ("end", "2")], "end", "once"),
        ([("x\n" * 99, "1")], "?", "not known"),
    ],
)
def test_an_unknown_or_repeated_parameter_is_an_error(query, name, advice):
    with pytest.raises(MintokenError, match=advice) as found:
        api.checked_query(MultiDict(query), ("start", "end"))
    assert found.value.param == name


def test_next_is_there_only_if_more_is():
    rows = [
        UsageRow(**dict.fromkeys(UsageRow.__slots__, 0) | {"id": str(i), "started_at": AT})
        for i in (3, 2, 1)
    ]
    names = {0: "the key"}
    assert requests_shown(rows, 2, names, {}).next == "2"
    assert requests_shown(rows, 3, names, {}).next is None
    assert requests_shown([], 3, names, {}) == RequestPage(requests=[], next=None)
    [first, _] = msgspec.to_builtins(requests_shown(rows, 2, names, {}).requests)
    assert (first["id"], first["started_at"]) == ("3", "2026-11-26T02:29:25Z")
    assert (first["key_name"], first["cost_usd"]) == ("the key", None)
    assert first.keys() == {*UsageRow.__slots__, "key_name", "cost_usd"}


# Over a socket; who asks is said by a middleware in the place of sign-in.


@pytest.fixture
async def client(store):
    await add_account(store, "b", 100)
    ids = [request_id(NOW - i * HOUR_MS) for i in range(3)]
    await reserve(
        store,
        *(
            reservation(id_, started_at=NOW - i * HOUR_MS, intensity=level)
            for i, (id_, level) in enumerate(zip(ids, Intensity, strict=False))
        ),
        reservation(request_id(NOW), "b", model="secret-of-b"),
    )
    await settle(store, *(settlement(i) for i in ids[:2]))
    await settle(store, settlement(ids[2], outcome=Outcome.UPSTREAM_ERROR, status=500))

    @web.middleware
    async def signed_in(request, handler):
        member = SimpleNamespace(account_id=request.headers.get("Account", "a"))
        request[CONTEXT] = SimpleNamespace(member=member, asking=member, error=None, response=None)
        return await handler(request)

    app = web.Application(middlewares=[signed_in, errors])
    accounts = app[ACCOUNTS] = Accounts(store)
    await accounts.refresh()
    app[CLOCK] = lambda: NOW
    app[PRICES] = load_prices()
    app.router.add_get("/api/usage/summary", api.usage_summary)
    app.router.add_get("/api/usage/timeseries", api.usage_timeseries)
    app.router.add_get("/api/usage/by-key", api.usage_by_key)
    app.router.add_get("/api/usage/by-model", api.usage_by_model)
    app.router.add_get("/api/requests", api.usage_requests)
    async with TestClient(TestServer(app)) as found:
        yield found


async def ask(client, path: str, **query) -> dict:
    answer = await client.get(URL(path).with_query(query))
    assert answer.status == 200, await answer.text()
    assert answer.content_type == "application/json"
    return await answer.json()


async def test_the_summary_has_sums_latency_and_the_quota(client):
    found = await ask(client, "/api/usage/summary")
    assert (found["start"], found["end"]) == ("2026-11-01T00:00:00Z", "2026-11-18T12:00:00Z")
    assert (found["requests"], found["errors"], found["output_tokens"]) == (3, 1, 15)
    assert (found["mean_first_byte_ms"], found["mean_duration_ms"]) == (12, 34)
    assert 12 <= found["first_byte_ms"]["p50"] <= 16
    assert 32 <= found["duration_ms"]["p99"] <= 48
    assert found["quota"] == {
        "month": MONTH, "used_tokens": 15, "reserved_tokens": 0, "monthly_tokens": 0,
    }  # fmt: skip
    of_b = await client.get("/api/usage/summary", headers={"Account": "b"})
    quota = (await of_b.json())["quota"]
    assert (quota["reserved_tokens"], quota["monthly_tokens"]) == (10, 100)


async def test_a_time_series_is_columns_beside_their_starts(client):
    found = await ask(
        client, "/api/usage/timeseries", bucket="hour", by="level", start=utc_text(NOW - HOUR_MS)
    )
    assert found["starts"] == ["2026-11-18T10:00:00Z", "2026-11-18T11:00:00Z"]
    assert (found["bucket"], found["by"]) == ("hour", "level")
    assert [(line["group"], line["requests"]) for line in found["series"]] == [
        ("lite", [1, 0]), ("none", [0, 1]),
    ]  # fmt: skip
    assert found["series"][0]["mean_duration_ms"] == [34, None]
    by_day = await ask(client, "/api/usage/timeseries")
    assert len(by_day["starts"]) == 31
    [line] = by_day["series"]
    assert (line["group"], line["requests"][-1], line["errors"][-1]) == ("", 3, 1)


async def test_keys_and_models_come_with_what_they_used(client):
    [key] = (await ask(client, "/api/usage/by-key"))["keys"]
    assert (key["key_id"], key["name"], key["requests"]) == ("key-a", "main", 3)
    assert key["last_used_at"] == "2026-11-18T11:06:40Z"
    [model] = (await ask(client, "/api/usage/by-model"))["models"]
    assert (model["model"], model["charged_tokens"]) == ("gpt-x", 15)


async def test_requests_come_in_pages_and_never_those_of_another_account(client):
    first = await ask(client, "/api/requests", limit="2")
    assert [row["intensity"] for row in first["requests"]] == ["none", "lite"]
    last = await ask(client, "/api/requests", limit="2", before=first["next"])
    assert [row["outcome"] for row in last["requests"]] == ["upstream_error"]
    assert last["next"] is None
    failed = await ask(client, "/api/requests", outcome="upstream_error", key_id="key-a")
    assert failed["requests"] == last["requests"]
    assert (await ask(client, "/api/requests", model="secret-of-b"))["requests"] == []


@pytest.mark.parametrize(
    "path", ["usage/summary", "usage/timeseries", "usage/by-key", "usage/by-model", "requests"]
)
async def test_a_parameter_that_is_not_known_is_named_in_the_error(client, path):
    answer = await client.get(f"/api/{path}?account_id=b")
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (
        400,
        "invalid_parameter",
        "account_id",
    )
    assert "account_id" in error["message"]
