"""The dashboard in a real browser: its pages work by hand, by keyboard, and for screen readers."""

import asyncio
import html
import os
import re
import shutil
import sys
from dataclasses import fields

import pytest
from axe_playwright_python.async_playwright import Axe
from browser import SIZES, add_user, looking
from conftest import CHAT, PROVIDER_CANARY, Proxy, StartProxy
from openai import AuthenticationError
from playwright.async_api import Browser, Page, Route, expect
from staff import PASSWORD, Caller, hire, member, script

from mintoken.context import Access
from mintoken.pages import PAGES
from mintoken.people import Role, User
from mintoken.reports import UsageRow
from mintoken.routes.base import FORM
from mintoken.routes.dashboard import DASHBOARD
from mintoken.routes.pages_keys import BLANK, settings_of
from mintoken.routes.pages_requests import LABELS, ON_A_PAGE

PATHS = tuple(path for path, _ in PAGES)


async def issues_of(page: Page) -> list[str]:
    """The rules of axe-core that the page breaks, with what breaks them."""
    found = await Axe().run(page)
    return [
        f"{page.url}: {one['id']}: {[node['html'] for node in one['nodes']]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_axe_finds_nothing_on_any_page(
    browser: Browser, proxy: Proxy, owner: User, size: str, scheme: str
) -> None:
    await proxy.post()
    found = []
    async with looking(browser, proxy, owner, size=size, scheme=scheme) as page:
        [row] = await proxy.settled()
        for path in (
            *PATHS,
            "/dashboard/keys?new",
            f"/dashboard/keys/{row['key_id']}",
            f"/dashboard/requests/{row['id']}",
        ):
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 200
            found += await issues_of(page)
            wide = "document.documentElement.scrollWidth > innerWidth"
            assert not await page.evaluate(wide), f"{path} is wider than the screen"
    assert found == []


# --- Who may what -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [None, *Role])
async def test_every_page_is_for_those_who_may_see_it(proxy: Proxy, role: Role | None) -> None:
    caller = Caller(proxy) if role is None else await member(proxy, role)
    headers = caller.headers | {"Content-Type": FORM}
    for method, path, _, access in DASHBOARD:
        if access is Access.SIGN_IN:
            continue
        filled = path.replace("{id}", "nobody").replace("{name}", "level")
        url = f"{proxy.admin_url}{filled}"
        async with proxy.session.request(
            method, url, headers=headers, cookies={}, allow_redirects=False
        ) as answer:
            if role is None:
                assert (answer.status, answer.headers["Location"]) == (303, "/dashboard/sign-in")
            elif access.role is not None and role.includes(access.role):
                assert answer.status in (200, 303, 400, 404), (method, path)
            else:
                assert answer.status == 403, (method, path)
                assert 'role="alert"' in await answer.text()


@pytest.mark.parametrize(
    ("media_type", "body", "status"),
    [
        (FORM, b"text=" + b"x" * 900_000, 413),
        (FORM, b"text=" + b"x" * 40_000, 400),
        (FORM, b"text=\xff", 400),
        (FORM, b"a=1&" * 200, 400),
        ("multipart/form-data", b"--x\r\n", 415),
        ("application/json", b"{}", 415),
        (FORM, b"", 200),
        (FORM, b"text=%3Cb%3E+%FF", 200),
    ],
)
async def test_a_form_that_is_none_is_refused(
    proxy: Proxy, media_type: str, body: bytes, status: int
) -> None:
    caller = await member(proxy, Role.OWNER)
    async with proxy.session.post(
        f"{proxy.admin_url}/dashboard/rules/try", data=body, cookies={},
        headers=caller.headers | {"Content-Type": media_type},
    ) as answer:  # fmt: skip
        text = await answer.text()
    assert answer.status == status
    assert ('role="alert"' in text) is (status != 200)


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1.5", "\u0661", "x", "1" * 17])
@pytest.mark.parametrize(
    ("path", "field"), [("account/quota", "monthly_tokens"), ("keys", "rpm"), ("keys", "control")]
)
async def test_what_is_no_number_is_told(proxy: Proxy, path: str, field: str, number: str) -> None:
    caller = await member(proxy, Role.OWNER)
    form = {"name": "x", "intensity": "full", field: number}
    assert "is a whole number from 0 to" in await caller.page(f"/dashboard/{path}", form)
    assert caller.status == 400


# --- The whole story ----------------------------------------------------------------------------


async def test_from_sign_in_to_a_revoked_key(browser: Browser, proxy: Proxy) -> None:
    await hire(proxy.data_dir, "ada", Role.OWNER)
    async with looking(browser, proxy) as page:
        await page.goto("/dashboard")
        assert page.url.endswith("/dashboard/sign-in")
        await page.get_by_label("Name").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/dashboard")
        quota, chart = page.locator(".card").first, "/dashboard/charts/requests-by-level?days=30"
        await expect(quota).to_contain_text("0 tokens used")
        empty = await (await page.request.get(chart)).text()
        await page.get_by_role("link", name="Keys").click()
        await page.get_by_role("link", name="New key").click()
        await page.get_by_label("Name").fill("from the browser")
        await page.get_by_role("button", name="Create").click()
        proxy.key = (await page.locator("#raw-key").text_content() or "").strip()
        proxy.keys.append(proxy.key)
        assert "base_url=" in (await page.content())
        await page.goto("/dashboard/keys")
        assert proxy.key not in await page.content()
        await page.goto("/dashboard/requests")
        await expect(page.locator("#live")).to_have_text("Live.")
        async with proxy.client() as client:
            stream = await client.chat.completions.create(**CHAT, stream=True)
            async for _ in stream:
                pass
        row = page.locator("#rows tr", has_text="from the browser")
        await expect(row).to_have_count(1)
        await expect(row).to_contain_text("gpt-4o")
        await row.get_by_role("link").click()
        await expect(page.get_by_role("heading", name="Request")).to_be_visible()
        await page.goto("/dashboard")
        await expect(page.locator(".card", has_text="Requests").first).to_contain_text("1")
        [settled] = await proxy.settled()
        assert settled["charged_tokens"] > 0
        await expect(quota).to_contain_text(f"{settled['charged_tokens']} tokens used")
        assert await (await page.request.get(chart)).text() != empty
        drawn = "[...document.images].every((one) => one.complete && one.naturalWidth > 0)"
        await page.wait_for_function(drawn)
        await page.goto("/dashboard/keys")
        line = page.locator("tr", has_text="from the browser")
        await expect(line).to_contain_text(re.compile("(20[0-9-]+ [0-9:]+.*){2}"))
        await expect(page.locator("tr", has_text="never")).to_have_count(1)
        await page.get_by_role("button", name="Revoke key from the browser").click()
        await expect(page.locator("tr", has_text="from the browser")).to_contain_text("revoked")
        async with proxy.client() as client:
            with pytest.raises(AuthenticationError):
                await client.chat.completions.create(**CHAT)
        await page.get_by_role("button", name="Sign out").click()
        await page.goto("/dashboard/keys")
        assert page.url.endswith("/dashboard/sign-in")


async def test_a_wrong_password_is_told_and_lets_nobody_in(browser: Browser, proxy: Proxy) -> None:
    await hire(proxy.data_dir, "ada", Role.OWNER)
    async with looking(browser, proxy, complains=("401",)) as page:
        await page.goto("/dashboard/sign-in")
        await page.get_by_label("Name").fill("ada")
        await page.get_by_label("Password").fill("not this one")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Wrong name or password.")
        await page.goto("/dashboard/savings")
        assert page.url.endswith("/dashboard/sign-in")


async def test_a_viewer_sees_no_way_to_change_anything(browser: Browser, proxy: Proxy) -> None:
    viewer = await add_user(proxy, "vera", Role.VIEWER)
    async with looking(browser, proxy, viewer) as page:
        for path in PATHS:
            await page.goto(path)
            forms = page.locator("main form[method=post]:not([action$='/try'])")
            assert await forms.count() == 0, path


@pytest.mark.parametrize("role", Role)
async def test_who_else_may_sign_in_is_told_to_owners_only(proxy: Proxy, role: Role) -> None:
    await hire(proxy.data_dir, "somebody else", Role.ADMIN)
    caller = await member(proxy, role)
    text = await caller.page("/dashboard/account")
    assert caller.status == 200
    assert ("somebody else" in text) is (role is Role.OWNER)


async def test_what_is_wrong_in_a_form_is_said_and_what_was_typed_stays(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    async with looking(browser, proxy, owner, complains=("400",)) as page:
        await page.goto("/dashboard/rules")
        await page.get_by_label("Pattern").fill("(unclosed")
        await page.get_by_role("button", name="Add").click()
        await expect(page.get_by_role("alert")).to_contain_text("(")
        await expect(page.get_by_label("Pattern")).to_have_value("(unclosed")
        await page.get_by_label("Pattern").fill("(?i)invoice")
        await page.get_by_role("button", name="Add").click()
        await expect(page.locator("tbody")).to_contain_text("(?i)invoice")
        await page.get_by_label("A user message").fill("Write the INVOICE")
        await page.get_by_role("button", name="Try").click()
        await expect(page.get_by_role("status")).to_contain_text("none")
        await page.get_by_role("button", name="Remove").click()
        await expect(page.locator("tbody")).to_contain_text("No rule yet.")


async def test_the_dialog_of_a_new_key_keeps_what_was_typed_and_gives_the_focus_back(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    async with looking(browser, proxy, owner, complains=("400",)) as page:
        await page.goto("/dashboard/keys")
        opens, dialog = page.get_by_role("link", name="New key"), page.get_by_role("dialog")
        await opens.focus()
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_visible()
        assert await page.evaluate("document.activeElement.closest('dialog') !== null")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(opens).to_be_focused()
        await opens.click()
        await dialog.get_by_label("Name").fill("for a month")
        await dialog.get_by_text("Measuring, and an end").click()
        await dialog.get_by_label("Control share").fill("40")
        await dialog.get_by_label("Concise share").fill("20")
        await dialog.get_by_label("Expires").fill("2099-12-31T18:00:00")
        await dialog.get_by_label("Stop on a model").uncheck()
        await dialog.get_by_role("button", name="Create").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("40 + 20 percent")
        await expect(dialog.get_by_label("Name")).to_have_value("for a month")
        await dialog.get_by_text("Measuring, and an end").click()
        await dialog.get_by_label("Control share").fill("10")
        await dialog.get_by_role("button", name="Create").click()
        proxy.keys.append((await page.locator("#raw-key").text_content() or "").strip())
    keys = (await (await script(proxy, Role.VIEWER)).ask("GET", "/api/keys"))["data"]
    [made] = [key for key in keys if key["name"] == "for a month"]
    assert (made["control"], made["concise"], made["auto_stop"]) == (10, 20, False)
    assert made["expires_at"] == "2099-12-31T18:00:00Z"


async def test_a_key_is_edited_and_rotated_with_the_overlap_that_is_chosen(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    async with looking(browser, proxy, owner) as page:
        await page.goto("/dashboard/keys")
        await page.get_by_role("link", name="Edit key").click()
        await page.get_by_label("Requests a minute").fill("7")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_role("link", name="Edit key").click()
        await expect(page.get_by_label("Requests a minute")).to_have_value("7")
        await page.get_by_label("still works").select_option("no longer")
        await page.get_by_role("button", name="Rotate").click()
        token = (await page.locator("#raw-key").text_content() or "").strip()
        proxy.keys.append(token)
    assert (await proxy.post()).status == 401
    assert (await proxy.post(Authorization=f"Bearer {token}")).status == 200


async def test_a_revoked_key_is_not_edited(proxy: Proxy) -> None:
    caller = await member(proxy, Role.ADMIN)
    [key] = (await caller.ask("GET", "/api/keys"))["data"]
    ended = await caller.ask("POST", f"/api/keys/{key['id']}/revoke")
    form = {"name": "changed", "intensity": "lite"}
    assert "The key is revoked." in await caller.page(f"/dashboard/keys/{key['id']}", form)
    assert caller.status == 400
    [now] = (await caller.ask("GET", "/api/keys"))["data"]
    assert now == ended | {"last_used_at": now["last_used_at"]}


async def test_without_javascript_a_key_can_be_made(proxy: Proxy) -> None:
    caller = await member(proxy, Role.ADMIN)
    text = await caller.page("/dashboard/keys?new")
    assert '<dialog id="create" aria-labelledby="create-heading" open>' in text


@pytest.mark.parametrize(
    "text", ["2030-01-01T12:00", "2030-01-01T14:00+02:00", "2030-01-01 12:00Z"]
)
def test_an_expiry_is_utc_unless_it_says_otherwise(text: str) -> None:
    settings = settings_of({"intensity": "full", "expires_at": text})
    assert settings.expires_at == 1_893_499_200_000


async def test_a_new_keys_snippets_tell_an_address_that_works(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(server_listen="0.0.0.0:0", server_admin_listen="127.0.0.1:0")
    caller = await member(proxy, Role.OWNER)
    form = {name: str(value) for name, value in BLANK.items()} | {"name": "k"}
    text = await caller.page("/dashboard/keys", form, Host="vm.example:1")
    assert "base_url=&#34;http://vm.example:0/v1&#34;" in text


@pytest.mark.parametrize("client", ["curl", "python"])
async def test_a_new_keys_snippets_get_an_answer(proxy: Proxy, client: str) -> None:
    caller = await member(proxy, Role.OWNER)
    form = {name: str(value) for name, value in BLANK.items()} | {"name": "k"}
    text = await caller.page("/dashboard/keys", form)
    curl, python, _ = map(
        html.unescape, re.findall("<pre[^>]*><code>(.*?)</code>", text, re.DOTALL)
    )
    python += "\nprint(client.chat.completions.create("
    python += "model='gpt-4o', messages=[{'role': 'user', 'content': 'Hello!'}]))"
    program, code = {"curl": ("bash", curl), "python": (sys.executable, python)}[client]
    if client == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    proxy.keys += re.findall("mt_live_[0-9A-Za-z]{20,}", curl)
    running = await asyncio.create_subprocess_exec(
        program, "-c", code.replace("http://127.0.0.1:0", proxy.url),
        env=os.environ | {"OPENAI_API_KEY": PROVIDER_CANARY}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(running.communicate(), 30)
    assert b"Hello there." in out
    assert (await proxy.settled())[0]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("limit", "says"), [(1000, None), (4, "75 % of"), (3, "used up"), (2, "used up")]
)
async def test_the_overview_says_when_the_quota_runs_out(
    start_proxy: StartProxy, limit: int, says: str | None
) -> None:
    proxy = await start_proxy(quota_notice_at=0.7, monthly_tokens=limit)
    await proxy.post()
    await proxy.settled()
    caller = await member(proxy, Role.VIEWER)
    text = await caller.page("/dashboard")
    assert ('role="status"' in text) is (says is not None)
    assert says is None or says in text


async def test_a_request_opens_its_details_and_back_leads_to_the_same_filter(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    await proxy.post()
    await proxy.post(CHAT | {"model": "another"})
    await proxy.settled(2)
    async with looking(browser, proxy, owner) as page:
        await page.goto("/dashboard/requests")
        await page.get_by_label("Model").select_option("another")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator("#rows tr")).to_have_count(1)
        await page.locator("#rows a").click()
        table = page.locator("table")
        for label in LABELS.values():
            if label not in ("Arm", "The provider's id"):
                await expect(table).to_contain_text(label)
        await expect(table).to_contain_text("$")
        await page.get_by_role("link", name="Back to the requests").click()
        await expect(page.get_by_label("Model")).to_have_value("another")
        await page.go_back()
        await page.go_back()
        await expect(page.get_by_label("Model")).to_have_value("another")
        await expect(page.locator("#live")).to_have_text("Live.")
        await proxy.post(CHAT | {"model": "another"})
        row = page.locator("#rows tr").filter(has=page.locator(".time")).first
        await expect(page.locator("#rows tr")).to_have_count(2)
        await row.get_by_role("link").click()  # It came by itself.
        await page.get_by_role("link", name="Back to the requests").click()
        await expect(page.get_by_label("Model")).to_have_value("another")
        [key] = (await (await script(proxy, Role.VIEWER)).ask("GET", "/api/keys"))["data"]
        await page.goto(f"/dashboard/requests?key_id={key['id']}")
        await expect(page.locator("#live")).to_have_text("Live.")
        await proxy.post()
        await expect(page.locator("#rows tr")).to_have_count(4)
        await page.goto("/dashboard/requests?outcome=crashed")
        await expect(page.locator("#live")).to_have_text("Live.")
        await proxy.post()
        await proxy.settled(5)
        await page.wait_for_timeout(600)  # More than the feed's look takes.
        await expect(page.locator("#rows")).to_contain_text("None yet.")


async def test_older_requests_stay_as_they_are_and_lead_back_to_the_newest(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    for number in range(ON_A_PAGE + 2):
        await proxy.post(CHAT | {"model": f"one {number}"})
    await proxy.settled(ON_A_PAGE + 2)
    async with looking(browser, proxy, owner) as page:
        await page.goto("/dashboard/requests?intensity=full")
        await page.get_by_role("link", name="Older").click()
        await expect(page.locator("#rows")).to_contain_text("one 1")
        await proxy.post(CHAT | {"model": "a new one"})
        await proxy.settled(ON_A_PAGE + 3)
        await page.locator("#rows a").last.click()
        await page.get_by_role("link", name="Back to the requests").click()
        await expect(page.locator("#rows tr")).to_have_count(2)
        await page.get_by_role("link", name="To the newest").click()
        await expect(page.locator("#rows tr").first).to_contain_text("a new one")
        await expect(page.get_by_label("Level")).to_have_value("full")


async def test_what_ended_while_the_list_was_made_is_in_it_once(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    await proxy.post()
    await proxy.settled()

    async def from_the_start(route: Route) -> None:
        answer = await route.fetch()
        text = re.sub('data-after="[0-9]+"', 'data-after="0"', await answer.text())
        await route.fulfill(response=answer, body=text)

    async with looking(browser, proxy, owner) as page:
        await page.route("**/dashboard/requests", from_the_start)
        await page.goto("/dashboard/requests")
        await expect(page.locator("#live")).to_have_text("Live.")
        await proxy.post(CHAT | {"model": "the-next"})
        await expect(page.locator("#rows tr", has_text="the-next")).to_have_count(1)
        await expect(page.locator("#rows tr")).to_have_count(2)


@pytest.mark.parametrize("before", ["--", "0-", "01a", "ffffffff-ffff-z", "%00"])
async def test_older_than_what_is_no_request_are_all(proxy: Proxy, before: str) -> None:
    await proxy.post()
    await proxy.settled()
    caller = await member(proxy, Role.VIEWER)
    text = await caller.page(f"/dashboard/requests?model=gpt-4o&before={before}")
    assert caller.status == 200
    assert "/dashboard/requests/0" in text


def test_a_request_s_details_are_all_that_is_recorded() -> None:
    assert {one.name for one in fields(UsageRow)} == {*LABELS}


async def test_one_click_turns_the_measurement_on(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    async with looking(browser, proxy, owner) as page:
        await page.goto("/dashboard")
        await page.get_by_role("button", name="to measure").click()
        await page.goto("/dashboard/keys")
        assert "10" in await page.locator("tbody tr .number").all_text_contents()


async def test_the_arms_are_a_table_that_reads_well(
    browser: Browser, start_proxy: StartProxy
) -> None:
    proxy = await start_proxy(key={"control": 50})
    for number in range(16):
        content = f"Question {number}"
        await proxy.post({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]})
    rows = await proxy.settled(16)
    viewer = await add_user(proxy, "vera", Role.VIEWER)
    async with looking(browser, proxy, viewer, size="narrow") as page:
        await page.goto("/dashboard/savings")
        table = page.get_by_role("table", name="The arms as they are")
        shown = [await line.all_inner_texts() for line in (
            table.get_by_role("row").nth(at).get_by_role("cell") for at in (1, 2)
        )]  # fmt: skip
        made = {arm: [row for row in rows if row["arm"] == arm] for arm in ("product", "control")}
        assert all(made.values())
        assert shown == [
            [arm, *[str(len(those))] * 2,
             f"{sum(row['output_tokens'] for row in those) / len(those):.1f}"]
            for arm, those in made.items()
        ]  # fmt: skip
        await expect(table.get_by_role("rowheader")).to_have_text(["gpt-4o", "gpt-4o"])
        assert await issues_of(page) == []


async def test_the_owner_sets_the_quota_and_lets_others_in(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    async with looking(browser, proxy, owner) as page:
        await page.goto("/dashboard/account")
        await page.get_by_label("Tokens a month").fill("5000")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_label("Tokens a month")).to_have_value("5000")
        await page.get_by_label("Name").fill("bob")
        await page.get_by_label("Role").select_option("viewer")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Add").click()
        await expect(page.locator("tbody")).to_contain_text("bob")
        await page.goto("/dashboard")
        await expect(page.locator("meter")).to_have_attribute("max", "5000")
        await page.goto("/dashboard/account")
        await page.get_by_role("button", name="Remove bob").click()
        await expect(page.locator("tbody")).not_to_contain_text("bob")
