"""The records of an evaluation on disk, so that another run goes on where this one stops."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mintoken.errors import EvaluationError
from mintoken.eval_records import Answered, Asked, Book, Failed, Record, Settings
from mintoken.files import make_private_folder, open_private

FILE = "results.jsonl"

_LINE = msgspec.json.Decoder(Settings | Asked | Answered | Failed)
_NAMES = {
    "base_url": "--base-url",
    "model": "--model",
    "prompts": "--prompts",
    "prompt_version": "the texts of the levels",
    "cap": "--cap",
    "judge": "--judge",
}


class Journal:
    """`results.jsonl`: the settings, then a line per record. `book` is what they add up to."""

    def __init__(self, descriptor: int, book: Book) -> None:
        self._descriptor = descriptor
        self.book = book

    def write(self, record: Settings | Record) -> None:
        """Append a record; it survives this process. Raises OSError."""
        line = memoryview(msgspec.json.encode(record) + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]
        if not isinstance(record, Settings):
            self.book.take(record)


@contextmanager
def opened(folder: Path, settings: Settings) -> Iterator[Journal]:
    """The journal of a folder, for this process alone; it is made where it is missing.

    Raises EvaluationError if it is in use, damaged, or of other settings, and OSError.
    """
    make_private_folder(folder)
    path = folder / FILE
    descriptor = open_private(path, os.O_APPEND)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvaluationError(f"Another evaluation writes to {path}. Wait for it.") from None
        journal = Journal(descriptor, Book())
        earlier = _read(path, descriptor, journal.book)
        if earlier not in (None, settings) and journal.book.is_worth_nothing:
            os.truncate(descriptor, 0)  # So a mistyped model can be put right.
            journal, earlier = Journal(descriptor, Book()), None
        if earlier is not None:
            _compare(earlier, settings, folder)
        if earlier != settings:
            journal.write(settings)
        yield journal
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int, book: Book) -> Settings | None:
    """Add up the lines; the last one is cut off if it was not written to its end."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    settings: Settings | None = None
    for number, line in enumerate(data[:whole].splitlines() or [data], 1):
        try:
            record = _LINE.decode(line) if data else None
        except msgspec.DecodeError:
            raise EvaluationError(
                f"Line {number} of {path} is no record of an evaluation. Name another folder "
                "with --out."
            ) from None
        if isinstance(record, Settings):
            settings = record
        elif record is not None:
            book.take(record)
    if whole < len(data):
        os.truncate(descriptor, whole)
    return settings if whole else None


def _compare(earlier: Settings, now: Settings, folder: Path) -> None:
    before, after = msgspec.to_builtins(earlier), msgspec.to_builtins(now)
    other = [
        f"{name} was {before[field] or 'not given'}"
        for field, name in _NAMES.items()
        if before[field] != after[field] and (field != "judge" or before[field])
    ]
    if other:
        raise EvaluationError(
            f"{folder} holds an evaluation with other settings: {', '.join(other)}. Go on with "
            "those, or name another folder with --out."
        )
