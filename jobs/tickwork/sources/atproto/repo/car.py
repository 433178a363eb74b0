"""CAR files, version 1, read once from front to end; then each block by its CID, straight from the file.

Nothing is kept in memory but a table of where blocks are, 8 bytes a slot and at most two thirds full, so that a file of
1 GB takes some 100 MB. Small files are mapped; larger ones are read piece by piece, because mapped pages count as this
process's memory. Every block's hash is checked as the file is read.
Sources: https://ipld.io/specs/transport/car/carv1/, https://atproto.com/specs/repository#car-file-serialization.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

from tickwork.sources.atproto.repo import cbor
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import CID_BYTES, DAG_CBOR, RAW, cid_text

MAX_HEADER_BYTES = 4096
MAX_BLOCK_BYTES = (1 << 24) - 1
"""What the table has room for; the cap is far below."""

_MAX_VARINT_BYTES = 9
_WINDOW_BYTES = 1 << 20
_MAPPED_BYTES = 16 << 20
_SIZE_BITS = 24
_BYTES_A_SLOT = 128
_MAX_FIRST_SLOTS = 1 << 23
_PREFIXES = (DAG_CBOR, RAW)


@dataclass(frozen=True, slots=True)
class Caps:
    """How large a repository may be: bytes of the file, bytes of one block, number of blocks."""

    file_bytes: int = 1 << 30
    block_bytes: int = 2 << 20
    blocks: int = 8_000_000

    def __post_init__(self) -> None:
        if self.block_bytes > MAX_BLOCK_BYTES:
            raise ValueError(f"block_bytes is {self.block_bytes}, and may be {MAX_BLOCK_BYTES} at most")


class Car:
    """A CAR file whose blocks all have the hash their CID says. Raises InvalidRepositoryError when it is made.

    `file` is an ordinary file open for reading, from its first byte whatever its position. It may be closed or removed
    afterwards, but not changed for as long as blocks are read. Close, or use as a context manager.
    """

    def __init__(self, file: BinaryIO, caps: Caps | None = None) -> None:
        self._caps = caps or Caps()
        self._bytes = _bytes_of(file, self._caps.file_bytes)
        self._count = 0
        slots = 1 << max(4, (len(self._bytes) // _BYTES_A_SLOT).bit_length())
        self._slots = _free(min(slots, _MAX_FIRST_SLOTS))
        try:
            self.roots = self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Car:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; the one that was given is not closed."""
        self._bytes.close()

    def __len__(self) -> int:
        """How many different blocks there are."""
        return self._count

    def __contains__(self, cid: bytes) -> bool:
        return bool(self._slots[self._slot(cid)])

    def get(self, cid: bytes) -> bytes | None:
        """The bytes of a block, by its binary CID; None if the file has no such block."""
        # The same steps as in _slot, unrolled: this is called for every node and record.
        slots, mask = self._slots, len(self._slots) - 1
        slot = hash(cid) & mask
        while place := slots[slot]:
            start = place >> _SIZE_BITS
            frame = self._bytes[start : start + CID_BYTES + (place & MAX_BLOCK_BYTES)]
            if frame.startswith(cid):
                return frame[CID_BYTES:]
            slot = (slot + 1) & mask
        return None

    def _read(self) -> list[bytes]:
        """Read the whole file, note where blocks are, give the roots."""
        frames = _frames(self._bytes, self._caps.block_bytes + CID_BYTES)
        _, header = next(frames)
        roots = _roots(header)
        slots, mask, most = self._slots, len(self._slots) - 1, self._caps.blocks
        for start, frame in frames:
            cid = frame[:CID_BYTES]
            if cid[:4] not in _PREFIXES or len(cid) != CID_BYTES:
                raise InvalidRepositoryError(f"the block at byte {start} has the CID {cid[:8].hex()}..., not allowed")
            if sha256(frame[CID_BYTES:]).digest() != cid[4:]:
                raise InvalidRepositoryError(f"the block {cid_text(cid)} does not have the hash its CID says")
            slot = hash(cid) & mask
            if slots[slot]:
                slot = self._slot(cid)
                if slots[slot]:
                    continue
            slots[slot] = start << _SIZE_BITS | len(frame) - CID_BYTES
            self._count += 1
            if self._count > most:
                raise InvalidRepositoryError(f"more than {most} blocks")
            if 3 * self._count > 2 * mask:
                self._grow()
                slots, mask = self._slots, len(self._slots) - 1
        return roots

    def _slot(self, cid: bytes) -> int:
        """The slot of a block, or the free one where it would be."""
        # Python's hash of bytes has a secret seed, so nobody can choose blocks that collide.
        slots, mask = self._slots, len(self._slots) - 1
        slot = hash(cid) & mask
        while place := slots[slot]:
            if self._cid(place) == cid:
                break
            slot = (slot + 1) & mask
        return slot

    def _cid(self, place: int) -> bytes:
        start = place >> _SIZE_BITS
        return self._bytes[start : start + CID_BYTES]

    def _grow(self) -> None:
        before = self._slots
        self._slots = slots = _free(2 * len(before))
        mask = len(slots) - 1
        for place in before:
            if place:
                slot = hash(self._cid(place)) & mask
                while slots[slot]:
                    slot = (slot + 1) & mask
                slots[slot] = place


class _Reads:
    """The bytes of a file, to be sliced as if they were in memory; each slice is one read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        # A descriptor of its own, as a mapping has: the caller may close theirs, and its number may be another file's.
        self._file = open(os.dup(file.fileno()), "rb", buffering=0)  # noqa: SIM115, PTH123
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        read = os.pread(self._file.fileno(), part.stop - part.start, part.start)
        if len(read) < min(part.stop, self._size) - part.start:
            raise InvalidRepositoryError("the file was truncated while it was read")
        return read

    def close(self) -> None:
        self._file.close()


def _bytes_of(file: BinaryIO, most: int) -> mmap.mmap | _Reads:
    if file.writable():
        file.flush()
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise InvalidRepositoryError("the file is empty")
    if size > most:
        raise InvalidRepositoryError(f"the file has more than {most} bytes")
    if size > _MAPPED_BYTES:
        return _Reads(file, size)
    return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)


def _free(slots: int) -> array[int]:
    return array("Q", [0]) * slots


def _frames(content: mmap.mmap | _Reads, most: int) -> Iterator[tuple[int, bytes]]:
    """The header, then each block with its CID in front; with each where it starts in the file."""
    end = len(content)
    base, pos, window = 0, 0, b""
    limit, what = MAX_HEADER_BYTES, "the header"
    while base + pos < end:
        # A frame that does not lie whole in the window starts the next one.
        if pos + _MAX_VARINT_BYTES > len(window):
            base, pos = base + pos, 0
            window = content[base : base + _WINDOW_BYTES]
        begun = base + pos
        size, pos = window[pos], pos + 1
        if size > 127:
            # Two bytes are what nearly all blocks have.
            more = window[pos] if pos < len(window) else 0
            if 0 < more < 128:
                size, pos = size & 127 | more << 7, pos + 1
            else:
                size, pos = _varint(window, pos - 1, begun)
        if not 0 < size <= limit:
            raise InvalidRepositoryError(f"{what} at byte {begun} is {size} bytes long, allowed are 1 to {limit}")
        if pos + size > len(window):
            base, pos = base + pos, 0
            if base + size > end:
                raise InvalidRepositoryError(f"the file ends within {what} at byte {begun}")
            window = content[base : base + max(_WINDOW_BYTES, size)]
        yield base + pos, window[pos : pos + size]
        pos += size
        limit, what = most, "the block"


def _varint(window: bytes, pos: int, begun: int) -> tuple[int, int]:
    number = 0
    for index, byte in enumerate(window[pos : pos + _MAX_VARINT_BYTES]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            if not byte:
                raise InvalidRepositoryError(f"the length at byte {begun} has more bytes than it needs")
            return number, pos + index + 1
    if len(window) - pos < _MAX_VARINT_BYTES:
        raise InvalidRepositoryError(f"the file ends within the length at byte {begun}")
    raise InvalidRepositoryError(f"the length at byte {begun} has more than {_MAX_VARINT_BYTES} bytes")


def _roots(header: bytes) -> list[bytes]:
    fields = cbor.decode(header, "the header")
    if not isinstance(fields, dict) or fields.keys() != {"roots", "version"} or fields["version"] != 1:
        raise InvalidRepositoryError("the header is not that of a CAR file of version 1")
    roots = fields["roots"]
    if not isinstance(roots, list) or not roots:
        raise InvalidRepositoryError("the header does not name a root")
    links = [bytes(root) for root in roots if isinstance(root, cbor.Link)]
    if len(links) != len(roots):
        raise InvalidRepositoryError("the header names a root that is not a link")
    return links
