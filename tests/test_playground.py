"""The playground: a member asks as one of his account's keys, and sees what each level changes."""

import asyncio

import orjson
import pytest
from browser import add_user, looking
from conftest import CHAT, PROVIDER_CANARY, Proxy, StartProxy, add_key
from fake_upstream import (
    DIE,
    DONE,
    END,
    FakeUpstream,
    completion,
    delta,
    json_reply,
    stream_head,
    usage_chunk,
)  # fmt: skip
from playwright.async_api import Browser, Page, expect
from staff import Caller, hire, member, script

from mintoken.people import Role

WITH = {"X_Provider_Key": PROVIDER_CANARY}


async def path_of(caller: Caller) -> str:
    [key] = (await caller.ask("GET", "/api/keys"))["data"]
    return f"/api/keys/{key['id']}/playground"


async def test_it_asks_as_the_key_and_is_recorded_as_a_trial(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    admin = await member(proxy, Role.ADMIN)
    path = await path_of(admin)
    answer = await admin.ask("POST", path, CHAT, X_Mintoken_Intensity="ultra", **WITH)
    assert answer["choices"][0]["message"]["content"] == "Hello there."
    assert admin.last is not None
    assert admin.last.headers["X-Mintoken-Reason"] == "playground"
    [row] = await proxy.settled()
    assert (row["key_id"], row["intensity"]) == (path.split("/")[3], "ultra")
    assert (row["reason"], row["output_tokens"]) == ("playground", 3)
    [sent] = upstream.requests
    assert sent.target == "/v1/chat/completions"
    assert sent.header("Authorization") == f"Bearer {PROVIDER_CANARY}"
    assert sent.header("Cookie") is None
    assert orjson.loads(sent.body)["messages"][0]["role"] == "system"
    proxy.assert_no_secret()


async def test_what_a_trial_cost_is_in_its_row(proxy: Proxy) -> None:
    admin = await script(proxy, Role.ADMIN)
    await admin.ask("POST", await path_of(admin), CHAT, X_Mintoken_Intensity="none", **WITH)
    await proxy.settled()
    [row] = (await admin.ask("GET", "/api/requests"))["requests"]
    assert row["cost_usd"] == pytest.approx((10 * 2.5 + 3 * 10) / 1e6)  # Of gpt-4o-2024-08-06.
    assert row["key_name"] is not None


async def test_trials_are_in_no_experiment(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    await add_key(proxy.data_dir, name="half", control=50)
    admin = await script(proxy, Role.ADMIN)
    keys = (await admin.ask("GET", "/api/keys"))["data"]
    [half] = [key["id"] for key in keys if key["name"] == "half"]
    for number in range(20):
        chat = CHAT | {"messages": [{"role": "user", "content": f"Question {number}?"}]}
        await admin.ask("POST", f"/api/keys/{half}/playground", chat, **WITH)
    rows = await proxy.settled(20)
    assert {(row["arm"], row["conversation"]) for row in rows} == {("", "")}
    assert {row["reason"] for row in rows} == {"key"}


async def test_the_keys_limits_and_the_quota_hold(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    await add_key(proxy.data_dir, name="slow", rpm=1, monthly_tokens=1)
    admin = await script(proxy, Role.ADMIN)
    keys = (await admin.ask("GET", "/api/keys"))["data"]
    slow, other = sorted(keys, key=lambda key: key["name"] != "slow")
    codes = []
    for key in (slow, slow, other):
        document = await admin.ask("POST", f"/api/keys/{key['id']}/playground", CHAT, **WITH)
        codes.append(document.get("error", {}).get("code"))
    assert codes == [None, "rate_limit_exceeded", "insufficient_quota"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_provider_key"),
        ({"X_Provider_Key": "short"}, "invalid_provider_key"),
        (WITH | {"X_Mintoken_Intensity": "most"}, "invalid_intensity"),
    ],
)
async def test_bad_headers_are_told_as_to_an_application(
    proxy: Proxy, headers: dict[str, str], code: str
) -> None:
    admin = await script(proxy, Role.ADMIN)
    document = await admin.ask("POST", await path_of(admin), CHAT, **headers)
    assert (admin.status, document["error"]["code"]) == (400, code)


async def test_a_key_that_has_ended_asks_nothing(proxy: Proxy, upstream: FakeUpstream) -> None:
    admin = await script(proxy, Role.ADMIN)
    path = await path_of(admin)
    await admin.ask("POST", path.replace("playground", "revoke"))
    document = await admin.ask("POST", path, CHAT, **WITH)
    assert document["error"]["code"] == "revoked_api_key"
    assert upstream.requests == []


async def test_a_provider_does_not_steer_the_browser(proxy: Proxy, upstream: FakeUpstream) -> None:
    steering = {
        "Clear-Site-Data": '"*"', "Strict-Transport-Security": "max-age=9", "Refresh": "0",
        "Content-Security-Policy": "default-src *", "Set-Cookie": "a=b", "Alt-Svc": "h3",
        "Cache-Control": "public",
    }  # fmt: skip
    upstream.play(json_reply(completion(), headers=[*steering.items(), ("Retry-After", "1")]))
    admin = await member(proxy, Role.ADMIN)
    await admin.ask("POST", await path_of(admin), CHAT, **WITH)
    assert admin.last is not None
    headers = admin.last.headers
    assert headers.keys() & steering.keys() == {"Content-Security-Policy", "Cache-Control"}
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Retry-After"] == "1"


# --- The page -----------------------------------------------------------------------------------


def answers(upstream: FakeUpstream, *, tokens: int = 100) -> None:
    """Every question of the page gets a stream with the provider's usage."""
    upstream.default = [
        stream_head(), delta("First, "), delta("then <b>this</b>."), delta(finish="stop"),
        usage_chunk(50, tokens), DONE, END,
    ]  # fmt: skip


async def fill(page: Page, *, model: str = "gpt-4o") -> None:
    await page.goto("/dashboard/playground")
    await page.get_by_label("Model").fill(model)
    await page.get_by_label("Provider key").fill(PROVIDER_CANARY)
    await page.get_by_label("System text").fill("Be exact.")
    await page.get_by_label("Prompt", exact=True).fill("Why?")


async def test_every_level_answers_side_by_side_with_tokens_time_and_price(
    browser: Browser, proxy: Proxy, upstream: FakeUpstream
) -> None:
    ada = await add_user(proxy, "ada", Role.ADMIN)
    answers(upstream)
    async with looking(browser, proxy, ada) as page:
        await fill(page)
        await page.get_by_role("button", name="Ask 4 times").click()
        await expect(page.locator("#said")).to_have_text("All have answered.")
        texts = await page.locator(".answer").all_text_contents()
        assert texts == ["First, then <b>this</b>."] * 4
        rows = page.locator("[data-figures]")
        await expect(rows.nth(0)).to_contain_text("none50100")
        await expect(rows.nth(0)).to_contain_text("$0.00112")
        await expect(rows.nth(3)).to_contain_text("0 %")
        await expect(rows.nth(3)).to_contain_text("ms")
        await page.goto("/dashboard")
        await page.go_back()
        assert await page.get_by_label("Provider key").input_value() == ""
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert PROVIDER_CANARY not in await page.evaluate(stored)
    asked = [orjson.loads(one.body) for one in upstream.requests]
    assert all(one["stream_options"] == {"include_usage": True} for one in asked)
    systems = {one["messages"][0]["content"] for one in asked}
    assert len(systems) == 4
    assert all(one.startswith("Be exact.") for one in systems)
    levels = {row["intensity"] for row in await proxy.settled(4)}
    assert levels == {"none", "lite", "full", "ultra"}
    proxy.assert_no_secret()


async def test_it_is_shown_as_it_is_written_and_can_be_stopped(
    browser: Browser, proxy: Proxy, upstream: FakeUpstream
) -> None:
    ada = await add_user(proxy, "ada", Role.OWNER)
    upstream.default = [stream_head(), delta("So far"), asyncio.Event(), END]
    async with looking(browser, proxy, ada) as page:
        await fill(page)
        await page.get_by_label("Prompt", exact=True).press("Tab")
        await page.keyboard.press("Enter")
        for number in range(4):
            await expect(page.locator(".answer").nth(number)).to_have_text("So far")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#said")).to_have_text("Stopped.")
    rows = await proxy.settled(4)
    assert {row["outcome"] for row in rows} == {"client_closed"}


async def test_what_went_wrong_with_one_level_is_said_in_its_place(
    browser: Browser, proxy: Proxy, upstream: FakeUpstream
) -> None:
    ada = await add_user(proxy, "ada", Role.OWNER)
    wrong = {"error": {"message": "No such model: <img src=x>"}}
    upstream.default = [json_reply(wrong, status="404 Not Found")]
    half_is_there = asyncio.Event()
    upstream.play(stream_head(), delta("Half"), half_is_there, DIE)
    upstream.play(json_reply(completion("In one piece.", model="unknown")))
    async with looking(browser, proxy, ada, complains=("404", "ERR_", "network")) as page:
        await fill(page, model="unknown")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator(".panes")).to_contain_text("Half")
        half_is_there.set()
        await expect(page.locator("#said")).to_have_text("All have answered.")
        texts = sorted(await page.locator(".answer").all_text_contents())
        assert texts[0].startswith("Half\n\n")
        assert texts[1:] == ["In one piece.", *["No such model: <img src=x>"] * 2]
        assert await page.locator(".answer img").count() == 0
        await expect(page.locator("tbody")).to_contain_text("no price")


async def test_without_a_key_and_to_a_viewer_it_says_what_is_missing(
    browser: Browser, proxy: Proxy
) -> None:
    vera = await add_user(proxy, "vera", Role.VIEWER)
    async with looking(browser, proxy, vera) as page:
        await page.goto("/dashboard/playground")
        await expect(page.locator("main .notice")).to_contain_text("viewer")
    await hire(proxy.data_dir, "olga", Role.OWNER, "other")
    olga = await Caller(proxy).sign_in("olga")
    answer = await proxy.session.get(
        f"{proxy.admin_url}/dashboard/playground", headers=olga.headers, cookies={}
    )
    assert "Make a key first." in await answer.text()
