"""Every route, asked by everybody: exactly those may who are named for it."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from conftest import CHAT, PROVIDER_CANARY, Proxy, StartProxy, config_for
from fake_upstream import FakeUpstream
from staff import PASSWORD, Caller, hire, member, script

from mintoken.app import ROUTES
from mintoken.context import Access
from mintoken.people import Role
from mintoken.rates import RateLimiter, RateTable
from mintoken.routes.dashboard import DASHBOARD
from mintoken.routes.openapi import OPERATIONS
from mintoken.server import Server, bind

NUMBERS = count()


def _some_name() -> str:
    return f"made {next(NUMBERS)}"


BODIES: dict[tuple[str, str], Callable[[], object]] = {
    ("POST", "/api/login"): lambda: {"name": "somebody", "password": PASSWORD},
    ("POST", "/api/me/password"): lambda: {
        "current_password": PASSWORD, "new_password": PASSWORD,
    },
    ("PATCH", "/api/account"): lambda: {"monthly_tokens": 7},
    ("POST", "/api/members"): lambda: {
        "name": _some_name(), "role": "viewer", "password": PASSWORD,
    },
    ("POST", "/api/keys"): lambda: {"name": _some_name()},
    ("PATCH", "/api/keys/{id}"): lambda: {"intensity": "lite"},
    ("POST", "/api/keys/{id}/playground"): lambda: CHAT,
    ("POST", "/api/rules"): lambda: {"action": "never_compress", "pattern": "x"},
    ("POST", "/api/rules/try"): lambda: {"text": "x"},
}  # fmt: skip
"""What a request needs to succeed; of routes that are not here, nothing."""
FOR_MEMBERS = [
    (method, path, access)
    for method, path, _, access in ROUTES
    if access is not Access.OPEN and path.startswith("/api") and path != "/api/events"
]

Ids = Callable[[str], Awaitable[str]]


def ids(owner: Caller) -> Ids:
    """A path with the id of something that was just made for it in the owner's account."""

    async def filled(path: str) -> str:
        kind = path.removeprefix("/api/").partition("/")[0]
        if "{id}" not in path:
            return path
        made = await owner.ask("POST", f"/api/{kind}", BODIES["POST", f"/api/{kind}"]())
        assert owner.status == 201
        return path.replace("{id}", made["id"])

    return filled


async def nobody(proxy: Proxy) -> Caller:
    return Caller(proxy)


async def signed_out(proxy: Proxy) -> Caller:
    caller = await member(proxy, Role.OWNER)
    await caller.ask("POST", "/api/logout")
    return caller


async def application(proxy: Proxy) -> Caller:
    return Caller(proxy, {"Authorization": f"Bearer {proxy.key}"})


WHO: dict[str, tuple[Callable[[Proxy], Awaitable[Caller]], Role | None]] = {
    "nobody": (nobody, None),
    "who signed out": (signed_out, None),
    "an application's key": (application, None),
    **{f"{role} signed in": (lambda proxy, role=role: member(proxy, role), role) for role in Role},
    **{f"{role} script": (lambda proxy, role=role: script(proxy, role), role) for role in Role},
}


@pytest.mark.parametrize("who", WHO)
async def test_exactly_those_may_ask_who_are_named_for_a_route(proxy: Proxy, who: str) -> None:
    make, role = WHO[who]
    by = member if "script" in who else script
    filled = ids(await by(proxy, Role.OWNER))
    await hire(proxy.data_dir, "somebody", Role.VIEWER)
    caller, wrong = await make(proxy), []
    for method, path, access in FOR_MEMBERS:
        body = BODIES.get((method, path), lambda: None)()
        await caller.ask(method, await filled(path), body, X_Provider_Key=PROVIDER_CANARY)
        refused = _refusal(access, role, wrong_key=who == "an application's key")
        if path == "/api/me/password" and "script" in who:
            refused = 403  # A key has none.
        expected = refused or OPERATIONS[method, path].status
        if caller.status != expected:
            wrong.append((method, path, caller.status, expected))
        if path in ("/api/login", "/api/logout", "/api/me/password"):
            caller = Caller(proxy, caller.headers) if role is None else await _again(caller, make)
    assert wrong == []


def _refusal(access: Access, role: Role | None, *, wrong_key: bool) -> int:
    """The status of who may not ask; 0 if he may."""
    if access is Access.SIGN_IN:
        return 401 if wrong_key else 0
    if role is None:
        return 401
    return 0 if access.role is None or role.includes(access.role) else 403


async def _again(caller: Caller, make: Callable[[Proxy], Awaitable[Caller]]) -> Caller:
    """Who signed in anew, or out, has no session any more that he had."""
    if "Authorization" in caller.headers:
        return caller
    role = next(role for one, role in WHO.values() if one is make)
    return await Caller(caller.proxy).sign_in(f"{role} of default")


@pytest.mark.parametrize("make", [member, script])
async def test_what_is_of_another_account_is_not_there(proxy: Proxy, make) -> None:
    await hire(proxy.data_dir, "somebody", Role.OWNER, "other")
    stranger = await make(proxy, Role.OWNER, "other")
    filled = ids(await member(proxy, Role.OWNER))
    for method, path, access in FOR_MEMBERS:
        if access.role and "{id}" in path:
            body = BODIES.get((method, path), lambda: None)()
            document = await stranger.ask(method, await filled(path), body)
            assert (stranger.status, document["error"]["code"]) == (404, "not_found"), path
    for path in ("/api/keys", "/api/rules"):
        assert (await stranger.ask("GET", path))["data"] == []
    mine = await filled("/api/keys/{id}/revoke")
    tried = {"text": "x", "key_id": mine.split("/")[3]}
    await stranger.ask("POST", "/api/rules/try", tried)
    assert stranger.status == 404
    names = [one["name"] for one in (await stranger.ask("GET", "/api/members"))["data"]]
    assert "somebody" in names
    assert "owner of default" not in names
    assert (await stranger.ask("GET", "/api/account"))["name"] == "other"


TWO = {"server_admin_listen": "127.0.0.2:0"}
"""Of the same address, there is one listener for both."""


async def test_the_public_listener_has_none_of_it(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(**TWO)
    owner = await script(proxy, Role.OWNER)
    asked = [(method, path) for method, path, _ in FOR_MEMBERS]
    asked += [("PUT", "/api/keys"), ("GET", "/api/login"), ("GET", "/api")]
    asked += [(method, path) for method, path, _, _ in DASHBOARD]
    for method, path in asked:
        answer = await proxy.session.request(
            method, f"{proxy.url}{path}", headers=owner.headers, json={}
        )
        assert (answer.status, answer.headers["X-Mintoken-Error"]) == (404, "not_found"), path
        assert "Allow" not in answer.headers
        assert "Content-Security-Policy" not in answer.headers


async def test_a_route_that_is_not_marked_is_there_for_nobody(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async def forgotten(request: web.Request) -> web.Response:
        return web.Response(text="never seen")

    config, table = config_for(upstream, tmp_path / "data"), RateTable()
    rates = RateLimiter(table, lambda: 0.0)
    sockets = bind(config)
    server = Server(config, sockets, rates, admin=sockets[-1])
    server._app.router.add_get("/forgotten", forgotten)
    listening = await server.start()
    async with aiohttp.ClientSession() as session:
        url = f"http://{listening.admin}"
        proxy = Proxy(url, url, "mt_none", tmp_path / "data", io.StringIO(), session)
        owner = await script(proxy, Role.OWNER)
        document = await owner.ask("GET", "/forgotten")
    await server.close()
    rates.close()
    table.close()
    assert (owner.status, document["error"]["code"]) == (404, "not_found")


async def test_changes_are_in_the_log_with_who_made_them(proxy: Proxy) -> None:
    owner = await member(proxy, Role.OWNER)
    await owner.ask("GET", "/api/keys")
    await owner.ask("PATCH", "/api/account", {"monthly_tokens": 3})
    me = await owner.ask("GET", "/api/me")
    told = [line for line in proxy.log_lines() if line["event"] == "administered"]
    assert [(line["user"], line["method"], line["route"], line["status"]) for line in told] == [
        (me["id"], "PATCH", "/api/account", 200)
    ]


async def test_on_one_address_for_both_it_is_there(served, upstream) -> None:
    async with aiohttp.ClientSession() as session:
        await served.start(session)
        async with session.get(f"{served.url}/api/me") as answer:
            assert answer.status == 401
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_answer_of_the_admin_listener_keeps_browsers_safe(
    start_proxy: StartProxy,
) -> None:
    proxy = await start_proxy(**TWO)
    caller = Caller(proxy)
    for method, path in (
        ("GET", "/api/me"), ("GET", "/healthz"), ("GET", "/nothing"), ("PUT", "/api/me"),
        ("GET", "/api/openapi.json"), ("GET", "/v1/models"), ("POST", "/api/login"),
    ):  # fmt: skip
        await caller.ask(method, path)
        assert caller.last is not None
        headers = caller.last.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
    for bad in (b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n"):
        assert b"frame-ancestors 'none'" in await _raw(proxy.admin_url, bad)
        assert b"frame-ancestors" not in await _raw(proxy.url, bad)


async def _raw(url: str, data: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


CROSS_SITE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "HERE"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
]
SAME_SITE = [{}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": "HERE"}]


@pytest.mark.parametrize("said", [*CROSS_SITE, *SAME_SITE], ids=str)
async def test_a_page_of_another_site_changes_nothing(proxy: Proxy, said: dict[str, str]) -> None:
    headers = {name: value.replace("HERE", proxy.admin_url) for name, value in said.items()}
    refused = said in CROSS_SITE
    owner = await member(proxy, Role.OWNER)
    caller = Caller(proxy, owner.headers | headers)
    await caller.ask("POST", "/api/keys", {"name": "planted"})
    assert caller.status == (403 if refused else 201)
    await caller.ask("POST", "/api/login", {"name": "owner of default", "password": PASSWORD})
    assert caller.status == (403 if refused else 200)
    again = await Caller(proxy).sign_in("owner of default")
    names = [key["name"] for key in (await again.ask("GET", "/api/keys"))["data"]]
    assert ("planted" in names) != refused
    await (await script(proxy, Role.ADMIN)).ask("POST", "/api/keys", {"name": "x"}, **headers)


async def test_a_form_is_no_json(proxy: Proxy) -> None:
    owner = await member(proxy, Role.OWNER)
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
        await owner.ask("POST", "/api/keys", {"name": "x"}, Content_Type=kind)
        assert owner.status == 415
