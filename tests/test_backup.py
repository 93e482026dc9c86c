"""`mintoken backup`: a copy that is whole, private and usable, or none at all."""

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import disks
import pytest
from conftest import Proxy, audit, config_for
from fake_upstream import FakeUpstream

from mintoken.cli import main
from mintoken.server import running


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Path:
    """The data directory of an installation that has a key, with the configuration set to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", "data")
    assert main(["keys", "create"]) == 0
    capsys.readouterr()
    return tmp_path / "data"


def ask(path: Path, sql: str) -> list:
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(sql).fetchall()


async def test_a_backup_of_a_busy_server_is_restored_with_every_key_and_row(
    proxy: Proxy, upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for _ in range(5):
        assert (await proxy.post()).status == 200
    await proxy.settled(5)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", str(proxy.data_dir))
    copy = tmp_path / "copy.db"
    backup = asyncio.create_task(asyncio.to_thread(main, ["backup", str(copy), "--json"]))
    while not backup.done():
        assert (await proxy.post()).status == 200
    assert await backup == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "path": str(copy),
        "bytes": copy.stat().st_size,
        "server_secret": f"{copy}.server_secret",
    }
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(copy, restored / "mintoken.db")
    shutil.copy(document["server_secret"], restored / "server_secret")
    assert await audit(restored) == []
    async with running(config_for(upstream, restored)) as listening:
        again = replace(proxy, url=f"http://{listening.public}", data_dir=restored)
        assert len(again.rows()) >= 5
        assert (await again.post()).status == 200


def test_both_copies_are_private_and_nothing_else_is_left(data_dir: Path, capsys) -> None:
    before = os.umask(0)
    try:
        assert main(["backup", "copy.db"]) == 0
    finally:
        os.umask(before)
    folder = data_dir.parent
    assert {path.name for path in folder.iterdir()} == {"data", "copy.db", "copy.db.server_secret"}
    for name in ("copy.db", "copy.db.server_secret"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    told = capsys.readouterr().out
    assert "copy.db is a whole and checked copy of the database" in told
    assert "Keep copy.db.server_secret with it: no key in the copy works without it." in told
    assert ask(folder / "copy.db", "PRAGMA integrity_check") == [("ok",)]
    assert ask(folder / "copy.db", "PRAGMA journal_mode") == [("delete",)]


def test_a_database_that_has_no_secret_yet_is_copied_without(data_dir: Path, capsys) -> None:
    (data_dir / "server_secret").unlink()
    assert main(["backup", "copy.db", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["server_secret"] is None
    assert main(["backup", "other.db"]) == 0
    assert "server_secret" not in capsys.readouterr().out


@pytest.mark.parametrize("there", ["copy.db", "copy.db.server_secret"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_backup_overwrites_nothing(data_dir: Path, capsys, there: str, dangling: bool) -> None:
    path = data_dir.parent / there
    if dangling:
        path.symlink_to("nowhere")
    else:
        path.write_text("precious")
    assert main(["backup", "copy.db"]) == 1
    told = capsys.readouterr().err
    if not (dangling and "secret" in there):
        assert told == (
            f"mintoken: {there} is there already, and a backup overwrites nothing. "
            "Name another file.\n"
        )
    assert {path.name for path in data_dir.parent.iterdir()} == {"data", there}
    assert path.is_symlink() or path.read_text() == "precious"


def test_a_file_that_comes_while_the_copy_is_made_is_not_overwritten(
    data_dir: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        if target.name == "copy.db":
            target.write_text("precious")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert main(["backup", "copy.db"]) == 1
    assert "copy.db is there already" in capsys.readouterr().err
    assert {path.name for path in data_dir.parent.iterdir()} == {"data", "copy.db"}
    assert Path("copy.db").read_text() == "precious"


def test_a_secret_that_an_earlier_try_left_is_taken_as_it_is(data_dir: Path) -> None:
    shutil.copy(data_dir / "server_secret", "copy.db.server_secret")
    assert main(["backup", "copy.db"]) == 0


def test_a_full_disk_leaves_nothing_behind(data_dir: Path, tmp_path: Path, capsys) -> None:
    with disks.small_disk(tmp_path / "small", mib=1) as disk:
        disk.fill(leave_pages=8)
        assert main(["backup", "small/copy.db"]) == 1
        assert "full. Nothing was kept" in capsys.readouterr().err
        assert [path.name for path in disk.folder.iterdir()] == ["filler"]


def test_damage_is_never_copied(data_dir: Path, capsys) -> None:
    path = data_dir / "mintoken.db"
    [(page,)] = ask(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'month_usage'")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    assert main(["backup", "copy.db"]) == 1
    assert "Nothing was kept" in capsys.readouterr().err
    assert {path.name for path in data_dir.parent.iterdir()} == {"data"}


def test_an_index_that_disagrees_with_its_table_is_found_in_the_copy(
    data_dir: Path, capsys
) -> None:
    # Written past SQLite's own checks: a column that may not be empty is.
    path = data_dir / "mintoken.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema=ON")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'created_at     INTEGER NOT NULL',"
            " 'created_at     INTEGER') WHERE name = 'accounts'"
        )
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE accounts SET created_at = NULL")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema=ON")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'created_at     INTEGER',"
            " 'created_at     INTEGER NOT NULL') WHERE name = 'accounts'"
        )
    assert main(["backup", "copy.db"]) == 1
    told = capsys.readouterr().err
    assert "The copy is damaged (NULL value in accounts.created_at). Nothing was kept." in told
    assert {path.name for path in data_dir.parent.iterdir()} == {"data"}


def test_counters_that_are_wrong_are_told_and_not_copied(data_dir: Path, capsys) -> None:
    ask(
        data_dir / "mintoken.db",
        "INSERT INTO month_usage (account_id, month, used) SELECT id, '2026-11', 5 FROM accounts",
    )
    assert main(["backup", "copy.db"]) == 1
    told = capsys.readouterr().err
    assert "used is 5, its rows make 0" in told
    assert "stop the server and copy data/mintoken.db as it is" in told
    assert {path.name for path in data_dir.parent.iterdir()} == {"data"}


@pytest.mark.parametrize("path", ["absent/copy.db", ".", "/", "data"])
def test_a_path_that_cannot_be_is_named_in_one_line(data_dir: Path, capsys, path: str) -> None:
    assert main(["backup", path]) == 1
    told = capsys.readouterr().err
    assert path.removesuffix("/copy.db") in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", [["backup", "copy.db"], ["purge", "--before", "2026-01"]])
def test_without_a_database_none_is_made(tmp_path: Path, monkeypatch, capsys, command) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINTOKEN_STORAGE_DATA_DIR", "data")
    assert main(command) == 1
    assert "There is no database in data" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "told"),
    [(["backup", "copy.db"], "Copying"), (["purge", "--before", "2026-01"], "Purging")],
)
def test_a_terminal_sees_how_far_it_is_and_a_pipe_does_not(
    data_dir: Path, command: list[str], told: str
) -> None:
    program = [sys.executable, "-m", "mintoken", *command]
    ours, theirs = os.openpty()
    subprocess.run(program, stderr=theirs, stdout=subprocess.DEVNULL, check=True)
    os.close(theirs)
    assert told in os.read(ours, 65536).decode()
    os.close(ours)
    for path in data_dir.parent.glob("copy.db*"):
        path.unlink()
    assert subprocess.run(program, capture_output=True, check=True).stderr == b""
