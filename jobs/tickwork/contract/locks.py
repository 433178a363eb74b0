"""Named flocks, shared by every job that touches one resource.

A wrapper takes the locks and its job inherits the descriptors; a job started by hand takes them here. A lock file is
opened read-only and never truncated or deleted: a deleted lock file lets two holders in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tickwork.contract.outcomes import Busy, OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.stop import Stop

INHERITED = "TICKWORK_LOCK_FDS"
"""Environment variable with which a wrapper hands on its locks: `name=descriptor name=descriptor`."""

POLL_SECONDS = 0.2


@contextmanager
def holding(names: Sequence[str], paths: Paths, *, wait: float, stop: Stop) -> Iterator[tuple[int, ...]]:
    """Hold all the locks `names` while the block runs; gives their descriptors, to hand on to child processes.

    Inherited descriptors are used where the wrapper gave them. Raises Busy, naming the lock, when `wait` seconds do
    not suffice. No lock is kept while waiting for another: two jobs could stop each other for good.
    """
    inherited = _inherited()
    deadline = time.monotonic() + wait
    with contextlib.ExitStack() as opened:
        descriptors = {name: _open(name, paths, inherited, opened) for name in names}
        while busy := _try_all(descriptors):
            if time.monotonic() >= deadline:
                raise Busy(f"the lock {busy} is busy")
            stop.sleep(POLL_SECONDS)
        yield tuple(descriptors.values())


def _try_all(descriptors: dict[str, int]) -> str:
    """Take every lock or none; gives the name of the one that is busy."""
    taken: list[int] = []
    for name, descriptor in descriptors.items():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            for other in taken:
                fcntl.flock(other, fcntl.LOCK_UN)
            return name
        taken.append(descriptor)
    return ""


def _open(name: str, paths: Paths, inherited: dict[str, int], opened: contextlib.ExitStack) -> int:
    path = paths.lock(name)
    try:
        if paths.makes_locks:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=True)
        if name in inherited and _is_open_on(inherited[name], path):
            # Taking it again through the same open file is a no-op for the holder, and a proof that we are it.
            return inherited[name]
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(f"cannot open the lock {path}: {error.strerror}") from error
    opened.callback(os.close, descriptor)
    return descriptor


def _is_open_on(descriptor: int, path: Path) -> bool:
    """Whether `descriptor` is open on the file at `path`; a variable that outlived its wrapper names any number."""
    with contextlib.suppress(OSError, OverflowError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _inherited() -> dict[str, int]:
    pairs = (pair.partition("=") for pair in os.environ.get(INHERITED, "").split())
    return {name: int(number) for name, _, number in pairs if number.isdecimal()}
