"""DAG-CBOR, strictly: only the canonical encoding of a value is read, and links are told from byte strings.

General libraries read more than they should (numbers in more bytes than needed, 32-bit floats) or lose which byte
string was a link, and then nobody can say what was signed. This one is small, and its tests compare it with another.
Sources: https://ipld.io/specs/codecs/dag-cbor/spec/, https://atproto.com/specs/data-model (no floats, 64-bit integers).
"""

from __future__ import annotations

from typing import TypeAlias

from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import CID_BYTES, is_repository_cid

MAX_DEPTH = 64
"""Lists and maps inside each other; a record of a known lexicon has fewer than ten."""

_LINK_TAG = 42
_LEAST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
_SIMPLE = {20: False, 21: True, 22: None}
_INTEGERS = 1 << 63


class Link(bytes):
    """A link to a block: its binary CID, 36 bytes."""

    __slots__ = ()


Value: TypeAlias = "bool | int | str | bytes | Link | list[Value] | dict[str, Value] | None"


class _Malformed(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with the bytes."""


def decode(data: bytes, where: str) -> Value:
    """The one value encoded in `data`. Raises InvalidRepositoryError, which names `where`.

    Maps are in the order of their encoding. Refused: any encoding that is not canonical, floats, integers beyond 64
    bits, tags other than links, links a repository may not have, nesting beyond MAX_DEPTH, and bytes after the value.
    """
    try:
        value, end = _item(data, 0, 0)
    except _Malformed as error:
        raise InvalidRepositoryError(f"{where}: not canonical DAG-CBOR: {error}") from error
    except IndexError as error:
        raise InvalidRepositoryError(f"{where}: not canonical DAG-CBOR: it ends too early") from error
    if end != len(data):
        raise InvalidRepositoryError(f"{where}: not canonical DAG-CBOR: {len(data) - end} bytes after the value")
    return value


def encode(value: Value) -> bytes:
    """The canonical encoding. Raises TypeError for what DAG-CBOR has no encoding of."""
    if value is None or isinstance(value, bool):
        return b"\xf6" if value is None else b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, Link):
        return b"\xd8\x2a" + encode(b"\0" + bytes(value))
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _head(3, len(text)) + text
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        # The length comes first in a key's encoding, so the encodings sort as DAG-CBOR wants the keys to.
        fields = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(5, len(fields)) + b"".join(key + item for key, item in fields)
    raise TypeError(f"DAG-CBOR has no encoding of {type(value).__name__}")


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for low, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | low]) + number.to_bytes(size, "big")
    raise TypeError(f"DAG-CBOR has no encoding of the number {number}")


def _item(data: bytes, pos: int, depth: int) -> tuple[Value, int]:
    """The value that starts at `pos`, and where it ends. Raises _Malformed, and IndexError beyond the end."""
    major, number, pos = _read_head(data, pos)
    if major == 3:
        return _text(data, pos, number)
    if major == 0 or major == 1:
        if number >= _INTEGERS:
            raise _Malformed("an integer of more than 64 bits")
        return (number if major == 0 else -1 - number), pos
    if major == 2:
        return data[pos : _end(data, pos, number)], pos + number
    if major == 6:
        return _link(data, pos, number)
    if major == 7:
        return _SIMPLE[number], pos
    if depth >= MAX_DEPTH:
        raise _Malformed(f"more than {MAX_DEPTH} nested lists and maps")
    return _list(data, pos, number, depth) if major == 4 else _map(data, pos, number, depth)


def _read_head(data: bytes, pos: int) -> tuple[int, int, int]:
    """Major type, number, and where what follows begins."""
    head = data[pos]
    major, number = head >> 5, head & 31
    pos += 1
    if major == 7:
        if number not in _SIMPLE:
            raise _Malformed("a float" if 25 <= number <= 27 else f"the simple value {head:#x}")
    elif number >= 24:
        least = _LEAST.get(number)
        if least is None:
            raise _Malformed("an indefinite length")
        end = _end(data, pos, 1 << number - 24)
        number = int.from_bytes(data[pos:end], "big")
        if number < least:
            raise _Malformed(f"the number {number} is encoded in more bytes than it needs")
        pos = end
    return major, number, pos


def _end(data: bytes, pos: int, size: int) -> int:
    if size > len(data) - pos:
        raise IndexError
    return pos + size


def _text(data: bytes, pos: int, size: int) -> tuple[str, int]:
    end = _end(data, pos, size)
    try:
        return data[pos:end].decode(), end
    except UnicodeDecodeError as error:
        raise _Malformed("invalid UTF-8 in a text") from error


def _link(data: bytes, pos: int, tag: int) -> tuple[Link, int]:
    major, size, pos = _read_head(data, pos)
    if tag != _LINK_TAG or major != 2:
        raise _Malformed(f"the tag {tag}" if tag != _LINK_TAG else "a link that is not a byte string")
    end = _end(data, pos, size)
    cid = data[pos + 1 : end]
    if size != CID_BYTES + 1 or data[pos] or not is_repository_cid(cid):
        raise _Malformed("a link to a CID other than version 1, DAG-CBOR or raw, and sha2-256")
    return Link(cid), end


def _list(data: bytes, pos: int, count: int, depth: int) -> tuple[Value, int]:
    _end(data, pos, count)
    items: list[Value] = []
    for _ in range(count):
        item, pos = _item(data, pos, depth + 1)
        items.append(item)
    return items, pos


def _map(data: bytes, pos: int, count: int, depth: int) -> tuple[Value, int]:
    _end(data, pos, count)
    fields: dict[str, Value] = {}
    last = b""
    for _ in range(count):
        begun = pos
        major, size, pos = _read_head(data, pos)
        if major != 3:
            raise _Malformed("a map key that is not a text")
        key, pos = _text(data, pos, size)
        if data[begun:pos] <= last:
            raise _Malformed(f"the key {key[:40]!r} is out of order or repeated")
        last = data[begun:pos]
        fields[key], pos = _item(data, pos, depth + 1)
    return fields, pos
