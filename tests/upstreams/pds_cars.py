"""Repositories with something wrong in them, made from an account's sound one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.kits import atproto as kit
from tests.upstreams.pds_accounts import FakeAccount, Signer
from tests.upstreams.pds_records import tid

INVALID_PATHS: tuple[bytes, ...] = (
    b"app.bsky.feed.post/white space",
    b"app.bsky.feed.post/two/slashes",
    b"app.bsky.feed.post/\xff\xfe",
    b"app.bsky.feed.post/..",
    b"../../etc/passwd",
    b"no-slash",
)
_LINK_BYTES = 36
_YEAR_MICROSECONDS = 365 * 86_400_000_000


class HighS(Signer):
    """Signs with the other one of the two signatures that ECDSA takes, which the protocol forbids."""

    def sign(self, message: bytes) -> bytes:
        r, s = self.numbers(message)
        return r.to_bytes(32, "big") + (kit.ORDERS[self.curve.name] - s).to_bytes(32, "big")


class Forger(Signer):
    """Signs something else."""

    def sign(self, message: bytes) -> bytes:
        return super().sign(message + b"!")


def frames(car: bytes) -> list[tuple[bytes, bytes]]:
    """The blocks of a CAR file in their order, each with its binary CID; the header comes first, without one."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(car):
        size = shift = 0
        while True:
            byte = car[at]
            at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        frame = car[at : at + size]
        found.append((frame[:_LINK_BYTES], frame[_LINK_BYTES:]) if found else (b"", frame))
        at += size
    return found


def joined(blocks: list[tuple[bytes, bytes]]) -> bytes:
    """The CAR file of what `frames` gives."""
    return b"".join(kit.frame(link, block) for link, block in blocks)


def endless_block() -> bytes:
    """A sound block with its frame, to be sent again and again."""
    block = kit.dag_cbor({"$type": "com.example.endless", "filler": bytes(32 * 1024)})
    return kit.frame(kit.cid(block).binary, block)


def broken(kind: str, account: FakeAccount, other: FakeAccount | None) -> bytes | None:
    """The account's repository with this wrong in it; None where that cannot be, as an older rev before any newer.

    `other` is another account, whose repository comes in place of this one's.
    """
    if kind == "other-account":
        return other.revision().car if other else None
    return CARS[kind](account)


def _signed(account: FakeAccount, key: Signer, records: Mapping[Any, Any] | None = None, **fields: Any) -> bytes:
    chosen: dict[str | bytes, Any] = dict((account.records if records is None else records).items())
    return key.repository(chosen, **{"rev": account.rev} | fields)


def _as(kind: type[Signer], account: FakeAccount) -> Signer:
    return kind(account.did, account.key.curve, account.key.secret)


def _cut_frames(account: FakeAccount) -> bytes:
    """The last third of the blocks is not there, and nothing else shows it."""
    blocks = frames(account.revision().car)
    return joined(blocks[: max(1, min(len(blocks) - 1, len(blocks) * 2 // 3))])


def _victim(account: FakeAccount) -> bytes:
    """The CID of a record, or of the tree's root where there is no record."""
    links = sorted(account.truth().values())
    return kit.cid_of(links[0]).binary if links else frames(account.revision().car)[2][0]


def _nodes(account: FakeAccount) -> list[bytes]:
    """The CIDs of the tree's nodes: what is neither header, commit nor record."""
    records = set(account.truth().values())
    return [link for link, _ in frames(account.revision().car)[2:] if str(kit.Cid(link)) not in records]


def _without(account: FakeAccount, gone: bytes) -> bytes:
    return joined([(link, block) for link, block in frames(account.revision().car) if link != gone])


def _tampered(account: FakeAccount) -> bytes:
    gone = _victim(account)
    blocks = frames(account.revision().car)
    return joined([(link, block[:-1] + bytes([block[-1] ^ 1]) if link == gone else block) for link, block in blocks])


def _stale(account: FakeAccount) -> bytes | None:
    if not account.delivered:
        return None
    paths = sorted(account.records)
    fewer = {path: account.records[path] for path in paths[: len(paths) // 2]}
    return _signed(account, account.key, fewer, rev=account.older_rev)


def _future(account: FakeAccount) -> bytes:
    return _signed(account, account.key, rev=tid(int(time.time() * 1e6) + _YEAR_MICROSECONDS, 0))


def _wrong_did(account: FakeAccount) -> bytes:
    return _signed(account, replace(account.key, did="did:plc:" + "z" * 24))


def _invalid_path(account: FakeAccount) -> bytes:
    odd = {path: {"$type": "app.bsky.feed.post", "text": "of no path"} for path in INVALID_PATHS}
    return _signed(account, account.key, {**account.records, **odd})


CARS: dict[str, Callable[[FakeAccount], bytes | None]] = {
    "cut-frames": _cut_frames,
    "missing-record": lambda account: _without(account, _victim(account)),
    "missing-node": lambda account: _without(account, _nodes(account)[0]),
    "tampered": _tampered,
    "bad-signature": lambda account: _signed(account, _as(Forger, account)),
    "high-s": lambda account: _signed(account, _as(HighS, account)),
    "wrong-did": _wrong_did,
    "stale": _stale,
    "future": _future,
    "invalid-path": _invalid_path,
}
