"""Files and folders for this user alone, and names that survive a loss of power."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_private_folder(path: Path) -> None:
    """Create the folder for this user alone; one that is there already keeps its mode."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True)
        path.chmod(0o700)


def open_private(path: Path, flags: int = 0) -> int:
    """A descriptor of the file, created for this user alone whatever the umask says."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A private draft beside `path`, to be written in the body; it gets that name at the end.

    Nobody ever sees it half-written, and nothing is left behind if the body fails. Raises
    FileExistsError if something has that name by then, and OSError.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = open_private(draft, os.O_EXCL)
    try:
        yield draft
        os.fsync(descriptor)
        os.link(draft, path)  # A rename would overwrite what came there meanwhile.
    finally:
        os.close(descriptor)
        draft.unlink()
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in the folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
