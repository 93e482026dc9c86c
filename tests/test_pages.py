"""The dashboard in a real browser: its pages work by hand, by keyboard, and for screen readers."""

from collections.abc import AsyncIterator

import pytest
from axe_playwright_python.async_playwright import Axe
from browser import SIZES, add_user, chromium, looking, needs_chromium
from conftest import CHAT, Proxy
from playwright.async_api import Browser, Page

from mintoken import admin
from mintoken.clock import utc_ms
from mintoken.models import Rule, RuleAction
from mintoken.people import Role, User
from mintoken.stores.sqlite import open_sqlite

pytestmark = needs_chromium

PATHS = ("/dashboard/keys", "/dashboard/rules", "/dashboard/savings")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest.fixture
async def owner(proxy: Proxy) -> User:
    return await add_user(proxy, "ada", Role.OWNER)


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
        for path in PATHS:
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 200
            found += await issues_of(page)
            wide = "document.documentElement.scrollWidth > innerWidth"
            assert not await page.evaluate(wide), f"{path} is wider than the screen"
    assert found == []


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
    await store.close()
    for payload in PAYLOADS:
        await proxy.post(CHAT | {"model": payload})
    async with looking(browser, proxy, owner) as page:
        for path in PATHS:
            await page.goto(path)
            await page.mouse.move(400, 300)
            assert await page.evaluate("window.xss") is None
            shown = await page.content()
            assert "&lt;script&gt;" in shown or "script" not in shown
