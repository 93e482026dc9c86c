"""The README is true: its examples run, its tables are complete."""

import asyncio
import configparser
import io
import json
import os
import re
import shlex
import shutil
import sys
from enum import StrEnum
from pathlib import Path

import pytest
from conftest import PROVIDER_CANARY, Proxy, StartProxy
from fake_upstream import DONE, END, FakeUpstream, delta, stream_head
from staff import script

from mintoken.cli import main
from mintoken.config import SECTIONS
from mintoken.errors import Code
from mintoken.people import Role

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [(language, text) for language, text in re.findall(r"```(\w+)\n(.*?)```", README, re.S)]
REQUESTS = [
    [sys.executable, "-c", text] if language == "python" else ["bash", "-c", text]
    for language, text in BLOCKS
    if language == "python" or text.startswith("curl http://127.0.0.1:8787")
]
ADMIN_REQUESTS = [text for _, text in BLOCKS if text.startswith("curl http://127.0.0.1:8788")]


def table(heading: str) -> list[list[str]]:
    """The cells of the tables of a section, without the heads."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return [row for row in cells if set(row[0]) != {"-"}]


def in_code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("command", REQUESTS, ids=lambda command: command[2].split("\n")[0])
async def test_the_examples_get_an_answer(
    start_proxy: StartProxy, upstream: FakeUpstream, command: list[str]
) -> None:
    if command[0] == "bash" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if "stream=True" in command[2]:
        words = [delta(word) for word in ("Hello ", "there.")]
        upstream.play(stream_head(), *words, delta(finish="stop"), DONE, END)
    smart = "X-Mintoken-Reason" in command[2]
    proxy = await start_proxy(key={"smart": smart})
    command[2] = command[2].replace("http://127.0.0.1:8787", proxy.url)
    environ = {"MINTOKEN_KEY": proxy.key, "OPENAI_API_KEY": PROVIDER_CANARY}
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environ, stdout=pipe, stderr=pipe
    )
    out, err = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode == 0, err.decode()
    assert b"Hello there." in out
    [row] = await proxy.settled()
    assert row["outcome"] == "ok"
    assert row["intensity"] == ("none" if smart else "ultra" if "ultra" in command[2] else "full")
    assert (b"none detect:translate\n" in out) == smart


@pytest.mark.parametrize("command", ADMIN_REQUESTS, ids=lambda command: command.split("\n")[0])
async def test_the_examples_of_the_control_plane_are_answered(proxy: Proxy, command: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    owner = await script(proxy, Role.OWNER)
    [first] = (await owner.ask("GET", "/api/keys"))["data"]
    environ = {
        "MINTOKEN_TOKEN": owner.headers["Authorization"].removeprefix("Bearer "),
        "OPENAI_API_KEY": PROVIDER_CANARY,
        "KEY_ID": first["id"],
    }
    running = await asyncio.create_subprocess_exec(
        "bash", "-c", command.replace("http://127.0.0.1:8788", proxy.admin_url),
        env=os.environ | environ, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(running.communicate(), 30)
    document = json.loads(out)
    assert "error" not in document
    proxy.keys += [document[name] for name in document if name == "raw_key"]


def test_the_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", "data")
    commands = [
        line
        for language, text in BLOCKS
        for line in text.splitlines()
        if language == "sh" and line.startswith("mintoken ")
    ]
    assert len(commands) > 10
    for command in commands:
        monkeypatch.setattr("sys.stdin", io.StringIO("as if somebody typed it\n"))
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err


def test_every_command_and_option_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [in_code(row[0])[0] for row in table("Command line")[1:]]
    assert len(listed) == len({" ".join(_words(line)) for line in listed})
    for line in listed:
        main([*_words(line)[1:], "--help"])
        shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        assert shown - {"--help", "--config", "--json"} == _options(line) - {"--json"}, line


def _words(line: str) -> list[str]:
    return re.split(r" [A-Z\[-]", line)[0].split()


def _options(line: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", line))


def test_every_option_is_listed_with_its_default() -> None:
    listed = {in_code(row[0])[0]: in_code(row[1])[0] for row in table("Configuration")[1:]}
    defaults = {
        f"{section}.{name}": getattr(cls(), name)
        for section, cls in SECTIONS.items()
        for name in cls.__dataclass_fields__
    }
    assert listed == {name: _shown(value) for name, value in defaults.items()}


def _shown(value: object) -> str:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_error_is_listed_with_its_status() -> None:
    listed = {
        (int(status), code)
        for row in table("Errors")[1:]
        for status in row[0].split(", ")
        for code in in_code(row[1])
    }
    assert {(code.status, code.code) for code in Code} <= listed
    assert {code for _, code in listed} == {code.code for code in Code}


def test_every_dependency_is_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    assert [row[0] for row in table("Dependencies")[1:]] == [
        re.split("[<>=]", requirement)[0] for requirement in required
    ]
    for requirement in setup["options.extras_require"]["compression"].split():
        assert re.split("[<>=]", requirement)[0] in README


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, re.M))
    assert {name for pair in named for name in pair if name} <= targets


def test_the_files_that_are_linked_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
