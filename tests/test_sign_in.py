"""Signing in: sessions, cookies, and what guessing gets."""

import asyncio
import re
from dataclasses import replace

import pytest
from conftest import Proxy, StartProxy
from staff import COOKIE, PASSWORD, Caller, hire, member, script

from mintoken.clock import utc_ms
from mintoken.people import Role
from mintoken.rates import SIGN_INS_OF_ADDRESS, SIGN_INS_OF_NAME
from mintoken.stores.sqlite import open_sqlite


class Clock:
    """UTC milliseconds that the test moves."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return utc_ms() + self.ahead


async def test_who_signs_in_is_known_until_he_signs_out(proxy: Proxy) -> None:
    user = await hire(proxy.data_dir, "ada", Role.ADMIN)
    ada = await Caller(proxy).sign_in("ada")
    me = await ada.ask("GET", "/api/me")
    assert (me["id"], me["name"], me["role"]) == (user.id, "ada", "admin")
    assert (me["account_id"], me["account_name"]) == (user.account_id, "default")
    await ada.ask("POST", "/api/logout")
    assert ada.status == 204
    cleared = ada.last.headers["Set-Cookie"]
    assert re.match(rf'{COOKIE}=""; .*Max-Age=0', cleared)
    document = await ada.ask("GET", "/api/me")
    assert (ada.status, document["error"]["code"]) == (401, "not_signed_in")
    await ada.ask("POST", "/api/logout")
    assert ada.status == 204
    assert any(line["event"] == "signed_in" for line in proxy.log_lines())


async def test_the_cookie_is_for_this_server_and_no_script(proxy: Proxy) -> None:
    await hire(proxy.data_dir, "ada", Role.ADMIN)
    caller = Caller(proxy)
    await caller.sign_in("ada")
    cookie = caller.last.headers["Set-Cookie"].replace(caller.token, "...")
    assert cookie == f"{COOKIE}=...; HttpOnly; Path=/; SameSite=Strict"


async def test_over_tls_the_cookie_is_for_tls_alone(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(admin_tls="true")
    await hire(proxy.data_dir, "ada", Role.ADMIN)
    caller = Caller(proxy)
    await caller.ask("POST", "/api/login", {"name": "ada", "password": PASSWORD})
    name, token = re.match(r"([^=]+)=([^;]+); ", caller.last.headers["Set-Cookie"]).groups()
    end = "; HttpOnly; Path=/; SameSite=Strict; Secure"
    assert caller.last.headers["Set-Cookie"] == f"{name}={token}{end}"
    assert name == f"__Host-{COOKIE}"
    for sent, status in ((name, 200), (COOKIE, 401)):
        ada = Caller(proxy, {"Cookie": f"{sent}={token}"})
        await ada.ask("GET", "/api/me")
        assert ada.status == status
    ada = Caller(proxy, {"Cookie": f"{name}={token}"})
    await ada.ask("POST", "/api/logout")
    assert ada.last.headers["Set-Cookie"].endswith("; Path=/; SameSite=Strict; Secure")


async def test_an_unknown_user_and_a_wrong_password_get_the_same_answer(proxy: Proxy) -> None:
    await hire(proxy.data_dir, "ada", Role.ADMIN)
    caller, answers = Caller(proxy), []
    for name, password in (("ada", "wrong" * 4), ("bob", PASSWORD), ("", ""), ("ada", "")):
        document = await caller.ask("POST", "/api/login", {"name": name, "password": password})
        headers = {
            name: value
            for name, value in caller.last.headers.items()
            if name not in ("Date", "X-Mintoken-Request-Id", "X-Mintoken-Duration-Ms")
        }
        answers.append((caller.status, document, headers))
    assert answers[0][:2] == (401, answers[0][1])
    assert answers[0][1]["error"]["code"] == "invalid_login"
    assert all(answer == answers[0] for answer in answers)


async def test_a_session_id_that_was_there_before_is_of_no_use_after(proxy: Proxy) -> None:
    """Session fixation: whoever planted or saw the old one does not get the new one's."""
    await hire(proxy.data_dir, "ada", Role.OWNER)
    planted = Caller(proxy, {"Cookie": f"{COOKIE}={'A' * 43}"})
    first = await planted.sign_in("ada")
    await planted.ask("GET", "/api/me")
    assert planted.status == 401
    second = await Caller(proxy, first.headers).sign_in("ada")
    assert second.headers != first.headers
    for caller, status in ((first, 401), (second, 200)):
        await caller.ask("GET", "/api/me")
        assert caller.status == status


async def test_another_browser_stays_signed_in(proxy: Proxy) -> None:
    await hire(proxy.data_dir, "ada", Role.OWNER)
    first, second = [await Caller(proxy).sign_in("ada") for _ in range(2)]
    await first.ask("POST", "/api/logout")
    await second.ask("GET", "/api/me")
    assert second.status == 200


async def test_a_session_ends_by_being_idle_and_by_its_age(start_proxy: StartProxy) -> None:
    clock = Clock()
    proxy = await start_proxy(clock=clock, admin_session_idle=600, admin_session_limit=3000)
    await hire(proxy.data_dir, "ada", Role.OWNER)
    idle = await Caller(proxy).sign_in("ada")
    used = await Caller(proxy).sign_in("ada")
    seen = []
    for _ in range(8):
        clock.ahead += 500_000
        await used.ask("GET", "/api/me")
        seen.append(used.status)
    assert seen == [200] * 5 + [401] * 3
    await idle.ask("GET", "/api/me")
    assert idle.status == 401


async def test_a_removed_or_changed_user_is_signed_out_at_once(proxy: Proxy) -> None:
    users = [await hire(proxy.data_dir, name, Role.OWNER) for name in ("ada", "bob", "eve")]
    ada, bob, eve = [await Caller(proxy).sign_in(user.name) for user in users]
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    await store.remove_user(users[0].id)
    await store.set_password(users[1].id, "$argon2id$other")
    await store.save_user(replace(users[2], role=Role.VIEWER))
    await store.close()
    for caller, path, status in (
        (ada, "/api/me", 401), (bob, "/api/me", 401), (eve, "/api/me", 200),
        (eve, "/api/members", 403),
    ):  # fmt: skip
        await caller.ask("GET", path)
        assert caller.status == status


async def test_a_new_password_of_ones_own_ends_all_other_sessions(proxy: Proxy) -> None:
    new = "another canary of one"
    proxy.keys.append(new)
    await hire(proxy.data_dir, "ada", Role.VIEWER)
    here, there = [await Caller(proxy).sign_in("ada") for _ in range(2)]
    for current, wanted, status in (
        ("wrong" * 4, new, 401), (PASSWORD, "short", 400), (PASSWORD, new, 204),
    ):  # fmt: skip
        body = {"current_password": current, "new_password": wanted}
        await here.ask("POST", "/api/me/password", body)
        assert here.status == status
    fresh = Caller(proxy, {"Cookie": f"{COOKIE}={here.token}"})
    for caller, status in ((here, 401), (there, 401), (fresh, 200)):
        await caller.ask("GET", "/api/me")
        assert caller.status == status
    await there.ask("POST", "/api/login", {"name": "ada", "password": PASSWORD})
    assert there.status == 401
    await Caller(proxy).sign_in("ada", new)


async def test_guessing_one_name_is_throttled_even_all_at_once(proxy: Proxy) -> None:
    await hire(proxy.data_dir, "ada", Role.OWNER)
    callers = [Caller(proxy) for _ in range(SIGN_INS_OF_NAME + 5)]
    guess = {"name": "ada", "password": "guess" * 3}
    await asyncio.gather(*(caller.ask("POST", "/api/login", guess) for caller in callers))
    assert sorted(caller.status for caller in callers) == [401] * SIGN_INS_OF_NAME + [429] * 5
    caller = Caller(proxy)
    document = await caller.ask("POST", "/api/login", {"name": "ada", "password": PASSWORD})
    assert document["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(caller.last.headers["Retry-After"]) <= 60
    await hire(proxy.data_dir, "bob", Role.OWNER)
    await Caller(proxy).sign_in("bob")


async def test_guessing_many_names_from_one_address_is_throttled(proxy: Proxy) -> None:
    callers = [Caller(proxy) for _ in range(SIGN_INS_OF_ADDRESS + 3)]
    await asyncio.gather(
        *(
            caller.ask("POST", "/api/login", {"name": f"user {n}", "password": "guess" * 3})
            for n, caller in enumerate(callers)
        )
    )
    assert sorted(caller.status for caller in callers) == [401] * SIGN_INS_OF_ADDRESS + [429] * 3


@pytest.mark.parametrize("header", ["Authorization", "Cookie"])
async def test_guessing_keys_and_sessions_is_throttled(proxy: Proxy, header: str) -> None:
    wrong = {"Authorization": "Bearer mt_admin_no", "Cookie": f"{COOKIE}=no"}[header]
    caller, found = Caller(proxy, {header: wrong}), []
    for _ in range(62):
        await caller.ask("GET", "/api/me")
        found.append(caller.status)
    assert found == [401] * 60 + [429] * 2
    good = await script(proxy, Role.VIEWER)
    await good.ask("GET", "/api/me")
    assert good.status == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Basic YTpi", "bearer mt_admin_x", "Bearer " + "é" * 9],
)
async def test_odd_credentials_are_refused(proxy: Proxy, given: str) -> None:
    caller = Caller(proxy, {"Authorization": given})
    document = await caller.ask("GET", "/api/me")
    assert (caller.status, document["error"]["code"]) == (401, "not_signed_in")


async def test_a_wrong_key_is_not_made_good_by_a_session(proxy: Proxy) -> None:
    ada = await member(proxy, Role.OWNER)
    await ada.ask("GET", "/api/me", Authorization=f"Bearer {proxy.key}")
    assert ada.status == 401


async def test_nothing_secret_is_in_the_log_or_the_data(proxy: Proxy) -> None:
    ada = await member(proxy, Role.OWNER)
    for body in (
        {"name": "ada", "password": PASSWORD, "more": PASSWORD},
        {"name": PASSWORD, "password": PASSWORD},
        {"password": PASSWORD},
        [PASSWORD],
    ):
        document = await ada.ask("POST", "/api/login", body)
        assert PASSWORD not in str(document)
    issued = await ada.ask("POST", "/api/keys", {})
    proxy.keys.append(issued["raw_key"])
    proxy.assert_no_secret()
