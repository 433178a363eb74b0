"""Merkle search trees: every key and value of a tree, in order, if it is the one tree these keys can have.

A node holds the keys of one layer; a key's layer is the number of leading zero bits of its sha256, in pairs. Since a
tree follows from its keys, everything else about it is checked: layers, order, compression, the bytes of each node.
Source: https://atproto.com/specs/repository#mst-structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TypeAlias

from tickwork.atproto.errors import InvalidRepositoryError
from tickwork.atproto.syntax import DAG_CBOR, cid_text

MAX_KEY_BYTES = 4096
"""Longer keys are refused with their tree: beyond 830 bytes no path is valid, and prefixes make long ones cheap."""

# A node is `{"e": [entries], "l": link or null}`, an entry `{"k": suffix, "p": prefix length, "t": link or null, "v":
# link}`. The canonical encoding leaves no choice but numbers and links, so these are all the bytes between them.
_NODE, _LEFT = b"\xa2\x61e", b"\x61l"
_ENTRY, _PREFIX, _RIGHT, _VALUE = b"\xa4\x61k", b"\x61p", b"\x61t", b"\x61v"
_LINK = b"\xd8\x2a\x58\x25\x00" + DAG_CBOR
_LINK_BYTES = len(_LINK) + 32
_CID_FROM = len(_LINK) - len(DAG_CBOR)
_NULL = 0xF6
_LIST, _BYTES, _NUMBER = 0x80, 0x40, 0x00

Entry: TypeAlias = tuple[bytes, bytes, bytes | None]
"""A key, its value's CID, the CID of the subtree to the right of it."""
_Step: TypeAlias = tuple[bytes, bytes | None]
"""A key with its value's CID, or the CID of a subtree with None."""


def layer_of(key: bytes) -> int:
    """The layer a key belongs to: 0 for three keys of four, up to 128."""
    return 256 - int.from_bytes(sha256(key).digest(), "big").bit_length() >> 1


def walk(root: bytes, get: Callable[[bytes], bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    """Each key with its value's CID, in order; `get` gives a node's bytes by its CID, or None.

    Raises InvalidRepositoryError as soon as something is wrong, possibly after many keys: only what is walked to the
    end is verified. Bounded: a subtree's layer is one below its parent's, so the stack has at most 129 nodes; no node
    is visited twice, because its keys would not be in order.
    """
    first = _load(root, get)
    left, entries = first
    if not entries:
        if left is not None:
            raise _wrong(root, "the root has no key, but a subtree")
        return
    top = layer_of(entries[0][0])
    stack = [_steps(root, first, top)]
    last: bytes | None = None
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        key, value = step
        if value is not None:
            if last is not None and key <= last:
                raise InvalidRepositoryError(f"the key {_shown(key)} of the tree is not after {_shown(last)}")
            last = key
            yield key, value
            continue
        node = _load(key, get)
        layer = top - len(stack)
        if layer < 0:
            raise _wrong(key, "a subtree below layer 0")
        if not node[1] and node[0] is None:
            raise _wrong(key, "it has neither a key nor a subtree")
        stack.append(_steps(key, node, layer))


def parse(data: bytes, cid: bytes) -> tuple[bytes | None, list[Entry]]:
    """A node's left subtree and its entries, from its bytes. Raises InvalidRepositoryError, which names `cid`."""
    try:
        return _parse(data)
    except IndexError:
        problem = "it ends too early"
    except ValueError as error:
        problem = str(error)
    raise _wrong(cid, problem)


def _load(cid: bytes, get: Callable[[bytes], bytes | None]) -> tuple[bytes | None, list[Entry]]:
    data = get(cid)
    if data is None:
        raise _wrong(cid, "its block is missing")
    return parse(data, cid)


def _steps(cid: bytes, node: tuple[bytes | None, list[Entry]], layer: int) -> Iterator[_Step]:
    """What lies below a node, from left to right, once its keys are seen to belong to its layer."""
    left, entries = node
    steps: list[_Step] = [] if left is None else [(left, None)]
    for key, value, right in entries:
        if layer_of(key) != layer:
            raise _wrong(cid, f"the key {_shown(key)} is of layer {layer_of(key)}, the node of layer {layer}")
        steps.append((key, value))
        if right is not None:
            steps.append((right, None))
    return iter(steps)


def _parse(data: bytes) -> tuple[bytes | None, list[Entry]]:
    """Raises ValueError, and IndexError beyond the end."""
    if not data.startswith(_NODE):
        raise ValueError("it is no node of a tree")
    count, pos = _number(data, len(_NODE), _LIST)
    entries: list[Entry] = []
    key = b""
    for _ in range(count):
        size, pos = _number(data, _after(data, pos, _ENTRY), _BYTES)
        suffix = data[pos : pos + size]
        shared, pos = _number(data, _after(data, pos + size, _PREFIX), _NUMBER)
        if shared > len(key) or (shared < len(key) and suffix[:1] == key[shared : shared + 1]):
            raise ValueError(f"the key after {_shown(key)} shares {shared} bytes with it, which is not all it could")
        key = key[:shared] + suffix
        if len(key) > MAX_KEY_BYTES:
            raise ValueError(f"the key {_shown(key)} has more than {MAX_KEY_BYTES} bytes")
        right, pos = _optional_link(data, _after(data, pos, _RIGHT))
        value, pos = _link(data, _after(data, pos, _VALUE))
        entries.append((key, value, right))
    left, pos = _optional_link(data, _after(data, pos, _LEFT))
    if pos != len(data):
        raise ValueError(f"{len(data) - pos} bytes after its end")
    return left, entries


def _after(data: bytes, pos: int, expected: bytes) -> int:
    if not data.startswith(expected, pos):
        raise ValueError(f"at byte {pos} it is no node of a tree, or not in the canonical encoding")
    return pos + len(expected)


def _number(data: bytes, pos: int, kind: int) -> tuple[int, int]:
    """The number of a kind of item, in as few bytes as it needs, and where what follows begins."""
    low = data[pos] - kind
    if 0 <= low < 24:
        return low, pos + 1
    if low not in (24, 25, 26):
        raise ValueError(f"at byte {pos} is not what a node has there")
    end = pos + 1 + (1 << low - 24)
    number = int.from_bytes(data[pos + 1 : end], "big")
    if number < (24, 1 << 8, 1 << 16)[low - 24] or end > len(data):
        raise ValueError(f"the number at byte {pos} has more bytes than it needs")
    return number, end


def _link(data: bytes, pos: int) -> tuple[bytes, int]:
    end = pos + _LINK_BYTES
    if not data.startswith(_LINK, pos) or end > len(data):
        raise ValueError(f"at byte {pos} is no link to a DAG-CBOR block")
    return data[pos + _CID_FROM : end], end


def _optional_link(data: bytes, pos: int) -> tuple[bytes | None, int]:
    return (None, pos + 1) if data[pos] == _NULL else _link(data, pos)


def _wrong(cid: bytes, problem: str) -> InvalidRepositoryError:
    return InvalidRepositoryError(f"the node {cid_text(cid)} of the tree: {problem}")


def _shown(key: bytes) -> str:
    return ascii(key[:120].decode("utf-8", "backslashreplace"))
