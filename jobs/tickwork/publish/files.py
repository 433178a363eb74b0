"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written there is `path` once the block has ended, and lasts."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    yield partial
    settle(partial, path)


def settle(partial: Path, path: Path) -> None:
    """Make a finished file last under its final name."""
    sync(partial)
    partial.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or what a folder lists, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """Copy the content of a file, in the kernel where it can (and without copying where the disk can)."""
    with source.open("rb") as read, target.open("wb") as write:
        size = source.stat().st_size
        while size > 0:
            copied = os.copy_file_range(read.fileno(), write.fileno(), size)
            if copied == 0:
                break
            size -= copied


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
