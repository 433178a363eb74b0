"""Commits: the signed object at the root of a repository.

Source: https://atproto.com/specs/repository#commit-objects. Version 2 is what repositories were before 2023.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from tickwork.sources.atproto.repo import cbor
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import DAG_CBOR, cid_text, is_did, is_tid, tid_time
from tickwork.sources.atproto.repo.keys import PublicKey

CLOCKS_APART = dt.timedelta(minutes=5)
"""How far ahead of ours a server's clock may be."""
MAX_BYTES = 1 << 14
"""Of a commit's block; with the longest DID it has not a fifth of that."""

_FIELDS = {"did", "version", "data", "rev", "prev", "sig"}


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit. `data` and `cid` are binary CIDs: of the tree's root, and of the commit itself.

    `rev` is empty in a commit of version 2 that has none. `unsigned` is what was signed.
    """

    cid: bytes
    did: str
    version: int
    data: bytes
    rev: str
    prev: bytes | None
    signature: bytes
    unsigned: bytes

    def verify(self, key: PublicKey) -> None:
        """Raise InvalidRepositoryError unless this key signed the commit."""
        if not key.verify(self.signature, self.unsigned):
            raise self._wrong(f"its signature is not by {key}")

    def check(self, did: str, now: dt.datetime, at_least_rev: str = "") -> None:
        """Raise InvalidRepositoryError unless the commit is this account's, of no later than `now`, and no older.

        `at_least_rev` is the rev known so far, empty if none is. A commit without a rev then counts as older.
        """
        if self.did != did:
            raise self._wrong(f"it belongs to {self.did}, not to {did}")
        if self.rev and tid_time(self.rev) > now + CLOCKS_APART:
            raise self._wrong(f"its rev {self.rev} is of {tid_time(self.rev):%Y-%m-%dT%H:%M:%SZ}, in the future")
        if self.rev < at_least_rev:
            raise self._wrong(f"its rev {self.rev or '(none)'} is older than {at_least_rev}, which was seen before")

    def _wrong(self, problem: str) -> InvalidRepositoryError:
        return _wrong(self.cid, problem)


def parse(block: bytes, cid: bytes) -> Commit:
    """Read the block of a commit. Raises InvalidRepositoryError for anything but a commit of version 3 or 2."""
    if len(block) > MAX_BYTES:
        raise _wrong(cid, f"it has {len(block)} bytes, more than {MAX_BYTES}")
    fields = cbor.decode(block, f"the commit {cid_text(cid)}")
    if not isinstance(fields, dict):
        raise _wrong(cid, "it is not a map")
    version = fields.get("version")
    if version not in (2, 3):
        raise _wrong(cid, f"its version is {ascii(version)[:40]}, neither 3 nor 2")
    optional = set() if version == 3 else {"rev", "prev"}
    unknown, missing = fields.keys() - _FIELDS, _FIELDS - fields.keys() - optional
    if unknown or missing:
        named = ", ".join(ascii(name)[:40] for name in sorted(unknown or missing)[:5])
        raise _wrong(cid, f"it {'has unknown' if unknown else 'lacks'} fields: {named}")
    did, rev, signature = fields["did"], fields.get("rev"), fields["sig"]
    if not isinstance(did, str) or not is_did(did):
        raise _wrong(cid, f"{ascii(did)[:80]} is not a valid DID")
    if "rev" in fields and not (isinstance(rev, str) and is_tid(rev)):
        raise _wrong(cid, f"its rev {ascii(rev)[:40]} is not a valid TID")
    if not isinstance(signature, bytes) or isinstance(signature, cbor.Link):
        raise _wrong(cid, "its signature is not a byte string")
    data = _link(cid, "data", fields["data"])
    prev = fields.get("prev")
    # The block is canonical, so that without its signature it is what was signed.
    unsigned = cbor.encode({name: value for name, value in fields.items() if name != "sig"})
    return Commit(
        cid=cid,
        did=did,
        version=3 if version == 3 else 2,
        data=data,
        rev=rev if isinstance(rev, str) else "",
        prev=None if prev is None else _link(cid, "prev", prev),
        signature=bytes(signature),
        unsigned=unsigned,
    )


def _link(cid: bytes, name: str, value: cbor.Value) -> bytes:
    if not isinstance(value, cbor.Link) or not value.startswith(DAG_CBOR):
        raise _wrong(cid, f"its {name} is not a link to a DAG-CBOR block")
    return bytes(value)


def _wrong(cid: bytes, problem: str) -> InvalidRepositoryError:
    return InvalidRepositoryError(f"the commit {cid_text(cid)}: {problem}")
