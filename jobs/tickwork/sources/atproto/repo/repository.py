"""A repository from its CAR file: every record verified, and what changed since the last time.

    with repository.read(file, "did:plc:...", key, now=now) as repo:
        for change in repository.diff(stored, repo.records()):
            ...

`read` and `diff` are all that most callers need. Nothing here fetches or stores.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, NamedTuple

from tickwork.sources.atproto.repo import commit as commits
from tickwork.sources.atproto.repo import mst
from tickwork.sources.atproto.repo.car import Caps, Car
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import cid_text, is_nsid, is_record_key
from tickwork.sources.atproto.repo.keys import PublicKey

_PATHS_KEPT = 100
_COLLECTIONS_KEPT = 10_000


class Record(NamedTuple):
    """A record: its path (`collection/key`), its binary CID (36 bytes), its DAG-CBOR."""

    path: str
    cid: bytes
    data: bytes


class Change(NamedTuple):
    """What to do to one stored record. A delete has neither CID nor data; a create has no `before`."""

    action: Literal["create", "update", "delete"]
    path: str
    cid: bytes | None
    data: bytes | None
    before: bytes | None


@dataclass(slots=True)
class InvalidPaths:
    """Records left out because their path is none: how many, and the first hundred of them, made printable."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, key: bytes) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < _PATHS_KEPT:
            self.first.append(ascii(key[:200].decode("utf-8", "backslashreplace"))[1:-1])


class Repository:
    """A repository whose blocks and commit are verified. Its tree is as `records` goes through it.

    `invalid_paths` is whole once `records` has come to its end.
    """

    def __init__(self, car: Car, commit: commits.Commit) -> None:
        self.commit = commit
        self.invalid_paths = InvalidPaths()
        self._car = car

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; the one that was given is not closed."""
        self._car.close()

    def records(self) -> Iterator[Record]:
        """Each record, in the order of the bytes of its path.

        Raises InvalidRepositoryError when it comes to something wrong, a missing block above all: what was yielded
        before must then not be kept. So commit to nothing before the end.
        """
        invalid = self.invalid_paths = InvalidPaths()
        get = self._car.get
        known: set[str] = set()
        for key, cid in mst.walk(self.commit.data, get):
            data = get(cid)
            if data is None:
                raise InvalidRepositoryError(
                    f"the record {ascii(key)[2:-1][:300]}: its block {cid_text(cid)} is missing"
                )
            path = key.decode("utf-8", "replace")
            collection, _, name = path.partition("/")
            if collection not in known and is_nsid(collection) and len(known) < _COLLECTIONS_KEPT:
                known.add(collection)
            if is_record_key(name) and (collection in known or is_nsid(collection)):
                yield Record(path, cid, data)
            else:
                invalid.add(key)


def read(
    file: BinaryIO,
    did: str,
    key: PublicKey | None,
    *,
    now: dt.datetime,
    caps: Caps | None = None,
    at_least_rev: str = "",
) -> Repository:
    """Read a repository's CAR file (an ordinary file, open) and verify its blocks and its commit.

    `key` is the account's signing key, None to leave the signature unverified. `at_least_rev` is the rev we have.
    Raises InvalidRepositoryError: blocks that do not have their hash, a commit that is malformed, another account's,
    not signed by the key, of the future or older than ours. Close what it gives, or use it as a context manager.
    """
    car = Car(file, caps)
    try:
        root = car.roots[0]
        block = car.get(root)
        if block is None:
            raise InvalidRepositoryError(f"the commit {cid_text(root)}: its block is missing")
        commit = commits.parse(block, root)
        commit.check(did, now, at_least_rev)
        if key is not None:
            commit.verify(key)
    except BaseException:
        car.close()
        raise
    return Repository(car, commit)


def diff(stored: Mapping[str, bytes] | Iterable[tuple[str, bytes]], records: Iterable[Record]) -> Iterator[Change]:
    """What makes `stored` (CIDs by path) equal to `records`, in the order of the paths. Unchanged records are skipped.

    Both sides are gone through once, side by side, so stored records need not be in memory: pairs must come in the
    order of their paths (in SQL `ORDER BY collection || '/' || rkey`; the two columns alone sort otherwise), else
    ValueError. A mapping may be in any order. An error while reading records comes through: nothing is a delete then.
    """
    pairs = iter(sorted(stored.items())) if isinstance(stored, Mapping) else _in_order(stored)
    ours = next(pairs, None)
    for record in records:
        while ours is not None and ours[0] < record.path:
            yield Change("delete", ours[0], None, None, ours[1])
            ours = next(pairs, None)
        if ours is None or ours[0] != record.path:
            yield Change("create", record.path, record.cid, record.data, None)
            continue
        if ours[1] != record.cid:
            yield Change("update", record.path, record.cid, record.data, ours[1])
        ours = next(pairs, None)
    while ours is not None:
        yield Change("delete", ours[0], None, None, ours[1])
        ours = next(pairs, None)


def _in_order(pairs: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    last: str | None = None
    for pair in pairs:
        if last is not None and pair[0] <= last:
            raise ValueError(f"stored records must be sorted by path: {pair[0]!r} came after {last!r}")
        last = pair[0]
        yield pair
