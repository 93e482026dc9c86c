"""Real file systems that a test can fill, break and take away; it needs to be root for that."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PAGE = 4096


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """`mount` something there until the end; the test is skipped where that is not permitted."""
    folder.mkdir(exist_ok=True)
    ran = subprocess.run(
        ["mount", *arguments, str(folder)], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        pytest.skip(f"cannot mount a file system here: {ran.stderr.strip()}")
    try:
        yield
    finally:
        # A test that failed may have left it in use: then it goes with its last user.
        ran = subprocess.run(["umount", str(folder)], capture_output=True, check=False)
        if ran.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, *, mib: int) -> Iterator["Disk"]:
    """A file system in memory with so much room."""
    with mounted(folder, "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "mintoken-test"):
        yield Disk(folder)


class Disk:
    """A mounted file system that can be filled up and freed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, *, leave_pages: int = 0) -> None:
        """Use up all the room but so many pages."""
        self.free()
        with self._filler.open("wb") as file:
            while (room := os.statvfs(self.folder).f_bavail - leave_pages) > 0:
                # Others may take of it meanwhile.
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room * PAGE)

    @contextmanager
    def no_more_files(self) -> Iterator[None]:
        """No new file can be made, though there is room for what is written to the old ones."""
        files = os.statvfs(self.folder)
        used = files.f_files - files.f_ffree
        self._remount(f"nr_inodes={used}")
        try:
            yield
        finally:
            self._remount(f"nr_inodes={files.f_files}")

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


def make_ext4(image: Path, *, mib: int) -> None:
    """A file that can be mounted with `-o loop`; the test is skipped without mkfs.ext4."""
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin")
    if mkfs is None:
        pytest.skip("mkfs.ext4 is not installed")
    with image.open("wb") as file:
        file.truncate(mib * 1024 * 1024)
    subprocess.run([mkfs, "-q", "-F", image], check=True)


def break_ext4(folder: Path) -> None:
    """What the kernel does to a file system whose disk fails: no more writing, at once."""
    mounts = (line.split()[:2] for line in Path("/proc/mounts").read_text().splitlines())
    [device] = [Path(device).name for device, where in mounts if where == str(folder)]
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("by a test of Mintoken")
