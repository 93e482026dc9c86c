"""What every store says of experiments: samples of their arms, and where compression stopped."""

import sqlite3
from collections import defaultdict
from dataclasses import replace
from random import Random

import msgspec
import pytest
from store_cases import (
    DAY,
    MONTH,
    NOW,
    add_account,
    ask,
    key,
    reservation,
    reserve,
    settle,
    settlement,
    undo,
)

from mintoken.errors import StorageError
from mintoken.models import CountedBy, Outcome, TokenUsage, Verdict
from mintoken.reports import MEASURES, ArmSample

ONE = {"arm": "product", "conversation": "c1", "opening_bytes": 100}


def used(**tokens) -> TokenUsage:
    return TokenUsage(**({"counted_by": CountedBy.UPSTREAM} | tokens))


async def answered(store, id_, *, tokens=None, outcome=Outcome.OK, status=200, **row) -> None:
    account_id = row.pop("account_id", "a")
    await reserve(store, reservation(id_, account_id, **row))
    tokens = tokens or used(input=20, output=5, cached=3, reasoning=2)
    settled = settlement(id_, outcome=outcome)
    await settle(store, msgspec.structs.replace(settled, tokens=tokens, status=status))


async def test_without_an_experiment_there_is_no_sample(store):
    await answered(store, "1")
    assert await store.samples(since_ms=0) == []


async def test_a_conversation_is_one_observation(store):
    await answered(store, "1", **ONE, tokens=used(input=10, output=2))
    guessed = TokenUsage(input=30, output=3, cached=5, reasoning=1)
    await answered(store, "2", **ONE, tokens=guessed)
    await answered(store, "3", **(ONE | {"conversation": "c2"}), tokens=used(output=7))
    [sample] = await store.samples(since_ms=0)
    one, two = [2, 40, 5, 5, 1, 14, 1, 1], [1, 0, 7, 0, 0, 7, 0, 0]
    assert sample == ArmSample(
        key_id="key-0",
        model="gpt-x",
        bucket=0,
        arm="product",
        conversations=2,
        sums=tuple(a + b for a, b in zip(one, two, strict=True)),
        products=tuple(
            tuple(one[i] * one[j] + two[i] * two[j] for j in range(8)) for i in range(8)
        ),
    )
    assert all(isinstance(product, int) for row in sample.products for product in row)


async def test_samples_are_by_key_model_bucket_and_arm(store, database):
    await add_account(store, "b")
    ask(database, "UPDATE keys SET origin = ''")
    for id_, more in enumerate(
        ({}, {"account_id": "b"}, {"model": "m"}, {"opening_bytes": 256}, {"arm": "control"})
    ):
        await answered(store, str(id_), **(ONE | {"conversation": f"c{id_}"} | more))
    samples = await store.samples(since_ms=0)
    assert [(one.key_id, one.model, one.bucket, one.arm) for one in samples] == [
        ("key-a", "gpt-x", 0, "control"),
        ("key-a", "gpt-x", 0, "product"),
        ("key-a", "gpt-x", 1, "product"),
        ("key-a", "m", 0, "product"),
        ("key-b", "gpt-x", 0, "product"),
    ]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        (0, 0),
        (255, 0),
        (256, 1),
        (1023, 1),
        (1024, 2),
        (4096, 3),
        (16_384, 4),
        (65_536, 5),
        (262_143, 5),
        (262_144, 6),
        (1 << 30, 6),
    ],
)
async def test_a_bucket_takes_four_times_what_the_one_before_takes(store, size, bucket):
    await answered(store, "1", **(ONE | {"opening_bytes": size}))
    [sample] = await store.samples(since_ms=0)
    assert sample.bucket == bucket


async def test_a_conversation_with_two_models_is_in_the_stratum_of_each(store):
    await answered(store, "1", **ONE)
    await answered(store, "2", **ONE, model="m")
    samples = await store.samples(since_ms=0)
    assert [(one.model, one.conversations, one.sums[0]) for one in samples] == [
        ("gpt-x", 1, 1),
        ("m", 1, 1),
    ]


@pytest.mark.parametrize(
    ("outcome", "status", "counts"),
    [
        (Outcome.OK, 200, True),
        (Outcome.CLIENT_CLOSED, 200, True),
        (Outcome.CLIENT_CLOSED, 0, False),
        (Outcome.OK, 400, False),
        (Outcome.UPSTREAM_ERROR, 200, False),
        (Outcome.UPSTREAM_BROKE, 200, False),
        (Outcome.CRASHED, 200, False),
    ],
)
async def test_only_what_was_answered_counts(store, outcome, status, counts):
    await answered(store, "1", **ONE, outcome=outcome, status=status)
    await reserve(store, reservation("2", **ONE))
    assert len(await store.samples(since_ms=0)) == counts


async def test_samples_can_be_of_a_time_an_account_and_a_key(store, database):
    await add_account(store, "b")
    ask(database, "UPDATE keys SET origin = ''")
    await answered(store, "1", **ONE)
    other = ONE | {"conversation": "c2", "started_at": NOW + DAY}
    await answered(store, "2", account_id="b", **other)

    async def keys(**asked):
        return [one.key_id for one in await store.samples(**({"since_ms": 0} | asked))]

    assert await keys() == ["key-a", "key-b"]
    assert await keys(since_ms=NOW + DAY) == ["key-b"]
    assert await keys(since_ms=NOW + DAY + 1) == []
    assert await keys(account_id="a") == ["key-a"]
    assert await keys(experiments=["key-b"]) == ["key-b"]
    assert await keys(experiments=["key-b", "key-a"]) == ["key-a", "key-b"]
    assert await keys(account_id="a", experiments=["key-b"]) == []
    assert await keys(experiments=["nobody"]) == await keys(experiments=[]) == []


async def test_keys_that_replaced_each_other_are_one(store, database):
    ask(database, "UPDATE keys SET origin = ''")
    for name in ("k2", "k3"):
        await store.save(replace(key(name, name=name), origin="key-a"))
    for id_, (who, conversation) in enumerate([("key-a", "c1"), ("k2", "c1"), ("k3", "c2")]):
        await answered(store, str(id_), **(ONE | {"conversation": conversation}), key_id=who)
    for asked in (None, ["key-a"]):
        [sample] = await store.samples(experiments=asked)
        assert (sample.key_id, sample.conversations, sample.sums[0]) == ("key-a", 2, 3)


async def test_what_has_another_epoch_is_another_sample(store):
    for id_, epoch in enumerate((0, NOW, NOW)):
        await answered(store, str(id_), **ONE, epoch=epoch)
    samples = await store.samples()
    assert [(one.epoch, one.conversations, one.sums[0]) for one in samples] == [
        (0, 1, 1),
        (NOW, 1, 2),
    ]


async def test_sums_are_those_of_the_rows(store):
    random = Random(7)
    seen = defaultdict(lambda: defaultdict(lambda: [0] * len(MEASURES)))
    for id_ in range(300):
        conversation, model = random.randrange(60), random.choice(["m", "n"])
        arm = ("product", "control", "concise")[conversation % 3]
        size = 4 ** (conversation % 11)
        tokens = TokenUsage(
            input=random.randrange(200_000),
            output=random.randrange(9000),
            cached=random.randrange(5000),
            reasoning=random.randrange(300),
            counted_by=random.choice(list(CountedBy)),
        )
        injected = random.randrange(70)
        row = {"arm": arm, "conversation": f"{conversation:016x}", "opening_bytes": size}
        await answered(
            store, f"{id_:03}", tokens=tokens, model=model, injected_tokens=injected, **row
        )
        observed = seen[model, min(6, max(0, conversation % 11 - 3)), arm][conversation]
        for at, value in enumerate(
            (
                *(1, tokens.input, tokens.output, tokens.cached, tokens.reasoning, injected),
                tokens.counted_by is CountedBy.ESTIMATE,
                tokens.counted_by is not CountedBy.UPSTREAM,
            )
        ):
            observed[at] += value
    samples = await store.samples(since_ms=0)
    assert [(one.model, one.bucket, one.arm) for one in samples] == sorted(seen)
    for sample in samples:
        observed = seen[sample.model, sample.bucket, sample.arm].values()
        assert sample.conversations == len(observed)
        assert list(sample.sums) == [sum(x) for x in zip(*observed, strict=True)]
        for i in range(len(MEASURES)):
            for j in range(len(MEASURES)):
                assert sample.products[i][j] == sum(x[i] * x[j] for x in observed)


async def test_absurd_numbers_do_not_overflow(store):
    most = 1 << 40
    for id_ in range(3):
        await answered(store, str(id_), **ONE, tokens=used(input=most, output=most))
    [sample] = await store.samples(since_ms=0)
    assert sample.sums[1] == 3 * most
    assert sample.products[1][2] == 9 * most**2


async def test_what_was_stopped_is_in_no_comparison(store):
    await answered(store, "1", **(ONE | {"arm": "stopped"}))
    assert await store.samples(since_ms=0) == []


async def test_what_is_purged_is_not_seen_any_more(store):
    await answered(store, "1", **ONE)
    assert await store.purge(before="2026-12", limit=10) == 1
    assert await store.samples(since_ms=0) == []


async def test_a_question_does_not_wait_for_the_ledger_nor_the_ledger_for_it(store, database):
    await answered(store, "1", **ONE)
    with sqlite3.connect(database, isolation_level=None) as another:
        another.execute("BEGIN IMMEDIATE")
        assert len(await store.samples(since_ms=0)) == 1
        another.execute("ROLLBACK")
        another.execute("BEGIN")
        another.execute("SELECT count(*) FROM usage").fetchall()
        await answered(store, "2", **ONE)
        another.execute("ROLLBACK")
    another.close()


# That the sums are those of the rows


async def lived(store, random: Random) -> None:
    """Requests of conversations that end in every way, over two months, by keys that rotate."""
    await store.save(replace(key("k2", name="k2"), origin="key-a"))
    for id_ in range(200):
        conversation = random.randrange(40)
        month = random.choice(["2026-10", "2026-11"])
        row = {
            "arm": ("product", "control", "concise", "stopped", "")[conversation % 5],
            "conversation": f"c{conversation}",
            "opening_bytes": 4 ** (conversation % 11),
            "model": random.choice(["m", "n"]),
            "epoch": random.choice([0, 7]),
            "key_id": random.choice(["key-a", "k2"]),
            "month": month,
        }
        tokens = TokenUsage(
            input=random.randrange(200_000), output=random.randrange(9000),
            counted_by=random.choice(list(CountedBy)),
        )  # fmt: skip
        ways = [(Outcome.OK, 200), (Outcome.CLIENT_CLOSED, 200), (Outcome.OK, 400)]
        outcome, status = random.choice([*ways, (Outcome.CRASHED, 200)])
        await answered(store, f"{id_:03}", tokens=tokens, outcome=outcome, status=status, **row)
        await settle(store, settlement(f"{id_:03}"))  # A second time changes nothing.


async def agree(store) -> bool:
    kept, of_rows = await store.samples(), await store.samples(since_ms=1)
    assert len(of_rows) > 10
    return [replace(one, products=()) for one in kept] == [
        replace(one, products=()) for one in of_rows
    ] and all(
        value == pytest.approx(other, rel=1e-9)
        for one, two in zip(kept, of_rows, strict=True)
        for row, other_row in zip(one.products, two.products, strict=True)
        for value, other in zip(row, other_row, strict=True)
    )


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_kept_is_what_the_rows_add_up_to(store, database, seed):
    ask(database, "UPDATE keys SET origin = ''")
    await lived(store, Random(seed))
    assert await agree(store)
    for limit in (1, 30, 500):
        await store.purge(before=MONTH, limit=limit)
        assert await agree(store)
        assert await store.audit() == []


async def test_an_older_database_gets_its_sums_from_its_rows(open_store, database):
    store = await open_store()
    await add_account(store)
    ask(database, "UPDATE keys SET origin = ''")
    await lived(store, Random(3))
    kept = await store.samples()
    await store.close()
    undo(database, "0010_samples.sql")
    again = await open_store()
    assert await again.samples() == kept
    await answered(again, "later", **ONE)
    assert await agree(again)
    assert await again.audit() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE experiment_samples SET output_tokens = output_tokens + 1",
        "UPDATE experiment_samples SET input_output = input_output * 2",
        "UPDATE experiment_samples SET arm = 'other'",
        "DELETE FROM experiment_samples",
    ],
)
async def test_the_audit_finds_a_sum_that_is_not_that_of_its_rows(store, database, change):
    await answered(store, "1", **ONE)
    assert await store.audit() == []
    ask(database, change)
    assert await store.audit() == ["key key-0: its experiment's sums are not its rows'"]


# Where compression stopped


async def verdicts(store):
    return (await store.directory()).verdicts


async def test_nothing_is_stopped_at_first(store):
    assert await verdicts(store) == {}


async def test_a_verdict_holds_until_another_one_with_the_date_of_its_change(store):
    await add_account(store, "b")
    here, there = ("key-a", "m"), ("key-b", "m")
    for judged, held in (
        ({here: Verdict(True, 5)}, {here: Verdict(True, 5)}),
        (
            {here: Verdict(True, 6), there: Verdict(True, 6)},
            {here: Verdict(True, 5), there: Verdict(True, 6)},
        ),
        ({here: Verdict(False, 7)}, {here: Verdict(False, 7), there: Verdict(True, 6)}),
        ({}, {here: Verdict(False, 7), there: Verdict(True, 6)}),
    ):
        await store.judge(judged)
        assert await verdicts(store) == held


async def test_a_model_may_be_named_as_it_likes(store):
    names = ("", "'; DROP TABLE usage", '"]', "grün", "a,b", "1")
    judged = {("key-a", name): Verdict(True, 1) for name in names}
    await store.judge(judged)
    assert await verdicts(store) == judged


async def test_the_directory_changes_only_where_a_verdict_does(open_store, store):
    other = await open_store()
    known = (await other.directory()).revision
    await store.judge({("key-a", "m"): Verdict(True, 1)})
    changed = await other.directory(known)
    assert changed.verdicts == {("key-a", "m"): Verdict(True, 1)}
    await store.judge({("key-a", "m"): Verdict(True, 2)})
    assert await other.directory(changed.revision) is None
    await store.judge({("key-a", "m"): Verdict(False, 3)})
    assert (await other.directory(changed.revision)).verdicts == {("key-a", "m"): Verdict(False, 3)}


async def test_an_unknown_key_cannot_be_stopped(store):
    with pytest.raises(StorageError):
        await store.judge({("nobody", "m"): Verdict(True, 1)})
