"""Merkle search trees: every key and value of a tree, in order, if it is the one tree these keys can have.

A node holds the keys of one layer; a key's layer is the number of leading zero bits of its sha256, in pairs. Since a
tree follows from its keys, everything else about it is checked: layers, order, compression, the bytes of each node.
Source: https://atproto.com/specs/repository#mst-structure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TypeAlias

from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import DAG_CBOR, cid_text

MAX_KEY_BYTES = 1024
"""Longer keys are refused with their tree, as other implementations do; a valid path has 830 bytes at most."""
MAX_NODE_BYTES = 1 << 18
"""Nodes have some four keys, and a hundred once in 10^12: one this large was made to use up memory."""

# A node is `{"e": [entries], "l": link or null}`, an entry `{"k": suffix, "p": prefix length, "t": link or null, "v":
# link}`. The canonical encoding leaves no choice but numbers, suffixes and links, so patterns for what lies between two
# suffixes read all of it; numbers are in as few bytes as they need.
_LINK = rb"\xd8\x2a\x58\x25\x00(" + re.escape(DAG_CBOR) + rb".{32})"
_COUNT = rb"([\x80-\x97]|\x98[\x18-\xff]|\x99[\x01-\xff].|\x9a\x00[\x01-\xff]..)"
_NEXT = rb"(?:\xa4\x61k([\x40-\x57]|\x58[\x18-\xff]|\x59[\x01-\xff].)|\x61l(?:\xf6|" + _LINK + rb")\Z)"
_PREFIX = rb"\x61p([\x00-\x17]|\x18[\x18-\xff]|\x19[\x01-\xff].)"
_START = re.compile(rb"\xa2\x61e" + _COUNT + _NEXT, re.DOTALL)
_AFTER_SUFFIX = re.compile(_PREFIX + rb"\x61t(?:\xf6|" + _LINK + rb")\x61v" + _LINK + _NEXT, re.DOTALL)
_LIST, _BYTES = 0x80, 0x40

Entry: TypeAlias = tuple[bytes, bytes, bytes | None]
"""A key, its value's CID, the CID of the subtree to the right of it."""
_Step: TypeAlias = tuple[bytes, "bytes | int"]
"""A key with its value's CID, or the CID of a subtree with its layer."""


def layer_of(key: bytes) -> int:
    """The layer a key belongs to: 0 for three keys of four, up to 128."""
    return 256 - int.from_bytes(sha256(key).digest(), "big").bit_length() >> 1


def walk(root: bytes, get: Callable[[bytes], bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    """Each key with its value's CID, in order; `get` gives a node's bytes by its CID, or None.

    Raises InvalidRepositoryError as soon as something is wrong, possibly after many keys: only what is walked to the
    end is verified. Bounded: a subtree's layer is one below its parent's, so no more than 129 nodes are open; none
    is visited twice, because its keys would not be in order.
    """
    first = _load(root, get)
    left, entries = first
    if not entries:
        if left is not None:
            raise _wrong(root, "the root has no key, but a subtree")
        return
    ahead = _steps(root, first, layer_of(entries[0][0]))
    last: bytes | None = None
    while ahead:
        key, value = ahead.pop()
        if isinstance(value, bytes):
            if last is not None and key <= last:
                raise InvalidRepositoryError(f"the key {_shown(key)} of the tree is not after {_shown(last)}")
            last = key
            yield key, value
            continue
        if value < 0:
            raise _wrong(key, "a subtree below layer 0")
        node = _load(key, get)
        if not node[1] and node[0] is None:
            raise _wrong(key, "it has neither a key nor a subtree")
        ahead += _steps(key, node, value)


def parse(data: bytes, cid: bytes) -> tuple[bytes | None, list[Entry]]:
    """A node's left subtree and its entries, from its bytes. Raises InvalidRepositoryError, which names `cid`."""
    if len(data) > MAX_NODE_BYTES:
        raise _wrong(cid, f"it has {len(data)} bytes, more than {MAX_NODE_BYTES}")
    found = _START.match(data)
    if found is None:
        raise _wrong(cid, "it is not a tree node in the canonical encoding")
    count, head, left = found.groups()
    entries: list[Entry] = []
    key = b""
    while head is not None:
        start = found.end()
        end = start + (head[0] - _BYTES if len(head) == 1 else int.from_bytes(head[1:], "big"))
        found = _AFTER_SUFFIX.match(data, end)
        if found is None:
            raise _wrong(cid, f"at byte {end} it is not a tree node in the canonical encoding")
        prefix, right, value, head, left = found.groups()
        shared = prefix[0] if len(prefix) == 1 else int.from_bytes(prefix[1:], "big")
        if shared > len(key) or (shared < len(key) and data[start] == key[shared] and start < end):
            raise _wrong(cid, f"the key after {_shown(key)} shares {shared} bytes with it, but could share more")
        key = key[:shared] + data[start:end]
        if len(key) > MAX_KEY_BYTES:
            raise _wrong(cid, f"the key {_shown(key)} has more than {MAX_KEY_BYTES} bytes")
        entries.append((key, value, right))
    if len(entries) != (count[0] - _LIST if len(count) == 1 else int.from_bytes(count[1:], "big")):
        raise _wrong(cid, "it has fewer entries than it says")
    return left, entries


def _load(cid: bytes, get: Callable[[bytes], bytes | None]) -> tuple[bytes | None, list[Entry]]:
    data = get(cid)
    if data is None:
        raise _wrong(cid, "its block is missing")
    return parse(data, cid)


def _steps(cid: bytes, node: tuple[bytes | None, list[Entry]], layer: int) -> list[_Step]:
    """What lies below a node, the last first, once its keys are seen to belong to its layer."""
    left, entries = node
    # In this layer are the hashes from 0..01 to 0..0111.., as many pairs of zeros in front as the layer's number.
    free = 256 - 2 * layer
    least, most = (1 << free >> 2).to_bytes(32, "big"), ((1 << free) - 1).to_bytes(32, "big")
    below = layer - 1
    steps: list[_Step] = [] if left is None else [(left, below)]
    for key, value, right in entries:
        if not least <= sha256(key).digest() <= most:
            raise _wrong(cid, f"the key {_shown(key)} is of layer {layer_of(key)}, the node of layer {layer}")
        steps.append((key, value))
        if right is not None:
            steps.append((right, below))
    steps.reverse()
    return steps


def _wrong(cid: bytes, problem: str) -> InvalidRepositoryError:
    return InvalidRepositoryError(f"the node {cid_text(cid)} of the tree: {problem}")


def _shown(key: bytes) -> str:
    return ascii(key[:120].decode("utf-8", "backslashreplace"))
