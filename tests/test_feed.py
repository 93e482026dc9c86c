"""The live feed: every settled request once and in its order, whatever breaks in between."""

import asyncio
import json
import signal
import subprocess
import sys

import aiohttp
import pytest
from aiohttp_sse_client.client import EventSource
from conftest import CHAT, Proxy, Served, StartProxy, eventually, usage_rows
from staff import Caller, hire, member, script
from store_cases import add_account, reservation, reserve, settle, settlement

from mintoken import members
from mintoken.clock import utc_ms
from mintoken.people import Role
from mintoken.stores.sqlite import open_sqlite

# --- The store's order --------------------------------------------------------------------------


async def test_places_are_those_of_the_settlements_over_all_workers(open_store, store):
    other = await open_store()
    await add_account(store, "b")
    assert await store.newest_place() == 0
    await reserve(store, reservation("1"), reservation("2"), reservation("3", "b"))
    await settle(other, settlement("2"))
    await settle(store, settlement("3"), settlement("1"))
    found = await other.settled_after(0, account_id="a", limit=9)
    assert [one.row.id for one in found] == ["2", "1"]
    assert [one.place for one in found] == [1, 3]
    assert await store.newest_place() == 3
    assert [one.row.id for one in await store.settled_after(1, account_id="a", limit=9)] == ["1"]
    assert len(await store.settled_after(0, account_id="a", limit=1)) == 1


async def test_what_is_settled_twice_has_one_place_and_what_is_purged_none(store):
    await reserve(store, reservation("1"))
    for _ in range(2):
        await settle(store, settlement("1"))
    assert len(await store.settled_after(0, account_id="a", limit=9)) == 1
    assert await store.purge(before="2026-12", limit=9) == 1
    assert await store.settled_after(0, account_id="a", limit=9) == []
    await reserve(store, reservation("2"))
    await settle(store, settlement("2"))
    assert [one.place for one in await store.settled_after(1, account_id="a", limit=9)] == [2]


# --- By HTTP ------------------------------------------------------------------------------------


async def test_a_listener_gets_what_is_settled_and_goes_on_where_he_was(proxy: Proxy) -> None:
    headers = (await script(proxy, Role.VIEWER)).headers
    url = f"{proxy.admin_url}/api/events"
    async with EventSource(url, session=proxy.session, headers=dict(headers)) as source:
        begin = await anext(source)
        assert begin.type == "begin"
        await proxy.post(CHAT | {"model": "first"})
        event = await asyncio.wait_for(anext(source), 5)
    shown = json.loads(event.data)
    [row] = await proxy.settled()
    assert (shown["id"], shown["model"], shown["outcome"]) == (row["id"], "first", "ok")
    assert "content" not in shown
    assert "Say hello." not in event.data
    await proxy.post(CHAT | {"model": "second"})
    await proxy.settled(2)
    for place, models in (
        (begin.last_event_id, ["first", "second"]),
        (event.last_event_id, ["second"]),
    ):
        asked = headers | {"Last-Event-ID": place}
        async with EventSource(url, session=proxy.session, headers=asked) as source:
            assert (await anext(source)).last_event_id == place
            found = [json.loads((await anext(source)).data)["model"] for _ in models]
        assert found == models


async def remove_viewer(proxy: Proxy, caller: Caller) -> None:
    me = await caller.ask("GET", "/api/me")
    await (await script(proxy, Role.OWNER)).ask("DELETE", f"/api/members/{me['id']}")


async def sign_out(proxy: Proxy, caller: Caller) -> None:
    await caller.ask("POST", "/api/logout")


async def revoke_key(proxy: Proxy, caller: Caller) -> None:
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    await members.revoke_admin_key(store, "viewer script", now_ms=utc_ms())
    await store.close()


@pytest.mark.parametrize(
    ("make", "end"), [(member, sign_out), (member, remove_viewer), (script, revoke_key)]
)
async def test_who_may_not_ask_any_more_is_told_nothing_more(proxy: Proxy, make, end) -> None:
    caller = await make(proxy, Role.VIEWER)
    url, headers = f"{proxy.admin_url}/api/events", caller.headers
    async with proxy.session.get(url, headers=headers, cookies={}) as answer:
        await proxy.post(CHAT | {"model": "before"})
        assert b"before" in await answer.content.readuntil(b"}\r\n\r\n")
        await end(proxy, caller)
        await proxy.post(CHAT | {"model": "after"})
        assert b"after" not in await asyncio.wait_for(answer.content.read(), 5)


@pytest.mark.parametrize("place", ["x", "-1", "1.5", "9" * 19, "١"])
async def test_a_place_that_is_none_is_refused(proxy: Proxy, place: str) -> None:
    caller = await script(proxy, Role.VIEWER)
    found = await caller.ask("GET", f"/api/events?after={place}")
    assert caller.status == 400
    assert found["error"]["param"] == "after"


async def test_a_place_of_another_database_begins_now(proxy: Proxy) -> None:
    headers = (await script(proxy, Role.VIEWER)).headers | {"Last-Event-ID": "5000"}
    url = f"{proxy.admin_url}/api/events"
    async with EventSource(url, session=proxy.session, headers=headers) as source:
        assert (await anext(source)).last_event_id == "0"


async def test_a_member_sees_only_his_account(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    stranger = await hire(proxy.data_dir, "eve", Role.OWNER, "other")
    assert stranger.account_id
    headers = (await script(proxy, Role.OWNER, "other")).headers | {"Last-Event-ID": "0"}
    await proxy.post()
    await proxy.settled()
    url = f"{proxy.admin_url}/api/events"
    async with EventSource(url, session=proxy.session, headers=headers) as source:
        await anext(source)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(source), 1)


# --- What breaks --------------------------------------------------------------------------------


async def test_nothing_is_lost_or_repeated_over_reconnects_reloads_and_restarts(
    served: Served,
) -> None:
    served.environ["MINTOKEN_SERVER_WORKERS"] = "2"
    headers = {"Authorization": f"Bearer {await key_of(served)}"}
    stop, seen, connections = asyncio.Event(), list[str](), 0

    async def listen(session: aiohttp.ClientSession) -> None:
        """Hangs up after each few events, and goes on at the last place."""
        nonlocal connections
        place = "0"
        while True:
            try:
                async with EventSource(
                    f"{served.url}/api/events", session=session, max_connect_retry=0,
                    headers=headers | {"Last-Event-ID": place},
                ) as source:  # fmt: skip
                    connections += 1
                    for _ in range(7):  # Where a stream ends well, it connects by itself.
                        event = await anext(source)
                        if event.type != "begin":
                            seen.append(json.loads(event.data)["id"])
                        place = event.last_event_id
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.02)

    async def load(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            try:
                async with session.post(
                    f"{served.url}/v1/chat/completions", json=CHAT, headers=served.headers
                ) as answer:
                    await answer.read()
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)

    async def more_come() -> None:
        target = len(seen) + 30
        await eventually(lambda: len(seen) >= target, within=30)

    async with aiohttp.ClientSession() as session:
        await served.start(session)
        listening = asyncio.create_task(listen(session))
        loads = [asyncio.create_task(load(session)) for _ in range(4)]
        for restart in range(5):
            await more_come()
            served.signal(signal.SIGHUP)
            await more_come()
            await served.stop(signal.SIGKILL if restart % 2 else signal.SIGTERM)
            await served.start(session)
        stop.set()
        await asyncio.gather(*loads)

        def settled() -> list[str]:
            rows = usage_rows(served.data_dir)
            return [row["id"] for row in rows if row["outcome"] != "reserved"]

        await eventually(lambda: len(settled()) == len(usage_rows(served.data_dir)), within=30)
        await eventually(lambda: len(seen) >= len(settled()), within=30)
        await asyncio.sleep(0.5)  # What came twice would come now.
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert connections > 20
    assert sorted(seen) == settled()


# --- mintoken tail ------------------------------------------------------------------------------


async def key_of(served: Served) -> str:
    """A new admin key."""
    store = await open_sqlite(served.data_dir, clock_ms=utc_ms)
    try:
        issued = await members.create_admin_key(
            store, served.data_dir, "default", "tail", Role.VIEWER, now_ms=utc_ms()
        )
    finally:
        await store.close()
    return issued.token


async def test_tail_prints_what_is_settled_and_survives_a_restart(served: Served) -> None:
    environ = served.environ | {"MINTOKEN_TOKEN": await key_of(served)}
    async with aiohttp.ClientSession() as session:
        await served.start(session)
        command = (sys.executable, "-m", "mintoken", "tail", "--url", served.url, "--json")
        tail = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert tail.stdout is not None
        line = None

        async def ask() -> None:
            async with session.post(
                f"{served.url}/v1/chat/completions", json=CHAT, headers=served.headers
            ) as answer:
                await answer.read()

        for _ in range(2):
            for _ in range(100):  # Until it listens.
                await ask()
                try:
                    line = await asyncio.wait_for(tail.stdout.readline(), 0.3)
                    break
                except TimeoutError:
                    continue
            assert line is not None
            assert json.loads(line)["model"] == CHAT["model"]
            await served.stop(signal.SIGTERM)
            await served.start(session)
        tail.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(tail.wait(), 10) == 0
        assert tail.stderr is not None
        assert b"Traceback" not in await tail.stderr.read()


@pytest.mark.parametrize(
    ("key", "says"),
    [(None, "mintoken admin-keys create"), ("mt_admin_x", "no admin key that is in use")],
)
async def test_tail_says_what_is_wrong_with_its_key(
    served: Served, key: str | None, says: str
) -> None:
    async with aiohttp.ClientSession() as session:
        await served.start(session)
    options = () if key is None else ("--key", key)
    tail = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mintoken", "tail", "--url", served.url, *options,
        env={**served.environ, "COLUMNS": "200"}, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, told = await asyncio.wait_for(tail.communicate(), 20)
    assert tail.returncode == 2
    assert says in told.decode()
