"""A real browser before a real server: Debian's chromium, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from conftest import Proxy
from playwright.async_api import Browser, Page, async_playwright

from mintoken import keys
from mintoken.clock import utc_ms
from mintoken.config import AdminConfig
from mintoken.people import Role, User
from mintoken.sessions import open_session
from mintoken.stores.sqlite import open_sqlite

CHROMIUM = shutil.which("chromium")
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


async def add_user(proxy: Proxy, name: str, role: Role, password_hash: str = "-") -> User:
    """A user of the account `default`."""
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    try:
        directory = await store.directory()
        assert directory is not None
        user = User(
            id=f"user_{name}", account_id=directory.accounts[0].id, name=name, role=role,
            password_hash=password_hash, created_at=utc_ms(),
        )  # fmt: skip
        await store.save_user(user)
    finally:
        await store.close()
    return user


async def session_of(proxy: Proxy, user: User) -> str:
    """What the browser of a user who is signed in holds."""
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    secret = keys.server_secret(proxy.data_dir)
    try:
        return await open_session(store, secret, user, AdminConfig(), now_ms=utc_ms())
    finally:
        await store.close()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def looking(
    browser: Browser,
    proxy: Proxy,
    user: User | None = None,
    *,
    size: str = "wide",
    scheme: str = "light",
    complains: tuple[str, ...] = (),
) -> AsyncIterator[Page]:
    """A page for a user; fails in the end if it complained, or asked another host.

    The browser itself complains of statuses: those in `complains` are wanted.
    """
    width, height = SIZES[size]
    context = await browser.new_context(
        base_url=proxy.admin_url, viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )  # fmt: skip
    if user is not None:
        token = await session_of(proxy, user)
        await context.add_cookies(
            [{"name": "mintoken_session", "value": token, "url": proxy.admin_url}]
        )
    page = await context.new_page()
    wrong: list[str] = []
    host = urlsplit(proxy.admin_url).netloc
    page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on("request", lambda one: urlsplit(one.url).netloc != host and wrong.append(one.url))
    try:
        yield page
    finally:
        await context.close()
    assert [one for one in wrong if not any(status in one for status in complains)] == []


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no browser: sudo apt-get install --yes chromium")
    async with chromium() as started:
        yield started


@pytest.fixture
async def owner(proxy: Proxy) -> User:
    return await add_user(proxy, "ada", Role.OWNER)
