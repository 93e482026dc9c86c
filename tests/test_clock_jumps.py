"""A clock that jumps, and months that end in mid-request: what counts is when a request came."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine
from conftest import CHAT, Proxy, StartProxy, audit
from fake_upstream import DONE, END, FakeUpstream, completion, delta, json_reply, stream_head

from mintoken.cli import main


def at(text: str) -> int:
    """UTC milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class MovedClock:
    """Stands still but for being moved; UTC milliseconds."""

    def __init__(self, text: str) -> None:
        self.now_ms = at(text)

    def __call__(self) -> int:
        return self.now_ms

    def move_to(self, text: str) -> None:
        self.now_ms = at(text)


USAGE = {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}


def months(proxy: Proxy) -> list[tuple[str, str, int]]:
    return [(row["month"], row["outcome"], row["charged_tokens"]) for row in proxy.rows()]


async def test_a_stream_that_runs_into_the_next_month_counts_in_the_month_it_came(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    clock, gate = MovedClock("2026-11-30T23:59:59.900"), asyncio.Event()
    proxy = await start_proxy(clock=clock, monthly_tokens=10, quota_enforcement="strict")
    upstream.play(stream_head(), delta("Hello"), gate, delta(" there"), DONE, END)
    body = CHAT | {"stream": True, "max_tokens": 10}
    stream = asyncio.create_task(proxy.post(body))
    await upstream.received(1)
    # All of November is reserved, until its end; December is a month of its own.
    refused = await proxy.post(CHAT | {"max_tokens": 1})
    assert refused.status == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["X-Mintoken-Tokens-Limit"] == "10"
    clock.move_to("2026-12-01T00:00:00.100")
    upstream.play(json_reply(completion(usage=USAGE)))
    answer = await proxy.post(CHAT | {"max_tokens": 8})
    assert answer.status == 200
    assert answer.headers["X-Mintoken-Tokens-Used"] == "8"
    gate.set()
    assert (await stream).status == 200
    await proxy.settled(2)
    assert months(proxy) == [("2026-11", "ok", 2), ("2026-12", "ok", 8)]
    assert proxy.rows()[0]["started_at"] == at("2026-11-30T23:59:59.900")
    assert await audit(proxy.data_dir) == []


async def test_an_answer_in_the_next_month_tells_of_the_month_it_is_charged_to(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    clock, gate = MovedClock("2026-11-30T23:59:59"), asyncio.Event()
    proxy = await start_proxy(clock=clock, monthly_tokens=16, quota_enforcement="strict")
    upstream.play(json_reply(completion(usage=USAGE)))
    await proxy.post(CHAT | {"max_tokens": 8})
    await proxy.settled()
    upstream.play(gate, json_reply(completion(usage=USAGE)))
    asked = asyncio.create_task(proxy.post(CHAT | {"max_tokens": 8}))
    await upstream.received(2)
    clock.move_to("2026-12-01T00:00:01")
    gate.set()
    assert (await asked).headers["X-Mintoken-Tokens-Used"] == "16"
    await proxy.settled(2)
    assert {month for month, _, _ in months(proxy)} == {"2026-11"}


@pytest.mark.parametrize(
    "there", ["2020-02-29T12:00", "1970-01-01T00:00", "2038-01-19T03:14:08", "2999-12-31T23:59:59"]
)
async def test_a_clock_that_jumps_in_mid_request_makes_no_wild_times(
    start_proxy: StartProxy, upstream: FakeUpstream, there: str
) -> None:
    clock, gate = MovedClock("2026-11-15T12:00"), asyncio.Event()
    proxy = await start_proxy(clock=clock)
    upstream.play(stream_head(), delta("Hello"), gate, delta(" there"), DONE, END)
    stream = asyncio.create_task(proxy.post(CHAT | {"stream": True}))
    await upstream.received(1)
    clock.move_to(there)
    answer = await proxy.post()
    assert answer.status == 200
    assert 0 <= int(answer.headers["X-Mintoken-Duration-Ms"]) < 60_000
    gate.set()
    assert (await stream).status == 200
    rows = await proxy.settled(2)
    for row in rows:
        assert 0 <= row["first_byte_ms"] <= row["duration_ms"] < 60_000
    assert {row["month"] for row in rows} == {"2026-11", there[:7]}
    assert {row["started_at"] for row in rows} == {at("2026-11-15T12:00"), at(there)}
    # Ids follow the clock, and never meet.
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    assert all(0 <= line["ms"] < 60_000 for line in proxy.log_lines() if "ms" in line)
    async with proxy.session.get(f"{proxy.url}/readyz") as ready:
        assert ready.status in (200, 503)
    assert await audit(proxy.data_dir) == []


async def test_a_month_that_comes_again_goes_on_where_it_was(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    clock = MovedClock("2026-11-30T12:00")
    upstream.default = [json_reply(completion(usage=USAGE))]
    body = CHAT | {"max_tokens": 8}
    proxy = await start_proxy(clock=clock, monthly_tokens=10, quota_enforcement="strict")
    statuses = []
    for moment in ("2026-11-30T12:00", "2026-12-01T00:01", "2026-11-30T12:01"):
        clock.move_to(moment)
        statuses.append((await proxy.post(body)).status)
    # Set back into November, whose quota is used up; it does not start again.
    assert statuses == [200, 200, 429]
    await proxy.settled(2)
    assert await audit(proxy.data_dir) == []


async def test_a_key_expires_and_comes_back_with_the_clock(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    clock = MovedClock("2026-11-15T11:59:59.999")
    expiry = at("2026-11-15T12:00")
    proxy = await start_proxy(clock=clock, key={"expires_at": expiry})
    codes = []
    for moment in ("2026-11-15T11:59:59.999", "2026-11-15T12:00", "2026-11-15T11:00"):
        clock.move_to(moment)
        answer = await proxy.post()
        codes.append((answer.status, answer.headers.get("X-Mintoken-Error")))
    assert codes == [(200, None), (401, "expired_api_key"), (200, None)]


async def test_a_key_revoked_in_the_future_is_revoked_now(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    # The clock was ahead when it was revoked. An end is an end.
    clock = MovedClock("2026-11-15T12:00")
    revoked = at("2027-01-01T00:00")
    proxy = await start_proxy(clock=clock, key={"revoked_at": revoked})
    answer = await proxy.post()
    assert (answer.status, answer.headers["X-Mintoken-Error"]) == (401, "revoked_api_key")


def shown(capsys, *arguments: str):
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_the_commands_follow_the_clock_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", "data")
    with time_machine.travel("2026-11-30T23:00Z", tick=False):
        shown(capsys, "keys", "create", "--name", "app", "--expires", "2026-12-01")
        rotated = shown(capsys, "keys", "rotate", "app", "--overlap", "2h")
        # Never later than it was to end anyway.
        assert rotated["replaces"]["expires_at"] == "2026-12-01T00:00:00Z"
        assert shown(capsys, "usage")["month"] == "2026-11"
        assert main(["purge", "--before", "2026-12"]) == 2
        assert "The present month is 2026-11" in " ".join(capsys.readouterr().err.split())
    with time_machine.travel("2026-12-01T00:00Z", tick=False):
        assert {key["state"] for key in shown(capsys, "keys", "list")} == {"expired"}
        assert shown(capsys, "usage")["month"] == "2026-12"
        assert shown(capsys, "purge", "--before", "2026-12")["rows"] == 0
    with time_machine.travel("2026-11-01T00:00Z", tick=False):
        # Set back: they work again, and a key made later in an earlier time is listed.
        shown(capsys, "keys", "create", "--name", "earlier")
        first, *_ = shown(capsys, "keys", "list")
        assert (first["name"], first["state"]) == ("earlier", "active")
        assert {key["state"] for key in shown(capsys, "keys", "list")} == {"active"}
        assert shown(capsys, "accounts", "list")[0]["used_tokens"] == 0
