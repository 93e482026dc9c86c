"""`make screenshots`: pictures of the dashboard's pages, with a day's traffic, into docs/."""

import asyncio
import io
import tempfile
from pathlib import Path
from random import Random

import aiohttp
from browser import SIZES, add_user, chromium, looking
from conftest import CHAT, Proxy, add_key, config_for
from fake_upstream import FakeUpstream, completion, fake_upstream, json_reply

from mintoken import logs
from mintoken.pages import PAGES
from mintoken.people import Role
from mintoken.server import running

DOCS = Path(__file__).parent.parent / "docs"
ALL = Path(tempfile.gettempdir()) / "mintoken-screenshots"
KEPT = {
    ("overview", "wide", "light"): "overview.png",
    ("requests", "wide", "dark"): "requests-dark.png",
}
REQUESTS = 60


async def take() -> None:
    async with fake_upstream() as upstream:
        with tempfile.TemporaryDirectory() as folder:
            data_dir, log = Path(folder) / "data", io.StringIO()
            logs.configure(log)
            key = await add_key(data_dir, monthly_tokens=20_000, name="support chat", control=10)
            async with (
                running(config_for(upstream, data_dir)) as listening,
                aiohttp.ClientSession() as session,
            ):
                proxy = Proxy(
                    url=f"http://{listening.public}", admin_url=f"http://{listening.admin}",
                    key=key, data_dir=data_dir, log=log, session=session,
                )  # fmt: skip
                await traffic(proxy, upstream)
                await shoot(proxy)


async def traffic(proxy: Proxy, upstream: FakeUpstream) -> None:
    """Some requests of different sizes, models and levels."""
    random = Random(4)
    for number in range(REQUESTS):
        usage = {
            "prompt_tokens": random.randint(40, 900),
            "completion_tokens": random.randint(20, 400),
        }
        upstream.default = [json_reply(completion(usage=usage))]
        asked = CHAT | {"model": random.choice(["gpt-4o", "gpt-4o-mini", "gpt-4.1"])}
        asked |= {"messages": [{"role": "user", "content": f"Question {number}?"}]}
        level = random.choice(["lite", "full", "full", "ultra"])
        await proxy.post(asked, X_Mintoken_Intensity=level)
    await proxy.settled(REQUESTS)


async def shoot(proxy: Proxy) -> None:
    ada = await add_user(proxy, "ada", Role.OWNER)
    row = proxy.rows()[0]
    pages = (
        *PAGES,
        ("/dashboard/keys?new", "new-key"),
        (f"/dashboard/keys/{row['key_id']}", "key"),
        (f"/dashboard/requests/{row['id']}", "request"),
    )
    for folder in (DOCS, ALL):
        folder.mkdir(exist_ok=True)
    async with chromium() as browser:
        for size in SIZES:
            for scheme in ("light", "dark"):
                async with looking(browser, proxy, size=size, scheme=scheme) as page:
                    await page.goto("/dashboard/sign-in")
                    await page.screenshot(path=ALL / f"sign-in-{size}-{scheme}.png")
                async with looking(browser, proxy, ada, size=size, scheme=scheme) as page:
                    for path, name in pages:
                        await page.goto(path)
                        file = ALL / f"{name.lower()}-{size}-{scheme}.png"
                        await page.screenshot(path=file, full_page=size == "narrow")
                        if kept := KEPT.get((name.lower(), size, scheme)):
                            (DOCS / kept).write_bytes(file.read_bytes())
    print(f"All are in {ALL}, those of the README in {DOCS}.")


if __name__ == "__main__":
    asyncio.run(take())
