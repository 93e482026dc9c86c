"""Who asks the control plane in the tests: users who signed in, and scripts with admin keys."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
from conftest import Proxy

from mintoken import members
from mintoken.admin import create_account, everything
from mintoken.clock import utc_ms
from mintoken.passwords import hash_password
from mintoken.people import Role, User
from mintoken.stores.sqlite import open_sqlite

PASSWORD = "a canary of a password"
COOKIE = "mintoken_session"


@cache
def password_hash() -> str:
    return hash_password(PASSWORD)


@dataclass
class Caller:
    """Asks one admin listener as somebody; `last` is the last answer, whole."""

    proxy: Proxy
    headers: dict[str, str] = field(default_factory=dict)
    last: aiohttp.ClientResponse | None = None

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The answer's JSON, None without any; its status is in `status`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        options = {} if body is None else {"json": body}
        answer = await self.proxy.session.request(
            method,
            f"{self.proxy.admin_url}{path}",
            headers=self.headers | named,
            cookies={},
            **options,
        )
        self.last, text = answer, await answer.read()
        return await answer.json() if text else None

    async def page(self, path: str, form: dict[str, str] | None = None, **headers: str) -> str:
        """The text of a page, or of what answers a form; its status is in `status`."""
        self.last = await self.proxy.session.request(
            "GET" if form is None else "POST",
            f"{self.proxy.admin_url}{path}",
            headers=self.headers | headers,
            cookies={},
            data=form,
        )
        return await self.last.text()

    @property
    def status(self) -> int:
        assert self.last is not None
        return self.last.status

    @property
    def token(self) -> str:
        """What the last answer had the browser hold."""
        assert self.last is not None
        return self.last.cookies[COOKIE].value

    async def sign_in(self, name: str, password: str = PASSWORD) -> "Caller":
        """The same, who has signed in."""
        await self.ask("POST", "/api/login", {"name": name, "password": password})
        assert self.status == 200
        self.proxy.keys += [self.token, password]  # They may show up nowhere.
        return Caller(self.proxy, {"Cookie": f"{COOKIE}={self.token}"})


async def hire(data_dir: Path, name: str, role: Role, account: str = "default") -> User:
    """A new user whose password is PASSWORD; the account is made if it is not there."""
    store = await open_sqlite(data_dir, clock_ms=utc_ms)
    try:
        if account not in [one.name for one in (await everything(store)).accounts]:
            await create_account(store, account, now_ms=utc_ms())
        return await members.create_user(
            store, account, name, role, password_hash=password_hash(), now_ms=utc_ms()
        )
    finally:
        await store.close()


async def member(proxy: Proxy, role: Role, account: str = "default") -> Caller:
    """A new user of this role, who has signed in."""
    name = f"{role.value} of {account}"
    await hire(proxy.data_dir, name, role, account)
    return await Caller(proxy).sign_in(name)


async def script(proxy: Proxy, role: Role, account: str = "default") -> Caller:
    """A script with a new admin key of this role."""
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    try:
        issued = await members.create_admin_key(
            store, proxy.data_dir, account, f"{role.value} script", role, now_ms=utc_ms()
        )
    finally:
        await store.close()
    proxy.keys.append(issued.token)
    return Caller(proxy, {"Authorization": f"Bearer {issued.token}"})
