"""The link of the very first start: it makes one owner, once, and nothing else."""

import asyncio

import pytest
from browser import looking
from conftest import Proxy, StartProxy
from playwright.async_api import Browser, expect
from staff import PASSWORD, Caller, hire
from store_cases import ask
from test_pages import issues_of

from mintoken import members
from mintoken.clock import DAY_MS, utc_ms
from mintoken.people import Role
from mintoken.rates import SIGN_INS_OF_ADDRESS
from mintoken.routes.base import FORM
from mintoken.routes.pages_welcome import OVER
from mintoken.stores.sqlite import open_sqlite


async def invited(proxy: Proxy) -> str:
    """The path of a fresh link, whose end may show up nowhere."""
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    try:
        token = await members.invite_first_owner(store, proxy.data_dir, now_ms=utc_ms())
    finally:
        await store.close()
    assert token is not None
    proxy.keys += [token, PASSWORD]
    return f"/dashboard/welcome/{token}"


async def status_of(proxy: Proxy, path: str, form: str | None = None, **headers: str) -> int:
    """What the page, or the form if one is given, is answered with."""
    async with proxy.session.request(
        "GET" if form is None else "POST", f"{proxy.admin_url}{path}", data=form,
        headers={"Content-Type": FORM} | headers, cookies={}, allow_redirects=False,
    ) as answer:  # fmt: skip
        text = await answer.text()
    assert (OVER in text) is (answer.status == 404)
    return answer.status


def form_of(name: str) -> str:
    return f"name={name}&password={PASSWORD.replace(' ', '+')}"


@pytest.mark.parametrize("size", ["wide", "narrow"])
async def test_who_follows_it_becomes_the_owner_and_is_signed_in(
    browser: Browser, proxy: Proxy, size: str
) -> None:
    path = await invited(proxy)
    async with looking(browser, proxy, size=size, complains=("400", "404")) as page:
        await page.goto(path)
        await expect(page.get_by_label("Name")).to_be_focused()
        assert await issues_of(page) == []
        await page.get_by_label("Name").fill("x" * 100)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.evaluate("document.querySelector('#name').value = ' '.repeat(9)")
        await page.get_by_role("button", name="Begin").click()
        await expect(page.get_by_role("alert")).to_contain_text("printable characters")
        await page.get_by_label("Name").fill("ada")
        await page.get_by_label("Password").fill("short")
        await page.evaluate("document.querySelector('form').noValidate = true")
        await page.get_by_role("button", name="Begin").click()
        await expect(page.get_by_role("alert")).to_contain_text("12 to 1024")
        await expect(page.get_by_label("Name")).to_have_value("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Begin").click()
        await page.wait_for_url("**/dashboard")
        await expect(page.locator("header")).to_contain_text("ada, owner of default")
        await page.goto(path)
        await expect(page.get_by_role("alert")).to_have_text(OVER)
    await Caller(proxy).sign_in("ada")


async def test_of_many_who_come_by_it_at_once_one_becomes_the_owner(proxy: Proxy) -> None:
    path = await invited(proxy)
    forms = [status_of(proxy, path, form_of(f"user{number}")) for number in range(8)]
    assert sorted(await asyncio.gather(*forms)) == [303] + [404] * 7
    roles = ask(proxy.data_dir / "mintoken.db", "SELECT role FROM users")
    assert roles == [("owner",)]


async def test_to_look_does_not_use_it_up(proxy: Proxy) -> None:
    path = await invited(proxy)
    assert [await status_of(proxy, path) for _ in range(3)] == [200] * 3
    assert await status_of(proxy, path, form_of("ada")) == 303


async def test_it_is_over_when_somebody_was_made_otherwise_even_if_he_is_removed(
    proxy: Proxy,
) -> None:
    path = await invited(proxy)
    user = await hire(proxy.data_dir, "vera", Role.VIEWER)
    assert await status_of(proxy, path) == 404
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    assert await members.invite_first_owner(store, proxy.data_dir, now_ms=utc_ms()) is None
    await members.remove_user(store, user.id)
    await store.close()
    assert await status_of(proxy, path, form_of("ada")) == 404


async def test_it_is_over_after_a_day(start_proxy: StartProxy) -> None:
    ahead = [0]
    proxy = await start_proxy(clock=lambda: utc_ms() + ahead[0])
    path = await invited(proxy)
    ahead[0] = DAY_MS - 60_000
    assert await status_of(proxy, path) == 200
    ahead[0] = DAY_MS
    assert await status_of(proxy, path) == 404
    assert await status_of(proxy, path, form_of("ada")) == 404


async def test_guessing_its_end_is_throttled(proxy: Proxy) -> None:
    await invited(proxy)
    guesses = [f"/dashboard/welcome/guess{number}" for number in range(SIGN_INS_OF_ADDRESS + 3)]
    found = await asyncio.gather(*(status_of(proxy, guess) for guess in guesses))
    assert sorted(found) == [404] * SIGN_INS_OF_ADDRESS + [429] * 3


@pytest.mark.parametrize("end", ["%00", "é" * 40, "..%2f", "x" * 4000, "%ff"])
async def test_an_odd_end_is_a_wrong_one(proxy: Proxy, end: str) -> None:
    await invited(proxy)
    assert await status_of(proxy, f"/dashboard/welcome/{end}") == 404


async def test_a_page_of_another_site_cannot_send_the_form(proxy: Proxy) -> None:
    path = await invited(proxy)
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert await status_of(proxy, path, form_of("eve"), **headers) == 403
    assert await status_of(proxy, path) == 200
