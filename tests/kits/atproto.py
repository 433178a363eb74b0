"""An independent writer of repositories: encoding, trees, commits, CAR files. It imports nothing from what it tests.

Trees are built top down from their definition (the keys of the highest layer split the rest), not by inserting, and
are themselves checked against the interop fixtures.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FIXTURES = Path(__file__).parents[1] / "fixtures" / "atproto"
DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
REV = "3l6oveex3ii2l"
ORDERS = {
    "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
Blocks = dict[bytes, bytes]


def real_data() -> Path:
    """The folder of real repositories; skips the test where there is none."""
    folder = os.environ.get("TICKWORK_REAL_DATA", "")
    if not folder:
        pytest.skip("TICKWORK_REAL_DATA unset")
    return Path(folder) / "atproto"


# Encoding.


@dataclass(frozen=True)
class Cid:
    """A link, to be written as such."""

    binary: bytes

    def __str__(self) -> str:
        return "b" + base64.b32encode(self.binary).decode().lower().rstrip("=")


@dataclass(frozen=True)
class Verbatim:
    """Bytes that stand for themselves in the encoding: how a test writes what no writer should."""

    encoded: bytes


def cid(block: bytes, codec: int = 0x71) -> Cid:
    """The CID of a block."""
    return Cid(bytes([1, codec, 0x12, 32]) + sha256(block).digest())


def cid_of(text: str) -> Cid:
    """The CID of a text `b...`."""
    return Cid(base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8)))


def head(major: int, number: int) -> bytes:
    """The head of an item, as short as can be."""
    for info, size in ((None, 0), (24, 1), (25, 2), (26, 4), (27, 8)):
        if info is None and number < 24:
            return bytes([major * 32 + number])
        if info is not None and number < 256**size:
            return bytes([major * 32 + info]) + number.to_bytes(size, "big")
    raise AssertionError(number)


def dag_cbor(value: Any) -> bytes:
    """The canonical encoding of a value."""
    match value:
        case Verbatim(encoded):
            return encoded
        case Cid(binary):
            return b"\xd8\x2a" + dag_cbor(b"\x00" + binary)
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(dag_cbor(item) for item in value)
        case dict():
            names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
            return head(5, len(value)) + b"".join(dag_cbor(name) + dag_cbor(value[name]) for name in names)
    raise AssertionError(value)


# Trees.


def height(key: bytes) -> int:
    """The layer of a key: pairs of zero bits its sha256 starts with."""
    bits = "".join(f"{byte:08b}" for byte in sha256(key).digest())
    return (len(bits) - len(bits.lstrip("0"))) // 2


def common_prefix(a: bytes, b: bytes) -> int:
    """How many bytes two keys start with together."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def node(left: Cid | None, entries: list[tuple[bytes, Cid, Cid | None]]) -> dict[str, Any]:
    """A node's content from its left subtree and its (key, value, right subtree)."""
    last, written = b"", []
    for key, value, right in entries:
        shared = common_prefix(last, key)
        written.append({"p": shared, "k": key[shared:], "v": value, "t": right})
        last = key
    return {"l": left, "e": written}


def tree(leaves: Mapping[bytes, Cid], blocks: Blocks) -> Cid:
    """Write the tree of these keys into `blocks`; gives its root."""
    items = sorted(leaves.items())
    top = max((height(key) for key in leaves), default=0)
    root = _subtree(items, top, blocks)
    return root if root is not None else put(node(None, []), blocks)


def _subtree(items: list[tuple[bytes, Cid]], layer: int, blocks: Blocks) -> Cid | None:
    if not items:
        return None
    groups: list[list[tuple[bytes, Cid]]] = [[]]
    own: list[tuple[bytes, Cid]] = []
    for item in items:
        if height(item[0]) == layer:
            own.append(item)
            groups.append([])
        else:
            groups[-1].append(item)
    below = [_subtree(group, layer - 1, blocks) for group in groups]
    return put(node(below[0], [(*item, right) for item, right in zip(own, below[1:], strict=True)]), blocks)


def put(value: Any, blocks: Blocks) -> Cid:
    """Write a block; gives its CID."""
    encoded = dag_cbor(value)
    link = cid(encoded)
    blocks[link.binary] = encoded
    return link


# CAR files.


def varint(number: int) -> bytes:
    """A number in LEB128."""
    out = []
    while number > 127:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def car(root: Cid, blocks: Iterable[tuple[bytes, bytes]], header: Any = None) -> bytes:
    """A CAR file of these blocks in this order."""
    first = dag_cbor({"version": 1, "roots": [root]} if header is None else header)
    return b"".join([varint(len(first)), first, *(frame(binary, block) for binary, block in blocks)])


def frame(binary: bytes, block: bytes) -> bytes:
    """A block in a CAR file."""
    return varint(len(binary) + len(block)) + binary + block


def on_disk(content: bytes) -> BinaryIO:
    """A temporary file with this content; it is gone with its last reference."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.flush()
    return file


# Accounts.


@dataclass
class Account:
    """An account that writes and signs repositories."""

    did: str = DID
    curve: ec.EllipticCurve = field(default_factory=ec.SECP256K1)
    secret: int = 0x9085D2BEF69286A6CBB51623C8FA258629945CD55CA705CC4E66700396894E0C

    def sign(self, message: bytes) -> bytes:
        """The signature of a message: r and s, s low."""
        private = ec.derive_private_key(self.secret, self.curve)
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256())))
        order = ORDERS[self.curve.name]
        return r.to_bytes(32, "big") + min(s, order - s).to_bytes(32, "big")

    def point(self, compressed: bool = True) -> bytes:
        """The public key's point."""
        form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
        return ec.derive_private_key(self.secret, self.curve).public_key().public_bytes(Encoding.X962, form)

    def multikey(self) -> str:
        """The public key as a Multikey."""
        codec = {"secp256k1": b"\xe7\x01", "secp256r1": b"\x80\x24"}[self.curve.name]
        return "z" + base58(codec + self.point())

    def commit(self, data: Cid, **fields: Any) -> dict[str, Any]:
        """A signed commit; a field given as Ellipsis is left out."""
        unsigned = {"did": self.did, "version": 3, "data": data, "rev": REV, "prev": None} | fields
        unsigned = {name: value for name, value in unsigned.items() if value is not ...}
        return {"sig": self.sign(dag_cbor(unsigned)), **unsigned}

    def written(self, records: Mapping[str | bytes, Any], **fields: Any) -> tuple[Cid, Blocks]:
        """The blocks of a repository of these records (values, or encoded ones), commit first; and the commit's CID."""
        values: Blocks = {}
        leaves = {}
        for path, value in records.items():
            encoded = value if isinstance(value, bytes) else dag_cbor(value)
            link = cid(encoded)
            values[link.binary] = encoded
            leaves[path.encode() if isinstance(path, str) else path] = link
        nodes: Blocks = {}
        blocks: Blocks = {}
        root = put(self.commit(tree(leaves, nodes), **fields), blocks)
        return root, blocks | nodes | values

    def repository(self, records: Mapping[str | bytes, Any], **fields: Any) -> bytes:
        """The CAR file of a repository of these records."""
        root, blocks = self.written(records, **fields)
        return car(root, blocks.items())


def base58(data: bytes) -> str:
    """Bytes in base58btc."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text
