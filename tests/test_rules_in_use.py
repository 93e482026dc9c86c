"""Custom rules as operators type them and as requests meet them."""

import asyncio
import io
import json
import random
from pathlib import Path

import pytest
from conftest import Proxy, StartProxy, add_key
from fake_upstream import FakeUpstream

from mintoken.accounts import Accounts
from mintoken.chat_asked import EDGE_CHARACTERS
from mintoken.cli import main
from mintoken.clock import utc_ms
from mintoken.models import Intensity, Rule, RuleAction, Verdict
from mintoken.stores.base import Store
from mintoken.stores.sqlite import open_sqlite

ADD = ["rules", "add", "--action"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "create", "--name", "app", "--intensity", "lite"]) == 0
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main([*arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def document(capsys: pytest.CaptureFixture[str], *arguments: str):
    return json.loads(printed(capsys, *arguments, "--json"))


@pytest.mark.usefixtures("folder")
def test_a_rule_is_added_listed_tried_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    low = document(capsys, *ADD, "always_compress", "--pattern", "(?i)log")
    high = document(capsys, *ADD, "level:lite", "--pattern", "logs", "--priority", "5")
    assert (low["action"], low["priority"], low["account"]) == ("always_compress", 0, "default")
    listed = document(capsys, "rules", "list", "--account", "default")
    assert [one["id"] for one in listed] == [low["id"], high["id"]]
    tried = document(capsys, "rules", "test", "My logs")
    assert [one["id"] for one in tried["matching"]] == [high["id"], low["id"]]
    assert (tried["intensity"], tried["reason"]) == ("lite", f"rule:{high['id']}")
    assert high["id"] in printed(capsys, "rules", "test", "My logs")
    document(capsys, "rules", "remove", high["id"])
    assert document(capsys, "rules", "test", "My logs")["reason"] == f"rule:{low['id']}"
    assert "no rule 'r_0'" in printed(capsys, "rules", "remove", "r_0", code=1)


@pytest.mark.usefixtures("folder")
def test_where_no_rule_matches_it_says_what_else_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = printed(capsys, "rules", "test", "Translate this into French: good morning")
    assert "No rule matches." in said
    assert "detect:" in said
    assert document(capsys, "rules", "test", "x", "--key", "app")["reason"] == "key"
    assert main(["keys", "update", "app", "--smart"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("Translate this into French: good morning"))
    tried = document(capsys, "rules", "test", "-", "--key", "app")
    assert tried["intensity"] == "none"
    assert tried["reason"].startswith("detect:")


@pytest.mark.usefixtures("folder")
def test_a_rule_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no lookahead" in printed(capsys, *ADD, "never_compress", "--pattern", "(?=a)", code=1)
    assert "No account" in printed(
        capsys, *ADD, "never_compress", "--pattern", "a", "--account", "nobody", code=1
    )
    assert printed(capsys, *ADD, "sometimes", "--pattern", "a", code=2)
    assert main(["accounts", "create", "other"]) == 0
    assert "of another account" in printed(
        capsys, "rules", "test", "x", "--key", "app", "--account", "other", code=1
    )
    assert document(capsys, "rules", "list") == []


@pytest.mark.usefixtures("folder")
def test_priorities_and_lengths_have_limits(capsys: pytest.CaptureFixture[str]) -> None:
    for most in ("1000", "-1000"):
        document(capsys, *ADD, "level:full", "--pattern", "a" * 500, "--priority", most)
    for more in ("1001", "-1001"):
        assert printed(capsys, *ADD, "level:full", "--pattern", "a", "--priority", more, code=2)
    for pattern, says in (("a" * 501, "has 501"), ("", "has 0")):
        assert says in printed(capsys, *ADD, "level:full", "--pattern", pattern, code=1)
    assert len(document(capsys, "rules", "list")) == 2


@pytest.mark.usefixtures("folder")
def test_a_text_is_tried_with_the_rules_of_the_account_of_its_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["accounts", "create", "other"]) == 0
    assert main(["keys", "create", "--account", "other", "--name", "its"]) == 0
    rule = document(capsys, *ADD, "level:none", "--pattern", "x", "--account", "other")
    tried = document(capsys, "rules", "test", "x", "--key", "its")
    assert tried["reason"] == f"rule:{rule['id']}"
    assert document(capsys, "rules", "test", "x", "--key", "app")["reason"] == "key"
    assert document(capsys, "rules", "test", "x")["reason"] is None


@pytest.mark.usefixtures("folder")
def test_an_account_has_a_hundred_rules_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(100):
        assert main([*ADD, "never_compress", "--pattern", f"a{number}"]) == 0
    assert "100 is the most" in printed(capsys, *ADD, "never_compress", "--pattern", "more", code=1)


async def test_a_rule_reaches_the_server_within_a_second_and_its_account_alone(
    proxy: Proxy, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", str(proxy.data_dir))
    smart = await add_key(proxy.data_dir, intensity=Intensity.LITE, smart=True)
    proxy.keys.append(smart)

    async def reason(text: str, **headers: str) -> tuple[str, str]:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
        answer = await proxy.post(body, **headers)
        assert answer.status == 200
        return answer.headers["X-Mintoken-Intensity"], answer.headers["X-Mintoken-Reason"]

    assert await asyncio.to_thread(main, [*ADD, "never_compress", "--pattern", "refund"]) == 0
    assert await asyncio.to_thread(main, ["accounts", "create", "other"]) == 0
    other = [*ADD, "always_compress", "--pattern", ".", "--priority", "9", "--account", "other"]
    assert await asyncio.to_thread(main, other) == 0
    deadline = asyncio.get_running_loop().time() + 1.0
    while not (found := await reason("I want a refund."))[1].startswith("rule:r_"):
        assert asyncio.get_running_loop().time() < deadline
    assert found[0] == "none"
    assert proxy.rows()[-1]["reason"] == found[1]
    assert (await reason("I want to know."))[1] == "key"
    # A header wins over a rule, and a rule over smart detection.
    assert await reason("A refund?", **{"X-Mintoken-Intensity": "full"}) == ("full", "header")
    bearer = {"Authorization": f"Bearer {smart}"}
    assert (await reason("Translate into French: a refund", **bearer)) == found
    assert (await reason("Translate into French: a cat", **bearer))[1].startswith("detect:")


async def test_rules_that_may_take_long_run_beside_the_event_loop(
    proxy: Proxy, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", str(proxy.data_dir))
    slow = "(a|b)*a(a|b){300}x"
    assert await asyncio.to_thread(main, [*ADD, "never_compress", "--pattern", slow]) == 0
    text = "a" * 400 + "x"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    deadline = asyncio.get_running_loop().time() + 1.0
    while True:
        answer = await proxy.post(body)
        if answer.headers["X-Mintoken-Reason"].startswith("rule:"):
            break
        assert asyncio.get_running_loop().time() < deadline


# --- In a server that runs ----------------------------------------------------------------------


def rule(account_id: str, pattern: str, action=RuleAction.NEVER_COMPRESS, id_: str = "r_1") -> Rule:
    return Rule(id=id_, account_id=account_id, action=action, pattern=pattern, created_at=utc_ms())


async def save(proxy: Proxy, *rules: tuple[str, RuleAction]) -> None:
    """Put rules r_0, r_1 ... of the account `default` into the store."""
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    try:
        account = (await store.directory()).accounts[0]
        for number, (pattern, action) in enumerate(rules):
            await store.save(rule(account.id, pattern, action, f"r_{number}"))
    finally:
        await store.close()


def talk(*turns: str) -> dict[str, object]:
    messages = []
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "refund"}]
    return {"model": "gpt-4o", "messages": messages[:-1]}


async def reason_within_a_second(proxy: Proxy, body: dict[str, object]) -> str:
    """The reason of the first answer that a rule decides."""
    deadline = asyncio.get_running_loop().time() + 1.0
    while True:
        reason = (await proxy.post(body)).headers["X-Mintoken-Reason"]
        if reason.startswith("rule:"):
            return reason
        assert asyncio.get_running_loop().time() < deadline


async def test_rules_look_at_the_last_user_message_of_each_turn_alone(
    start_proxy: StartProxy,
) -> None:
    proxy = await start_proxy(key={"smart": True})
    await save(
        proxy, ("refund", RuleAction.NEVER_COMPRESS), ("(?i)mutex", RuleAction.ALWAYS_COMPRESS)
    )
    turns = ("A refund.", "What is a cat?", "What is a mutex?", "Tell me more about cats.")
    assert await reason_within_a_second(proxy, talk(turns[0])) == "rule:r_0"
    told = [
        (await proxy.post(talk(*turns[:at]))).headers["X-Mintoken-Reason"] for at in range(1, 5)
    ]
    assert [told[0], told[2]] == ["rule:r_0", "rule:r_1"]
    assert not any(reason.startswith("rule:") for reason in (told[1], told[3]))


async def test_rules_look_at_the_system_text_only_where_no_user_says_a_word(proxy: Proxy) -> None:
    await save(proxy, ("^hello", RuleAction.NEVER_COMPRESS))
    await reason_within_a_second(proxy, talk("hello"))
    system = {"role": "system", "content": "hello"}
    other = {"role": "system", "content": "It is Monday."}
    for messages, reason in [
        ([system], "rule:r_0"),
        ([other, {"role": "user", "content": "hello"}, other], "rule:r_0"),
        ([system, {"role": "user", "content": "I say hello"}], "key"),
    ]:
        answer = await proxy.post({"model": "gpt-4o", "messages": messages})
        assert answer.headers["X-Mintoken-Reason"] == reason
    empty = {"model": "gpt-4o", "messages": []}
    assert (await proxy.post(empty)).headers["X-Mintoken-Reason"] == "no_messages"


@pytest.mark.parametrize("at", [0, EDGE_CHARACTERS, 10 * EDGE_CHARACTERS])
async def test_a_long_text_that_is_tried_gets_what_its_request_gets(
    proxy: Proxy,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", str(proxy.data_dir))
    await save(proxy, ("refund", RuleAction.LEVEL_LITE), ("ready", RuleAction.LEVEL_FULL))
    await reason_within_a_second(proxy, talk("ready"))
    text = "x " * at + "refund" + " y" * 5 * EDGE_CHARACTERS
    reason = (await proxy.post(talk(text))).headers["X-Mintoken-Reason"]
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    arguments = "rules", "test", "-", "--key", proxy.rows()[-1]["key_id"]
    assert (await asyncio.to_thread(document, capsys, *arguments))["reason"] == reason
    assert (reason == "rule:r_0") == (at == 0)


async def test_a_stored_rule_that_cannot_be_used_fails_towards_not_compressing(
    proxy: Proxy,
) -> None:
    await save(
        proxy, ("(?=never)", RuleAction.NEVER_COMPRESS), ("(?=always)", RuleAction.ALWAYS_COMPRESS)
    )
    assert await reason_within_a_second(proxy, talk("anything")) == "rule:r_0"
    told = [line for line in proxy.log_lines() if line["event"] == "rule_unusable"]
    assert [line["rule"] for line in told] == ["r_0", "r_1"]
    assert all("lookahead" in line["why"] for line in told)


async def test_rules_are_compiled_again_only_where_they_changed(store: Store) -> None:
    accounts = Accounts(store)
    await store.save(rule("a", "(?=bad)"))
    await accounts.refresh()
    before = accounts.rules("a")
    assert before is not None
    default = accounts.directory.accounts[0].id
    await store.save(rule(default, "x", id_="r_2"))
    await accounts.refresh()
    assert accounts.rules("a") is before
    assert accounts.rules(default) is not None
    await store.remove_rule("r_2")
    await store.save(rule("a", "y"))
    await accounts.refresh()
    assert accounts.rules(default) is None
    changed = accounts.rules("a")
    assert changed is not None
    assert (changed is not before, changed.unusable) == (True, ())


async def test_the_worst_rules_and_text_hold_up_nobody_else(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    never = RuleAction.NEVER_COMPRESS
    worst = [(f"(a|b)*a(a|b){{{300 + n}}}x", never) for n in range(15)]
    await save(proxy, *worst, ("ready", never))
    await reason_within_a_second(proxy, talk("ready"))
    rng = random.Random(1)
    text = "".join(rng.choice("ab") for _ in range(2 * EDGE_CHARACTERS))
    slow = asyncio.create_task(proxy.post(talk(text)))
    meanwhile = 0
    while not slow.done():
        async with proxy.session.get(f"{proxy.url}/healthz") as answer:
            assert answer.status == 200
        meanwhile += 1
    assert meanwhile > 10
    assert (await slow).headers["X-Mintoken-Reason"] == "key"


@pytest.mark.parametrize(
    ("action", "reasons"),
    [
        (RuleAction.NEVER_COMPRESS, {"control", "rule:r_0"}),
        (RuleAction.ALWAYS_COMPRESS, {"control", "does_not_pay"}),
    ],
)
async def test_the_control_arm_comes_first_and_what_does_not_pay_before_rules_that_compress(
    start_proxy: StartProxy, action: RuleAction, reasons: set[str]
) -> None:
    proxy = await start_proxy(key={"control": 50})
    await save(proxy, ("^", action))
    await proxy.post(talk("hello"))
    store = await open_sqlite(proxy.data_dir, clock_ms=utc_ms)
    await store.judge({(proxy.rows()[-1]["key_id"], "gpt-4o"): Verdict(True, utc_ms())})
    await store.close()

    async def told(n: int) -> list[str]:
        return [
            (await proxy.post(talk(f"question {number}"))).headers["X-Mintoken-Reason"]
            for number in range(n)
        ]

    deadline = asyncio.get_running_loop().time() + 2.0
    while not reasons <= set(await told(20)):
        assert asyncio.get_running_loop().time() < deadline
    assert set(await told(20)) - {"rule:r_0"} <= reasons  # a few try again whether it pays
