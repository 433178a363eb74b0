"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CANNOT = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP)
"""With which a kernel or a file system says that it does not copy."""


_BESIDE = ("", "-wal", "-shm", "-journal")
"""Ends of the names under which SQLite keeps what belongs to a database."""


@contextmanager
def whole(path: Path, *, lasts: bool = True) -> Iterator[Path]:
    """Give a path to write to; what was written there is `path` once the block has ended.

    Unless `lasts` is false that holds after a power cut too. Mode and owner are those of what the block made. A link at
    `path` is replaced, and what it leads to stays as it is; a folder is refused with IsADirectoryError. Nothing stays
    when the block fails: the room may be what was missing. A kill leaves `path` as it was, and at most one file beside
    it, which the next attempt replaces.
    """
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(path.name + ".partial")
    _remove(partial)
    try:
        yield partial
        settle(partial, path, lasts=lasts)
    except BaseException:
        _remove(partial)
        raise


def _remove(partial: Path) -> None:
    for end in _BESIDE:
        partial.with_name(partial.name + end).unlink(missing_ok=True)


def settle(partial: Path, path: Path, *, lasts: bool = True) -> None:
    """Give a finished file its final name, under which it lasts unless that is not wanted."""
    if lasts:
        sync(partial)
    partial.rename(path)
    if lasts:
        sync(path.parent)


def into_one(connection: sqlite3.Connection) -> None:
    """Have all of a database in its one file: to be renamed, and to be read from a folder nobody may write to.

    Closing it would not tell that a full disk kept the rest in the log beside it.
    """
    mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    if mode != "delete":
        raise OSError(errno.EBUSY, f"a database is still in use ({mode})")


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
        left = source.stat().st_size
        try:
            while left > 0 and (copied := os.copy_file_range(read.fileno(), write.fileno(), left)):
                left -= copied
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        shutil.copyfileobj(read, write)  # what is left: all of it, where the kernel cannot


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
