"""The command line: what an operator types, what comes out, and with which exit code."""

import asyncio
import csv
import fcntl
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import PROVIDER_CANARY, Served, StartProxy, free_port
from fake_upstream import FakeUpstream
from staff import hire

from mintoken.cli import main
from mintoken.keys import is_well_formed
from mintoken.people import Role


@dataclass
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but what a test sets, and free ports, whatever runs on this machine."""
    for name in os.environ:
        if name.startswith("MINTOKEN_"):
            monkeypatch.delenv(name)
    for name in ("MINTOKEN_SERVER_LISTEN", "MINTOKEN_SERVER_ADMIN_LISTEN"):
        monkeypatch.setenv(name, "127.0.0.1:0")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs commands in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        return Ran(code, *capsys.readouterr())

    return run


def process(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mintoken", *arguments],
        cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


# --- Keys ---------------------------------------------------------------------------------------


def test_a_new_key_is_shown_once_and_stored_nowhere(cli: Cli, tmp_path: Path) -> None:
    created = cli("keys", "create", "--name", "app", "--rpm", "60", "--json").json
    assert is_well_formed(created["key"])
    [listed] = cli("keys", "list", "--json").json
    assert listed == {name: value for name, value in created.items() if name != "key"}
    assert listed["name"] == "app"
    assert listed["account"] == "default"
    assert listed["intensity"] == "full"
    assert listed["rpm"] == 60
    assert listed["state"] == "active"
    assert created["key"] not in cli("keys", "list").out
    for path in (tmp_path / "data").rglob("*"):
        assert path.is_dir() or created["key"].encode() not in path.read_bytes()


def test_people_see_the_key_and_that_it_is_shown_once(cli: Cli) -> None:
    ran = cli("keys", "create", "--intensity", "ultra")
    assert any(is_well_formed(word) for word in ran.out.split())
    assert "Key key-1 of account default, shown this one time" in ran.out
    assert "ultra" in cli("keys", "list").out


@pytest.mark.parametrize(
    ("given", "expires", "state"),
    [
        ("2020-01-31", "2020-01-31T00:00:00Z", "expired"),
        ("2999-01-31T18:00", "2999-01-31T18:00:00Z", "active"),
        ("2999-01-31T18:00:30Z", "2999-01-31T18:00:30Z", "active"),
        ("2999-01-31T18:00+02:00", "2999-01-31T16:00:00Z", "active"),
        ("never", None, "active"),
    ],
)
def test_expiry_is_an_iso_date_in_utc(cli: Cli, given: str, expires: str, state: str) -> None:
    created = cli("keys", "create", "--expires", given, "--json").json
    assert (created["expires_at"], created["state"]) == (expires, state)


def test_update_changes_what_is_given_and_nothing_else(cli: Cli) -> None:
    before = cli("keys", "create", "--concurrency", "3", "--expires", "2020-01-01", "--json").json
    after = cli(
        "keys", "update", before["id"], "--name", "new", "--intensity", "lite",
        "--expires", "never", "--json",
    ).json  # fmt: skip
    del before["key"]
    changes = {"name": "new", "intensity": "lite", "expires_at": None, "state": "active"}
    assert after == before | changes


@pytest.mark.parametrize(
    ("options", "smart"),
    [
        ([], False),
        (["--intensity", "ultra"], False),
        (["--smart"], True),
        (["--intensity", "ultra", "--smart"], True),
        (["--no-smart"], False),
    ],
)
def test_smart_detection_is_off_unless_it_is_asked_for(
    cli: Cli, options: list[str], smart: bool
) -> None:
    assert cli("keys", "create", *options, "--json").json["smart_detect_enabled"] is smart


def test_smart_detection_is_switched_and_survives_other_changes(cli: Cli) -> None:
    cli("keys", "create", "--name", "app")
    assert cli("keys", "update", "app", "--smart", "--json").json["smart_detect_enabled"]
    assert cli("keys", "update", "app", "--rpm", "5", "--json").json["smart_detect_enabled"]
    assert cli("keys", "rotate", "app", "--json").json["smart_detect_enabled"]
    assert "Smart" in cli("keys", "list").out
    assert not cli("keys", "update", "app", "--no-smart", "--json").json["smart_detect_enabled"]


def test_an_experiment_is_set_up_and_survives_other_changes_and_rotation(cli: Cli) -> None:
    def arms(*words: str) -> tuple[object, ...]:
        shown = cli("keys", *words, "--json").json
        return shown["control"], shown["concise"], shown["auto_stop"]

    assert arms("create", "--name", "plain") == (0, 0, True)
    assert arms("create", "--name", "app", "--control", "10", "--concise", "5") == (10, 5, True)
    assert arms("update", "app", "--no-auto-stop") == (10, 5, False)
    assert arms("update", "app", "--rpm", "5") == (10, 5, False)
    assert arms("rotate", "app") == (10, 5, False)
    assert arms("update", "app", "--control", "0", "--concise", "0", "--auto-stop") == (0, 0, True)


def test_control_arms_take_half_of_the_conversations_at_most(cli: Cli) -> None:
    assert cli("keys", "create", "--name", "app", "--control", "51").code == 2
    assert cli("keys", "create", "--name", "app", "--concise", "-1").code == 2
    refused = cli("keys", "create", "--name", "app", "--control", "30", "--concise", "21")
    assert (refused.code, "30 + 21 percent" in refused.err) == (1, True)
    assert cli("keys", "create", "--name", "app", "--control", "30", "--concise", "20").code == 0
    assert cli("keys", "update", "app", "--control", "31").code == 1


def test_rotation_makes_a_twin_and_the_old_key_ends_after_the_overlap(cli: Cli) -> None:
    old = cli("keys", "create", "--name", "app", "--rpm", "9", "--intensity", "lite", "--json").json
    new = cli("keys", "rotate", "app", "--overlap", "0", "--json").json
    assert is_well_formed(new["key"])
    assert new["key"] != old["key"]
    assert new["replaces"]["id"] == old["id"]
    assert new["replaces"]["state"] == "expired"
    kept = ("name", "account", "intensity", "rpm", "concurrency", "expires_at", "state")
    assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    again = cli("keys", "rotate", "app")
    assert again.code == 0
    assert "The old one ends 2" in again.out


def test_an_overlap_never_makes_an_old_key_live_longer(cli: Cli) -> None:
    cli("keys", "create", "--name", "app", "--expires", "2999-01-01")
    rotated = cli("keys", "rotate", "app", "--overlap", "999999d", "--json").json
    assert rotated["replaces"]["expires_at"] == "2999-01-01T00:00:00Z"


def test_a_key_that_has_ended_is_not_rotated(cli: Cli) -> None:
    cli("keys", "create", "--name", "app", "--expires", "2020-01-01")
    ran = cli("keys", "rotate", "app")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "mintoken: Key 'app' has ended. Create a new one instead.\n"


def test_a_revoked_key_stays_revoked_and_frees_its_name(cli: Cli) -> None:
    key = cli("keys", "create", "--name", "app", "--json").json
    assert cli("keys", "revoke", "app").out == "Key app is revoked.\n"
    revoked = cli("keys", "revoke", key["id"], "--json").json
    assert revoked["state"] == "revoked"
    assert cli("keys", "create", "--name", "app").code == 0


def test_a_name_that_two_accounts_use_needs_an_id(cli: Cli) -> None:
    cli("accounts", "create", "team")
    ids = [
        cli("keys", "create", "--name", "app", "--account", account, "--json").json["id"]
        for account in ("default", "team")
    ]
    ran = cli("keys", "revoke", "app")
    assert ran.code == 1
    assert all(key_id in ran.err for key_id in ids)
    assert cli("keys", "revoke", ids[1]).code == 0


def test_revoking_a_new_key_tells_of_the_old_one_that_still_works(cli: Cli) -> None:
    old = cli("keys", "create", "--name", "app", "--json").json
    cli("keys", "rotate", "app", "--overlap", "1h")
    told = cli("keys", "revoke", "app").out
    assert "still works until 2" in told
    command = told.rpartition("mintoken ")[2].split()
    assert command[-1] == old["id"]
    assert cli(*command).code == 0
    assert "still works" not in cli("keys", "revoke", old["id"]).out


# --- Accounts and usage -------------------------------------------------------------------------


def test_accounts_are_made_changed_and_listed(cli: Cli) -> None:
    made = cli("accounts", "create", "team", "--monthly-tokens", "5000", "--json").json
    assert (made["name"], made["monthly_tokens"]) == ("team", 5000)
    cli("accounts", "update", "team", "--name", "the team", "--monthly-tokens", "0")
    names = {one["name"]: one["monthly_tokens"] for one in cli("accounts", "list", "--json").json}
    assert names == {"default": 0, "the team": 0}
    assert cli("accounts", "create", "the team").err == "mintoken: The name 'the team' is taken.\n"


async def test_usage_adds_up_what_was_recorded(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(monthly_tokens=1000)
    for model in ("gpt-4o", "gpt-4o", "=gpt\u001b[31m"):
        body = {"model": model, "messages": [{"role": "user", "content": "Hi."}]}
        await proxy.post(body, X_Mintoken_Intensity="none")
    await proxy.settled(3)
    environ = {"MINTOKEN_STORAGE_DATA_DIR": str(proxy.data_dir)}

    async def shown(*arguments: str) -> str:
        # In a thread: the proxy in this process goes on, and with it the lock that both want.
        ran = await asyncio.to_thread(process, *arguments, cwd=proxy.data_dir.parent, **environ)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    document = json.loads(await shown("usage", "--by", "model", "--json"))
    assert [(row["group"], row["requests"]) for row in document["rows"]] == [
        ("=gpt\u001b[31m", 1),
        ("gpt-4o", 2),
    ]
    assert document["total"]["output_tokens"] == 9
    assert document["total"]["charged_tokens"] == 9
    table = await shown("usage", "--by", "model", "--account", "default")
    assert "\u001b" not in table
    assert table.split()[-8:] == ["Total", "3", "30", "0", "9", "0", "0", "9"]
    rows = list(csv.DictReader(io.StringIO(await shown("usage", "--by", "model", "--csv"))))
    assert [row["group"] for row in rows] == ["'=gpt\u001b[31m", "gpt-4o"]
    [by_key] = json.loads(await shown("usage", "--by", "key", "--json"))["rows"]
    assert by_key["key_name"] in await shown("usage", "--by", "key")
    assert json.loads(await shown("usage", "--month", "2020-01", "--json"))["rows"] == []
    [account] = json.loads(await shown("accounts", "list", "--json"))
    assert account["used_tokens"] == 9


# --- Exit codes and configuration ---------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["keys", "create", "--expires", "soon"],
        ["keys", "create", "--rpm", "-1"],
        ["keys", "create", "--intensity", "loud"],
        ["keys", "rotate", "app", "--overlap", "1 day"],
        ["accounts", "create"],
        ["usage", "--month", "2026-13"],
        ["usage", "--by", "color"],
        ["usage", "--csv", "--json"],
        ["keys", "update", "app"],
        ["accounts", "update", "default"],
    ],
    ids=" ".join,
)
def test_misuse_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments)
    assert ran.code == 2
    assert "Usage: mintoken" in ran.out + ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "revoke", "nobody"],
        ["accounts", "update", "nobody", "--monthly-tokens", "1"],
        ["keys", "create", "--account", "nobody"],
        ["keys", "create", "--name", "two\nlines"],
        ["accounts", "create", " "],
        ["keys", "list"],
        ["accounts", "list"],
        ["usage"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_exit_1_and_one_line(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("mintoken: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", [["serve"], ["keys", "list"], ["check"], ["usage"]])
def test_a_wrong_configuration_is_exit_78_with_every_problem(
    tmp_path: Path, command: list[str]
) -> None:
    ran = process(
        *command, cwd=tmp_path, MINTOKEN_SERVER_LISTEN="nowhere", MINTOKEN_QUOTA_NOTICE_AT="2"
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "server.listen" in ran.stderr
    assert "quota.notice_at" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "data").exists()


def test_a_named_file_that_is_missing_is_exit_78(cli: Cli) -> None:
    ran = cli("--config", "absent.toml", "keys", "list")
    assert (ran.code, ran.out) == (78, "")
    assert "absent.toml" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "here.toml", "keys", "create"],
        ["keys", "--config", "here.toml", "create"],
        ["keys", "create", "--config", "here.toml"],
        ["--config", "absent.toml", "keys", "create", "--config", "here.toml"],
    ],
    ids=" ".join,
)
def test_config_is_taken_before_and_after_the_command(
    cli: Cli, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "here.toml").write_text('[storage]\ndata_dir = "elsewhere"\n')
    assert cli(*arguments).code == 0
    assert (tmp_path / "elsewhere" / "mintoken.db").exists()


def test_a_foreign_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mintoken.db").write_text("not a database")
    for command in (["keys", "list"], ["serve"]):
        ran = process(*command, cwd=tmp_path)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "is not a Mintoken database" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_ledger_that_another_process_keeps_locked_is_exit_1_and_one_line(
    tmp_path: Path,
) -> None:
    assert process("keys", "create", cwd=tmp_path).returncode == 0
    with (tmp_path / "data" / "ledger.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = process("keys", "list", cwd=tmp_path)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "kept the ledger locked" in ran.stderr


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").out == "0.1.0\n"
    ran = cli("keys", "create", "--help")
    assert ran.code == 0
    assert "--expires" in ran.out


# --- Serving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["curl", "python"])
async def test_the_first_start_prints_a_key_and_snippets_that_work(
    upstream: FakeUpstream, tmp_path: Path, unused_tcp_port: int, language: str
) -> None:
    if language == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    served = Served(tmp_path / "data", upstream.base_url, unused_tcp_port)
    async with aiohttp.ClientSession() as session:
        await served.start(session)
        greeting = served.log.read_text()
        assert f"http://127.0.0.1:{unused_tcp_port}/v1" in greeting
        command = _snippet(greeting, language)
        ran = await printed_by(command, OPENAI_API_KEY=PROVIDER_CANARY)
        assert "Hello there." in ran
        link = greeting[greeting.index(f"{served.url}/dashboard/welcome/") :].split()[0]
        async with session.get(link) as page:
            assert (page.status, "the owner" in await page.text()) == (200, True)
        assert await served.stop(signal.SIGTERM) == 0
        served.log.write_text("")
        await served.start(session)
        told = served.log.read_text()
        assert "mt_live_" not in told
        assert "/welcome/" not in told
        assert await served.stop(signal.SIGINT) == 0
    assert PROVIDER_CANARY in str(upstream.requests[0].headers)


@pytest.mark.parametrize(
    ("environ", "users", "origin"),
    [
        ({"MINTOKEN_SERVER_ADMIN_LISTEN": "0.0.0.0:{other}"}, 0, "http://127.0.0.1:{other}"),
        ({"MINTOKEN_ADMIN_TLS": "true"}, 0, "https://YOUR-HOST"),
        ({}, 1, None),
    ],
)
async def test_the_first_start_prints_where_the_owner_is_made_unless_there_is_a_user(
    served: Served, tmp_path: Path, environ: dict[str, str], users: int, origin: str | None
) -> None:
    served.data_dir, other = tmp_path / "fresh", free_port()
    served.environ |= {"MINTOKEN_STORAGE_DATA_DIR": str(served.data_dir)}
    served.environ |= {name: value.format(other=other) for name, value in environ.items()}
    for number in range(users):
        await hire(served.data_dir, f"user {number}", Role.VIEWER)
    async with aiohttp.ClientSession() as session:
        await served.start(session)
    told = served.log.read_text()
    assert "mt_live_" in told
    assert ("/dashboard/welcome/" in told) is (origin is not None)
    assert origin is None or f"  {origin.format(other=other)}/dashboard/welcome/" in told


def _snippet(greeting: str, language: str) -> list[str]:
    """The command that the greeting shows."""
    if language == "curl":
        text = greeting[greeting.index("  curl ") :]
        return ["bash", "-c", text[: text.index("\n\n")]]
    start, end = greeting.index("  import os"), greeting.index("message.content)")
    lines = (greeting[start:end] + "message.content)").splitlines()
    return [sys.executable, "-c", "\n".join(line.removeprefix("  ") for line in lines)]


async def printed_by(command: list[str], **environ: str) -> str:
    """What a program prints that talks to servers of this very event loop."""
    running = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode == 0, err.decode()
    return out.decode()


def test_an_address_in_use_is_exit_1_and_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = process("serve", cwd=tmp_path, MINTOKEN_SERVER_LISTEN=address)
    assert ran.returncode == 1
    assert address.rpartition(":")[2] in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def test_who_only_looks_makes_nothing(cli: Cli, tmp_path: Path) -> None:
    for command in (["keys", "list"], ["accounts", "list"], ["usage"]):
        assert "There is no database in data" in cli(*command).err
    assert not (tmp_path / "data").exists()


def test_a_lost_secret_is_exit_78_until_no_key_needs_it(cli: Cli, tmp_path: Path) -> None:
    key = cli("keys", "create", "--json").json
    secret = tmp_path / "data" / "server_secret"
    secret.unlink()
    for command in (["keys", "create"], ["serve"], ["check"]):
        ran = cli(*command)
        assert ran.code == (1 if command == ["check"] else 78)
        assert "Restore it from a backup" in ran.out + ran.err
    assert not secret.exists()
    cli("keys", "revoke", key["id"])
    assert cli("keys", "create").code == 0


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a folder should be")
    ran = cli("keys", "create")
    assert ran.code == 1
    assert "data" in ran.err
    assert "storage.data_dir" in ran.err
