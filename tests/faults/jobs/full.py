"""Filling a file system to its last byte or its last inode, and making room again."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path

FILLER = "filler"


def fill(root: Path, how: str) -> None:
    """Use up all `bytes` or all `inodes` of the file system at `root`."""
    folder = root / FILLER
    folder.mkdir(exist_ok=True)
    if how == "bytes":
        with (folder / "bytes").open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with _until_full():
                    while True:
                        file.write(b"x" * size)
        return
    with _until_full():
        for number in itertools.count(len(list(folder.iterdir()))):
            (folder / f"{number}").touch(exist_ok=False)


def make_room(root: Path) -> None:
    """Remove what `fill` left."""
    for path in (root / FILLER).iterdir():
        path.unlink()


@contextlib.contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
