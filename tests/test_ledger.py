"""Every upstream request exactly once, quotas that hold, and what the dead leave behind."""

import asyncio
from collections import Counter

from conftest import (
    CHAT,
    Proxy,
    StartProxy,
    add_key,
    audit,
    eventually,
)
from fake_upstream import FakeUpstream, completion, json_reply

from mintoken.models import Intensity

KILLS = 20


async def test_a_strict_quota_for_100_admits_exactly_100_of_200(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(monthly_tokens=1000, quota_enforcement="strict")
    usage = {"prompt_tokens": 1, "completion_tokens": 10, "total_tokens": 11}
    upstream.default = [json_reply(completion(usage=usage))]
    body = CHAT | {"max_completion_tokens": 10}
    answers = await asyncio.gather(*(proxy.post(body) for _ in range(200)))
    assert Counter(answer.status for answer in answers) == {200: 100, 429: 100}
    rows = await proxy.settled(100)
    assert sum(row["output_tokens"] for row in rows) == 1000
    assert len(upstream.requests) == 100
    assert await audit(proxy.data_dir) == []


async def test_a_soft_quota_admits_while_anything_is_left(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(monthly_tokens=5)
    statuses = []
    for _ in range(3):
        statuses.append((await proxy.post(CHAT | {"max_tokens": 2**63})).status)
        await eventually(lambda: all(r["outcome"] != "reserved" for r in proxy.rows()))
    assert statuses == [200, 200, 429], "3 + 3 tokens of 5, then nothing"


async def test_the_quota_can_count_all_tokens(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(monthly_tokens=100, quota_counts="total", quota_notice_at=0.1)
    answer = await proxy.post()
    assert answer.headers["X-Mintoken-Tokens-Used"] == "13"


async def test_the_quota_is_shown_from_80_percent_on_with_this_request_in_it(
    start_proxy: StartProxy,
) -> None:
    proxy = await start_proxy(monthly_tokens=10)
    shown = []
    for count in range(1, 4):
        answer = await proxy.post()
        shown.append(answer.headers.get("X-Mintoken-Tokens-Used"))
        await proxy.settled(count)
    assert shown == [None, None, "9"]
    assert answer.headers["X-Mintoken-Tokens-Limit"] == "10"


async def test_a_large_answer_is_not_held_back_for_the_quota_headers(
    start_proxy: StartProxy, upstream: FakeUpstream
) -> None:
    proxy = await start_proxy(monthly_tokens=2)
    upstream.play(json_reply(completion("x" * 3_000_000)))
    answer = await proxy.post()
    assert len(await answer.read()) > 3_000_000
    assert "X-Mintoken-Tokens-Used" not in answer.headers
    (row,) = await proxy.settled()
    assert (row["output_tokens"], row["counted_by"]) == (3, "upstream")


async def test_a_change_of_a_key_reaches_the_server_within_a_second(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    new = await add_key(proxy.data_dir, intensity=Intensity.LITE)
    proxy.keys.append(new)

    async def status() -> int:
        headers = {"Authorization": f"Bearer {new}"}
        return (await proxy.post(CHAT, **headers)).status

    deadline = asyncio.get_running_loop().time() + 1.0
    while await status() != 200:
        assert asyncio.get_running_loop().time() < deadline
    assert proxy.rows()[-1]["intensity"] == "lite"
