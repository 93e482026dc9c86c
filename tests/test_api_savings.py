"""Savings as programs ask for them, each of his own account."""

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
