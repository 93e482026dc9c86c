"""A whole, verified copy of the database, made while a server goes on writing."""

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from mintoken.errors import StorageError
from mintoken.files import new_file
from mintoken.stores import sqlite_rows as rows
from mintoken.stores.sqlite_file import reading

_TELL_EVERY = 20_000
"""SQLite's own steps between two calls of `progress`; some milliseconds."""

Progress = Callable[[float], None]


def back_up(source: Path, target: Path, *, progress: Progress) -> int:
    """Copy the database to a file that is not there yet (mode 0600); its size in bytes. Blocks.

    The target appears in one step, after the copy was checked and is on the disk. `progress` is
    told which share is done, 0 to 1. Writers are not held up: only one state of the database is
    read. Raises FileExistsError if the target is there, other OSErrors for what is wrong with its
    folder, and StorageError if the copy could not be made or the database is not in order; then
    nothing is left behind.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        with new_file(target) as draft:
            _copy(source, draft, progress)
            _verify(draft, source)
            return draft.stat().st_size
    except sqlite3.Error as error:
        raise StorageError(f"The copy could not be made: {error}. Nothing was kept.") from error


def _copy(source: Path, draft: Path, progress: Progress) -> None:
    with reading(source) as database:
        # Synced once, at the end; till then the draft is worth nothing anyway.
        database.execute("PRAGMA synchronous=OFF")
        [(pages, free, size)] = database.execute(
            "SELECT * FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        expected = max(1, (pages - free) * size)
        database.set_progress_handler(
            lambda: progress(min(1.0, draft.stat().st_size / expected)), _TELL_EVERY
        )
        database.execute("VACUUM INTO ?", [str(draft.absolute())])


def _verify(draft: Path, source: Path) -> None:
    with reading(draft) as copy:
        [(found,), *_] = copy.execute("PRAGMA integrity_check(1)")
        wrong = [rows.discrepancy(*line) for line in copy.execute(rows.AUDIT)]
    if found != "ok":
        raise StorageError(f"The copy is damaged ({found}). Nothing was kept.")
    if wrong:
        raise StorageError(
            f"The counters of {source} are not the sums of its rows ({wrong[0]}); see 'mintoken "
            f"check --accounts'. Nothing was kept: stop the server and copy {source} as it is."
        )
