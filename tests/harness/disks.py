"""Disks of a test's own, that fill up or fail. Mounting takes root; tests skip without it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.programs import installed

_ERRORS = Path("/sys/fs/ext4")


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[Path]:
    """A file system in memory that is soon full."""
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    with _mounted(options, folder):
        yield folder


@contextmanager
def failing_disk(folder: Path) -> Iterator["FailingDisk"]:
    """An ext4 file system that its kernel makes read-only once `fail` was called."""
    folder.mkdir()
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(8 * 2**20)
    mkfs = installed("mkfs.ext4", package="e2fsprogs")
    _run(mkfs, "-q", "-O", "^has_journal", str(image))
    with _mounted(("-o", "loop,errors=remount-ro", str(image), str(folder)), folder):
        yield FailingDisk(folder)


class FailingDisk:
    """A real file system on `folder`, sound until something is done to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fail(self) -> None:
        """As a disk that reports an error: from now on nothing can be written, by whomever."""
        device = _run("findmnt", "--noheadings", "--output", "SOURCE", str(self.folder))
        (_ERRORS / Path(device.strip()).name / "trigger_fs_error").write_text("by a test\n")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """As a disk or a network that does not answer: who writes waits until the end of this."""
        if not self.folder.is_mount():
            raise RuntimeError("not a disk of its own: what would be frozen is another one")
        _run("fsfreeze", "--freeze", str(self.folder))
        try:
            yield
        finally:
            _run("fsfreeze", "--unfreeze", str(self.folder))

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """An empty sound disk stands in its place."""
        with _mounted(("-t", "tmpfs", "tmpfs", str(self.folder)), self.folder):
            yield


@contextmanager
def _mounted(options: tuple[str, ...], folder: Path) -> Iterator[None]:
    try:
        _run("mount", *options)
    except (subprocess.CalledProcessError, FileNotFoundError):
        if os.environ.get("CI"):
            pytest.fail("nothing can be mounted here")
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        # Whoever still holds a file of it goes on; the mount is gone when the last one let go.
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> str:
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return ended.stdout
