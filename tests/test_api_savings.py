"""Savings as programs ask for them, each of his own account."""

import pytest
from conftest import StartProxy
from staff import script

from mintoken.people import Role


async def test_savings_are_those_of_the_account(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"control": 50})
    for number in range(8):
        content = f"Question {number}"
        await proxy.post({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]})
    await proxy.settled(8)
    own = await (await script(proxy, Role.VIEWER)).ask("GET", "/api/savings")
    assert own["total"]["status"] == "collecting"
    assert sum(own["total"]["conversations"].values()) == 8
    assert [line["model"] for line in own["models"]] == ["gpt-4o"]
    assert own["stopped"] == []


async def test_since_leaves_out_what_came_before(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(key={"control": 50})
    await proxy.post()
    await proxy.settled()
    caller = await script(proxy, Role.VIEWER)
    for since in ("2099-01-01", "2099-01-01T00:00:00+02:00"):
        found = await caller.ask("GET", f"/api/savings?since={since.replace('+', '%2B')}")
        assert sum(found["total"]["conversations"].values()) == 0


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "-1"])
async def test_a_time_that_is_none_is_refused(start_proxy: StartProxy, since: str) -> None:
    caller = await script(await start_proxy(), Role.VIEWER)
    found = await caller.ask("GET", f"/api/savings?since={since}")
    assert caller.status == 400
    assert found["error"]["param"] == "since"
