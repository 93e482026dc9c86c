"""Nothing that somebody can name runs in a page: keys, rules, members, accounts, models."""

from dataclasses import replace
from urllib.parse import urlencode

from browser import looking
from conftest import CHAT, Proxy
from fake_upstream import FakeUpstream, completion, json_reply
from playwright.async_api import Browser, Page

from mintoken import admin
from mintoken.clock import utc_ms
from mintoken.models import Rule, RuleAction
from mintoken.pages import PAGES
from mintoken.people import Role, User
from mintoken.stores.sqlite import open_sqlite

TAGS = ("img src=x", "svg", "body", "input autofocus", "details open", "video src=x", "iframe")
HANDLERS = ("onerror", "onload", "onfocus", "ontoggle", "onpointerenter", "onanimationstart")
RUN = "top.xss=1"
BEFORE = ("", '">', "'>", "</textarea>")
PAYLOADS = [
    *(f"{end}<script>{RUN}</script>" for end in ("", "</td>", "</title>", "-->", "]]>", "</a>")),
    *(f"{quote} {on}={quote}{RUN}{quote} x={quote}" for quote in "\"'`" for on in HANDLERS),
    *(f"{scheme}:{RUN}" for scheme in ("javascript", "JaVaScRiPt", "data:text/html,<script>")),
    *(f"{{{{{code}}}}}" for code in ("7*7", "config", "''.__class__", RUN)),
    *(f"<{tag} href=javascript:{RUN} action=javascript:{RUN}>x" for tag in ("a", "form", "base")),
    *("<link rel=stylesheet href=//x.invalid>", "<meta http-equiv=refresh content=0>", "<!--"),
    *("<object data=x>", "<embed src=x>", "<math><mi//xlink:href=x>", "<style>*{display:none}"),
    *("&lt;script&gt;", "%3Cscript%3E", "\\u003cscript\\u003e", "</main>"),
    *(f"{before}<{tag} {on}={RUN}>" for before in BEFORE for tag in TAGS for on in HANDLERS),
][:200]


async def assert_nothing_runs(page: Page, path: str) -> None:
    await page.goto(path)
    await page.mouse.move(400, 300)
    assert await page.evaluate("window.xss") is None
    planted = ":is(header, main) :is(script, iframe, object, embed, base, img:not([src^='/']))"
    assert await page.locator(planted).count() == 0, path


async def test_no_text_that_is_kept_runs_in_a_page(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    assert len(PAYLOADS) == 200
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    for number, payload in enumerate(PAYLOADS):
        settings = admin.KeySettings(name=f"{payload:.96}{number}")
        await admin.create_key(store, proxy.data_dir, owner.account_id, settings, now_ms=utc_ms())
        await store.save(
            Rule(
                id=f"r_{number}", account_id=owner.account_id, action=RuleAction.LEVEL_LITE,
                pattern=payload, created_at=utc_ms(),
            )
        )  # fmt: skip
        await store.save_user(
            replace(owner, id=f"u_{number}", name=f"{payload:.96}{number}", role=Role.VIEWER)
        )
    await store.close()
    for payload in PAYLOADS:
        await proxy.post(CHAT | {"model": payload})
    await proxy.settled(len(PAYLOADS))
    async with looking(browser, proxy, owner) as page:
        for path, _ in PAGES:
            await assert_nothing_runs(page, path)


async def test_no_name_of_an_account_runs_in_a_page(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    directory = await admin.everything(store)
    account = admin.find_account(directory, owner.account_id)
    async with looking(browser, proxy, owner) as page:
        for payload in PAYLOADS:
            await store.save(replace(account, name=payload[:100]))
            await page.request.get("/api/keys")  # It looks at the store anew.
            await assert_nothing_runs(page, "/dashboard/account")
            assert payload[:100].split() == (
                (await page.locator("h1").text_content() or "").removeprefix("Account ").split()
            )
    await store.close()


async def test_nothing_that_a_provider_tells_runs_in_the_details(
    browser: Browser, proxy: Proxy, upstream: FakeUpstream, owner: User
) -> None:
    for payload in PAYLOADS:
        told = completion(model=payload)
        told["choices"] = [{"index": 0, "message": {}, "finish_reason": payload}]
        upstream.play(json_reply(told, headers=[("x-request-id", payload)]))
        await proxy.post()
    rows = await proxy.settled(len(PAYLOADS))
    assert {row["finish_reason"] for row in rows} >= {PAYLOADS[0]}
    async with looking(browser, proxy, owner) as page:
        for row in rows:
            await assert_nothing_runs(page, f"/dashboard/requests/{row['id']}")


async def test_nothing_that_an_address_says_runs_in_a_page(
    browser: Browser, proxy: Proxy, owner: User
) -> None:
    await proxy.post()
    [row] = await proxy.settled()
    async with looking(browser, proxy, owner) as page:
        for payload in PAYLOADS[::5]:
            asked = urlencode(dict.fromkeys(("key_id", "model", "intensity", "outcome"), payload))
            for path in ("/dashboard/requests", f"/dashboard/requests/{row['id']}"):
                await assert_nothing_runs(page, f"{path}?{asked}&{urlencode({'before': payload})}")
            back = await page.get_by_role("link", name="Back").get_attribute("href")
            assert back == f"/dashboard/requests?{asked}"
