"""`mintoken savings`, as an operator gets it: from requests over sockets to the measured effect."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import aiohttp
import pytest
from conftest import Served, eventually, usage_rows
from fake_upstream import FakeUpstream, Received, completion, fake_upstream, json_reply

from mintoken.cli import main

CONVERSATIONS, TURNS, AT_ONCE = 280, 2, 16
EFFECT = 0.5
PROCESS = (sys.executable, "-W", "error", "-m", "mintoken")


class Terse(FakeUpstream):
    """A provider whose answers are half as long where a system text asks for it."""

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        messages = json.loads(request.body)["messages"]
        asked = messages[-1]["content"]
        length = round(100 * Random(asked).lognormvariate(1, 0.4)) * 2
        if messages[0]["role"] == "system":
            length = round(EFFECT * length)
        usage = {"prompt_tokens": len(request.body) // 4, "completion_tokens": length}
        writer.write(json_reply(completion("An answer.", usage=usage)))
        await writer.drain()
        return True


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream(kind=Terse) as provider:
        yield provider


async def mintoken(data_dir: Path, *arguments: str) -> str:
    """What the command prints."""
    pipe = asyncio.subprocess.PIPE
    environ = os.environ | {"MINTOKEN_STORAGE_DATA_DIR": str(data_dir)}
    running = await asyncio.create_subprocess_exec(
        *PROCESS, *arguments, env=environ, cwd=data_dir, stdout=pipe, stderr=pipe
    )
    out, err = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, err.decode()
    return out.decode()


async def converse(served: Served, session: aiohttp.ClientSession, number: int) -> None:
    question = f"Question {number}: " + "what about it? " * (1 + number % 40)
    messages = [{"role": "user", "content": question}]
    for turn in range(TURNS):
        async with session.post(
            f"{served.url}/v1/chat/completions",
            json={"model": "gpt-4o", "messages": messages},
            headers=served.headers,
        ) as answer:
            assert answer.status == 200
            await answer.read()
        messages.append({"role": "assistant", "content": "An answer."})
        messages.append({"role": "user", "content": f"And {turn} of {number}?"})


async def test_the_effect_on_real_requests_is_inside_its_interval(served: Served) -> None:
    data_dir = served.data_dir
    [key] = json.loads(await mintoken(data_dir, "keys", "list", "--json"))
    await mintoken(data_dir, "keys", "update", key["id"], "--control", "50")
    ready = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:
        await served.start(session)

        async def one(number: int) -> None:
            async with ready:
                await converse(served, session, number)

        await asyncio.gather(*map(one, range(CONVERSATIONS)))

    def settled() -> bool:
        rows = usage_rows(data_dir)
        return len(rows) == CONVERSATIONS * TURNS and all(
            row["outcome"] != "reserved" for row in rows
        )

    await eventually(settled)
    found = json.loads(await mintoken(data_dir, "savings", "--json"))
    [line] = found["models"]
    assert line["model"] == "gpt-4o"
    assert sum(line["conversations"].values()) == CONVERSATIONS
    assert sum(line["requests"].values()) == CONVERSATIONS * TURNS
    ratio = line["output_ratio"]
    assert ratio["low"] <= EFFECT <= ratio["high"] < 0.8
    worth = line["money"]
    assert worth["net"]["low"] > 0
    assert worth["injected_text"] < 0
    # The same rows, the same answer.
    again = json.loads(await mintoken(data_dir, "savings", "--key", key["id"], "--json"))
    assert again == found
    text = await mintoken(data_dir, "savings", "--account", "default")
    assert f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" in text
    assert "Net saving on the product's" in text
    later = json.loads(await mintoken(data_dir, "savings", "--since", "2999-01-01", "--json"))
    assert later["models"] == []


# --- The command line ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("MINTOKEN_"):
            monkeypatch.delenv(name)
    assert main(["keys", "create", "--name", "app"]) == 0
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_without_a_control_arm_it_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["savings"]) == 0
    said = capsys.readouterr().out
    assert "not measured" in said
    typed = said.split("as it is: ")[1].split()[1:]
    assert main(typed) == 0
    assert main(["savings", "--key", "app"]) == 0
    assert "collecting: 0 of about 1,000" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_what_is_asked_of_nobody_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", "create", "other"]) == 0
    for arguments, says in (
        (["--account", "none"], "No account 'none'"),
        (["--key", "none"], "No key 'none'"),
        (["--key", "app", "--account", "other"], "Key 'app' is of another account."),
    ):
        assert main(["savings", *arguments]) == 1
        assert says in capsys.readouterr().err
    assert main(["savings", "--since", "soon"]) == 2
    assert main(["savings", "--account", "other", "--json"]) == 0


def test_wrong_prices_are_a_wrong_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "prices.toml").write_text("[models.a]\ninput = 1\n[models.b]\noutput = 1\n")
    monkeypatch.setenv("MINTOKEN_SAVINGS_PRICES", "prices.toml")
    assert main(["savings"]) == 78
    assert capsys.readouterr().err.count("is missing") == 2
