"""`mintoken check`: every finding, good and bad, on real files."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mintoken.cli import main
from mintoken.keys import server_secret


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a fresh installation; nothing is in it yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", "data")
    return tmp_path / "data"


@pytest.fixture
def used(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same after its first key was made."""
    assert main(["keys", "create"]) == 0
    capsys.readouterr()
    return data_dir


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings by their name."""
    code = main(["check", "--json", *arguments])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] == (code == 0)
    return code, {finding["check"]: finding for finding in document["checks"]}


def test_a_fresh_installation_is_good_and_stays_untouched(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, findings = checked(capsys, "--accounts")
    assert code == 0
    assert {finding["verdict"] for finding in findings.values()} == {"ok"}
    assert not data_dir.exists()


def test_a_used_one_is_good_too(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = checked(capsys, "--accounts")
    assert code == 0
    assert {finding["verdict"] for finding in findings.values()} == {"ok"}
    assert "schema version" in findings["database"]["detail"]
    assert "the C parser" in findings["HTTP parser"]["detail"]
    assert main(["check"]) == 0
    assert "sums of its rows" not in capsys.readouterr().out


def test_what_others_can_read_is_a_warning(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used.chmod(0o755)
    (used / "server_secret").chmod(0o644)
    code, findings = checked(capsys)
    assert code == 0
    assert findings["data directory"]["verdict"] == "warn"
    assert findings["server secret"]["verdict"] == "warn"
    assert "chmod 700" in findings["data directory"]["detail"]
    assert findings["database files"]["verdict"] == "ok"


def test_a_database_that_others_can_read_is_a_warning(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(used / "mintoken.db")) as database:
        database.execute("BEGIN IMMEDIATE")  # Brings the other two files into being.
        (used / "mintoken.db").chmod(0o604)
        (used / "mintoken.db-wal").chmod(0o640)
        code, findings = checked(capsys)
    assert code == 0
    finding = findings["database files"]
    assert finding["verdict"] == "warn"
    assert finding["detail"].endswith("; chmod 600 data/mintoken.db data/mintoken.db-wal")


def test_a_damaged_database_is_bad(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = used / "mintoken.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    code, findings = checked(capsys, "--accounts")
    assert code == 1
    assert findings["database"]["verdict"] == "bad"


def test_a_database_of_somebody_else_is_bad(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir()
    with closing(sqlite3.connect(data_dir / "mintoken.db")) as database:
        database.execute("CREATE TABLE theirs (x)")
    code, findings = checked(capsys)
    assert code == 1
    assert "not a Mintoken database" in findings["database"]["detail"]


def test_a_wrong_sum_is_bad_and_only_looked_for_when_asked(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(used / "mintoken.db")) as database, database:
        database.execute(
            "INSERT INTO month_usage (account_id, month, used) "
            "SELECT id, '2026-11', 5 FROM accounts"
        )
    assert checked(capsys)[0] == 0
    code, findings = checked(capsys, "--accounts")
    assert code == 1
    assert "used is 5, its rows make 0" in findings["accounts"]["detail"]


def test_an_aiohttp_with_known_holes_is_bad(
    used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp, "__version__", "3.14.3")
    code, findings = checked(capsys)
    assert code == 1
    assert findings["aiohttp"]["verdict"] == "bad"
    assert "3.14.4 or newer is needed" in findings["aiohttp"]["detail"]


def test_a_truncated_secret_is_bad(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(server_secret(used)) == 32
    (used / "server_secret").write_bytes(b"short")
    code, findings = checked(capsys)
    assert code == 1
    assert findings["server secret"]["verdict"] == "bad"


def test_a_vocabulary_that_is_not_tiktokens_is_bad(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    # tiktoken's own name for o200k_base in its cache: the SHA-1 of where it comes from.
    (cache / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(b"IQ== 0\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    code, findings = checked(capsys)
    assert code == 1
    assert findings["tokenizer"]["verdict"] == "bad"


def test_a_file_of_wrong_prices_is_bad(
    used: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (used / "prices.toml").write_text("[models.mine]\ninput = 1\n")
    monkeypatch.setenv("MINTOKEN_SAVINGS_PRICES", "data/prices.toml")
    code, findings = checked(capsys)
    assert code == 1
    assert findings["prices"]["verdict"] == "bad"
    assert 'models."mine".output: is missing' in findings["prices"]["detail"]
