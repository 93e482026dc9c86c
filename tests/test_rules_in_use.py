"""Custom rules as operators type them and as requests meet them."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from conftest import Proxy, add_key
from fake_upstream import FakeUpstream

from mintoken.cli import main
from mintoken.models import Intensity

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
