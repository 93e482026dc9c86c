"""Users and admin keys, as an operator makes, finds, changes and ends them on the command line."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from staff import PASSWORD
from store_cases import ask

from mintoken import keys
from mintoken.cli import main
from mintoken.passwords import is_password

Run = Callable[..., Any]
OTHER = "another canary of one"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with this standard input: its JSON, or what it complained of."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, typed: str = "", code: int = 0) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main([*arguments, "--json"]) == code
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        return json.loads(out) if code == 0 else err

    return run


def stored_hash(tmp_path: Path) -> str:
    [(found,)] = ask(tmp_path / "data" / "mintoken.db", "SELECT password_hash FROM users")
    return str(found)


def test_a_user_from_creation_to_removal(run: Run, tmp_path: Path) -> None:
    made = run("users", "create", "ada", typed=f"{PASSWORD}\n")
    assert made | {"id": "", "created_at": ""} == {
        "id": "", "name": "ada", "account": "default", "role": "owner", "created_at": "",
    }  # fmt: skip
    assert run("users", "list") == [made]
    assert is_password(PASSWORD, stored_hash(tmp_path))
    run("users", "password", "ada", typed=OTHER)
    assert is_password(OTHER, stored_hash(tmp_path))
    assert "taken" in run("users", "create", "ada", typed=PASSWORD, code=1)
    assert run("users", "remove", made["id"]) == made
    assert run("users", "list") == []


def test_a_user_of_another_account_and_role(run: Run) -> None:
    run("accounts", "create", "team")
    made = run("users", "create", "bob", "--account", "team", "--role", "viewer", typed=PASSWORD)
    assert (made["account"], made["role"]) == ("team", "viewer")


@pytest.mark.parametrize("typed", ["", "short\n", "x" * 1025])
def test_unusable_passwords_are_refused(run: Run, typed: str) -> None:
    assert "12 to 1024 characters" in run("users", "create", "ada", typed=typed, code=1)
    run("accounts", "create", "team")
    assert run("users", "list") == []


def test_who_is_not_there_is_named(run: Run) -> None:
    run("accounts", "create", "team")
    for command in ("remove", "password"):
        assert "'nobody'" in run("users", command, "nobody", typed=PASSWORD, code=1)
    assert "'nobody'" in run("users", "create", "a", "--account", "nobody", typed=PASSWORD, code=1)
    assert "'nobody'" in run("admin-keys", "revoke", "nobody", code=1)
    run("users", "create", "ada", "--role", "king", typed=PASSWORD, code=2)


def test_a_password_is_typed_twice_on_a_terminal_and_not_shown(run: Run, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "mintoken"]
    with subprocess.Popen(
        [*command, "users", "create", "ada"], stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=tmp_path,
    ) as running:  # fmt: skip
        os.close(theirs)
        shown = b""
        for typed in (PASSWORD, OTHER, PASSWORD, PASSWORD):
            prompts = shown.count(b": ")
            while shown.count(b": ") <= prompts or not shown.endswith(b": "):
                shown += os.read(ours, 1000)
            os.write(ours, typed.encode() + b"\n")
        assert running.wait(30) == 0
    while b"may sign in" not in shown:
        shown += os.read(ours, 1000)
    os.close(ours)
    assert b"canary" not in shown
    assert is_password(PASSWORD, stored_hash(tmp_path))


def test_an_admin_key_from_creation_to_its_end(run: Run) -> None:
    made = run("admin-keys", "create", "ci", "--role", "admin")
    token = made.pop("key")
    assert keys.is_well_formed(token, start=keys.ADMIN)
    assert not keys.is_well_formed(token)
    assert token.startswith(made["prefix"])
    assert (made["name"], made["role"], made["state"]) == ("ci", "admin", "active")
    assert run("admin-keys", "list") == [made]
    assert "taken" in run("admin-keys", "create", "ci", code=1)
    ended = run("admin-keys", "revoke", "ci")
    assert ended["state"] == "revoked"
    assert run("admin-keys", "revoke", made["id"]) == ended
    assert "No admin key" in run("admin-keys", "revoke", "ci", code=1)
    assert run("admin-keys", "create", "ci")["role"] == "viewer"


def test_a_name_in_several_accounts_needs_an_id(run: Run) -> None:
    run("accounts", "create", "team")
    run("admin-keys", "create", "ci")
    other = run("admin-keys", "create", "ci", "--account", "team")
    assert "Several" in run("admin-keys", "revoke", "ci", code=1)
    assert run("admin-keys", "revoke", other["id"])["account"] == "team"
