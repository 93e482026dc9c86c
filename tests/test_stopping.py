"""Where the product does not pay it stops, where it pays again it goes on, and callers see why."""

from pathlib import Path
from random import Random

import aiohttp
import msgspec
import pytest
from conftest import Served, add_key, usage_rows
from fake_upstream import FakeUpstream, completion, json_reply
from store_cases import NOW, add_account, key, reservation, settlement

from mintoken.clock import utc_ms
from mintoken.models import Key, TokenUsage, Verdict
from mintoken.pricing import load_prices
from mintoken.stopping import review
from mintoken.stores.base import Batch, Store
from mintoken.stores.sqlite import open_sqlite

PRICES = load_prices(Path("built-in"))
MODEL = "gpt-4o"
CONVERSATIONS = 200


async def add_rows(
    store: Store, owner: Key, *, start: int, product: int, control: int, epoch: int = 0
) -> None:
    """Conversations of both arms, with answers of about so many tokens."""
    random = Random(start)
    reservations, settlements = [], []
    for number in range(start, start + CONVERSATIONS):
        for arm, tokens in (("product", product), ("control", control)):
            id_ = f"{owner.id}-{number}-{arm}"
            reservations.append(
                reservation(
                    id_, owner.account_id, key_id=owner.id, model=MODEL, started_at=NOW + number
                )
            )
            reservations[-1] = msgspec.structs.replace(
                reservations[-1], arm=arm, conversation=id_, opening_bytes=500, epoch=epoch
            )
            output = round(tokens * random.lognormvariate(0, 0.3))
            settlements.append(
                msgspec.structs.replace(
                    settlement(id_), tokens=TokenUsage(input=100, output=output)
                )
            )
    await store.commit(Batch(reservations=reservations))
    await store.commit(Batch(settlements=settlements))


def watched(**changes: object) -> Key:
    fields = {"id": "key-x", "account_id": "a", "name": "x", "prefix": "mt_live_abcd"}
    fields |= {"hash": b"x", "intensity": key("x").intensity, "control": 50, "created_at": NOW}
    return Key(**(fields | changes))


async def reviewed(store: Store, *, now_ms: int = NOW) -> set[tuple[str, str]]:
    """The pairs that are stopped after a review."""
    await review(store, PRICES, await store.directory(), now_ms=now_ms)
    return {pair for pair, one in (await store.directory()).verdicts.items() if one.stopped}


@pytest.fixture
async def store(tmp_path: Path):
    opened = await open_sqlite(tmp_path / "data", clock_ms=utc_ms)
    await add_account(opened)
    yield opened
    await opened.close()


async def test_it_stops_where_answers_grew_and_goes_on_when_they_shrink(store: Store) -> None:
    owner = watched()
    await store.save(owner)
    assert await reviewed(store) == set()
    await add_rows(store, owner, start=0, product=300, control=200)
    stopped = {(owner.id, MODEL)}
    assert await reviewed(store, now_ms=NOW + 1) == stopped
    before = (await store.directory()).revision
    assert await reviewed(store, now_ms=NOW + 2) == stopped
    assert (await store.directory()).revision == before
    # What came before the stop says nothing of what is now, and what is now counts at once.
    await add_rows(store, owner, start=1000, product=20, control=200)
    assert await reviewed(store, now_ms=NOW + 3) == stopped
    await add_rows(store, owner, start=2000, product=50, control=200, epoch=NOW + 1)
    assert await reviewed(store, now_ms=NOW + 4) == set()
    assert (await store.directory()).verdict(owner, MODEL) == Verdict(False, NOW + 4)
    assert await reviewed(store, now_ms=NOW + 5) == set()
    await add_rows(store, owner, start=3000, product=300, control=200, epoch=NOW + 4)
    assert await reviewed(store, now_ms=NOW + 6) == stopped


async def test_a_change_of_shares_starts_the_measurement_anew(store: Store) -> None:
    owner = watched(shares_since=NOW + 500)
    await store.save(owner)
    await add_rows(store, owner, start=0, product=300, control=200)
    assert await reviewed(store) == set()
    await add_rows(store, owner, start=1000, product=300, control=200, epoch=NOW + 500)
    assert await reviewed(store) == {(owner.id, MODEL)}


async def test_it_goes_on_where_it_pays_and_where_nobody_asked_for_an_end(store: Store) -> None:
    pays, free = watched(), watched(id="key-y", name="y", hash=b"y", auto_stop=False)
    without = watched(id="key-z", name="z", hash=b"z", control=0)
    for owner, product in ((pays, 50), (free, 300), (without, 300)):
        await store.save(owner)
        await add_rows(store, owner, start=0, product=product, control=200)
    assert await reviewed(store) == set()


async def test_a_server_stops_it_and_tries_again_in_some_conversations(
    served: Served, upstream: FakeUpstream
) -> None:
    # As long as the answers before, or those that come until it stops would make it pay again.
    usage = {"prompt_tokens": 100, "completion_tokens": 300}
    upstream.default = [json_reply(completion(usage=usage))]
    served.key = await add_key(served.data_dir, control=10)
    store = await open_sqlite(served.data_dir, clock_ms=utc_ms)
    owner = (await store.directory()).keys[-1]
    await add_rows(store, owner, start=0, product=300, control=200)
    await store.close()
    served.environ["MINTOKEN_SAVINGS_REVIEW_EVERY"] = "0.1"
    async with aiohttp.ClientSession() as session:
        await served.start(session)

        async def ask(text: str, **headers: str) -> tuple[str, str]:
            async with session.post(
                f"{served.url}/v1/chat/completions",
                json={"model": MODEL, "messages": [{"role": "user", "content": text}]},
                headers=served.headers | headers,
            ) as answer:
                assert answer.status == 200
                level = answer.headers["X-Mintoken-Intensity"]
                return level, answer.headers["X-Mintoken-Reason"]

        await eventually_stopped(ask)
        said = [await ask(f"Question {number}?") for number in range(200)]
        assert {("none", "does_not_pay"), ("none", "control"), ("full", "key")} == set(said)
        assert 0 < said.count(("full", "key")) < 30
        assert await ask("Question 7?", **{"X-Mintoken-Intensity": "lite"}) == ("lite", "header")
    rows = [row for row in usage_rows(served.data_dir) if row["conversation"][:4] != "key_"]
    for row in rows:
        if row["reason"] == "does_not_pay":
            assert row["arm"] == "stopped"
            assert row["epoch"] > NOW
            assert (row["injected_tokens"], row["prompt_version"]) == (0, "")


async def eventually_stopped(ask) -> None:
    """Until a conversation that is not tried again is stopped."""
    for number in range(2000):
        if (await ask(f"First {number % 20}?"))[1] == "does_not_pay":
            return
    pytest.fail("nothing was stopped")
