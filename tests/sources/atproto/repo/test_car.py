"""CAR files: framing, hashes, bounds; what is no CAR file is refused by what is wrong and where."""

from __future__ import annotations

import tempfile

import pytest

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import car as cars
from tickwork.sources.atproto.repo.car import Caps, Car
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError

BLOCKS = [kit.dag_cbor({"n": number}) for number in range(5)]
ROOT = kit.cid(BLOCKS[0])
PAIRS = [(kit.cid(block).binary, block) for block in BLOCKS]
HEADER = {"version": 1, "roots": [ROOT]}


def read(content: bytes, caps: Caps | None = None) -> Car:
    return Car(kit.on_disk(content), caps)


def refused(content: bytes, problem: str, caps: Caps | None = None) -> None:
    with pytest.raises(InvalidRepositoryError, match=problem):
        read(content, caps)


def test_blocks_are_given_by_their_cid():
    with read(kit.car(ROOT, PAIRS)) as car:
        assert car.roots == [ROOT.binary]
        assert len(car) == 5
        assert [car.get(binary) for binary, _ in PAIRS] == BLOCKS
        assert all(binary in car for binary, _ in PAIRS)
        other = kit.cid(b"another").binary
        assert car.get(other) is None
        assert other not in car


def test_a_block_twice_is_one_block():
    with read(kit.car(ROOT, PAIRS * 3)) as car:
        assert len(car) == 5


def test_raw_and_empty_blocks_are_blocks():
    empty = kit.cid(b"", 0x55)
    with read(kit.car(ROOT, [*PAIRS, (empty.binary, b"")])) as car:
        assert car.get(empty.binary) == b""


def test_the_file_is_read_from_its_first_byte_and_not_closed():
    file = kit.on_disk(kit.car(ROOT, PAIRS))
    file.seek(7)
    with Car(file) as car:
        assert len(car) == 5
    assert not file.closed


def test_a_spooled_file_and_unflushed_bytes_are_read():
    with tempfile.SpooledTemporaryFile(max_size=10**6) as file:
        file.write(kit.car(ROOT, PAIRS))
        with Car(file) as car:
            assert len(car) == 5


def test_blocks_larger_than_what_is_read_at_once_and_at_its_edges():
    sizes = [1 << 20, (1 << 20) - 37, (1 << 20) - 38, (1 << 20) - 39, 10, (1 << 20) + 1, *range(100, 4000, 7)]
    blocks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    pairs = [(kit.cid(block, 0x55).binary, block) for block in blocks]
    with read(kit.car(ROOT, pairs)) as car:
        assert [car.get(binary) for binary, _ in pairs] == blocks


def test_the_table_grows():
    pairs = [(kit.cid(b"%d" % number, 0x55).binary, b"%d" % number) for number in range(5000)]
    with read(kit.car(ROOT, pairs + pairs[:100])) as car:
        assert len(car) == 5000
        assert all(car.get(binary) == block for binary, block in pairs)


def test_large_files_are_read_without_being_mapped(monkeypatch):
    monkeypatch.setattr(cars, "_MAPPED_BYTES", 1000)
    test_the_table_grows()
    test_blocks_larger_than_what_is_read_at_once_and_at_its_edges()


@pytest.mark.parametrize("mapped_bytes", [0, 10**6])
def test_the_file_may_be_closed_once_it_is_read(monkeypatch, mapped_bytes):
    monkeypatch.setattr(cars, "_MAPPED_BYTES", mapped_bytes)
    with kit.on_disk(kit.car(ROOT, PAIRS)) as file:
        car = Car(file)
    with tempfile.TemporaryFile(), car:
        assert [car.get(binary) for binary, _ in PAIRS] == BLOCKS


def test_a_file_cut_while_it_is_read_is_refused(monkeypatch):
    monkeypatch.setattr(cars, "_MAPPED_BYTES", 0)
    file = kit.on_disk(kit.car(ROOT, PAIRS))
    with Car(file) as car:
        file.truncate(60)
        with pytest.raises(InvalidRepositoryError, match="truncated while it was read"):
            car.get(PAIRS[-1][0])


def test_every_truncation_is_refused_or_ends_between_blocks():
    content = kit.car(ROOT, PAIRS)
    header = 1 + len(kit.dag_cbor(HEADER))
    frame = 1 + 36 + len(BLOCKS[0])
    between = {header + frame * count for count in range(6)}
    for size in range(len(content)):
        if size in between:
            assert len(read(content[:size])) == (size - header) // frame
        else:
            refused(content[:size], "ends within|empty")


@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"x", b"\x80" * 9, b"\0" * 4096, b"\x25" + b"\1\x71\x12\x20"])
def test_bytes_after_the_last_block_are_refused(garbage):
    refused(kit.car(ROOT, PAIRS) + garbage, r"byte \d+")


def test_a_changed_byte_is_refused():
    content = bytearray(kit.car(ROOT, PAIRS))
    content[-1] ^= 1
    refused(bytes(content), f"{kit.cid(BLOCKS[-1])} does not have the hash")


@pytest.mark.parametrize(
    ("varint", "problem"),
    [
        (b"\x80" * 9 + b"\x01", "more than 9 bytes"),
        (b"\xff" * 20, "more than 9 bytes"),
        (b"\xa9\x00", "more bytes than it needs"),
        (b"\x80\x80\x00", "more bytes than it needs"),
        (b"\x00", "0 bytes long"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes long, allowed are"),
    ],
)
def test_a_length_that_is_none(varint, problem):
    refused(kit.car(ROOT, PAIRS) + varint + b"x" * 100, problem)
    refused(varint + kit.car(ROOT, PAIRS), problem)


@pytest.mark.parametrize(
    "header",
    [
        {"version": 2, "roots": [ROOT]},
        {"version": 1, "roots": []},
        {"version": 1},
        {"roots": [ROOT]},
        {"version": 1, "roots": [ROOT], "more": 1},
        {"version": 1, "roots": ROOT},
        {"version": 1, "roots": [str(ROOT)]},
        {"version": 1, "roots": [ROOT.binary]},
        {"version": "1", "roots": [ROOT]},
        [1, [ROOT]],
        kit.Verbatim(b"\xa2"),
        kit.Verbatim(b"\x81" * 4000 + b"\x00"),
        {"version": 1, "roots": [ROOT] * 200},
    ],
)
def test_a_header_that_is_none(header):
    refused(kit.car(ROOT, PAIRS, header), "header")


def test_several_roots_are_allowed():
    with read(kit.car(ROOT, PAIRS, {"version": 1, "roots": [ROOT, kit.cid(BLOCKS[1])]})) as car:
        assert car.roots == [ROOT.binary, kit.cid(BLOCKS[1]).binary]


@pytest.mark.parametrize(
    "binary",
    [
        kit.cid(BLOCKS[1], 0x70).binary,
        b"\x12\x20" + ROOT.binary[4:],
        b"\x00" + ROOT.binary[1:],
        ROOT.binary[:2] + b"\x13\x40" + bytes(64),
        ROOT.binary[:20],
        b"\x01\x71\x00\x04abcd",
    ],
)
def test_other_kinds_of_cid_are_refused(binary):
    refused(kit.car(ROOT, [*PAIRS, (binary, BLOCKS[1])]), "CID|hash")


def test_caps_are_kept():
    content = kit.car(ROOT, PAIRS)
    assert len(read(content, Caps(len(content), len(BLOCKS[0]), 5))) == 5
    refused(content, "the file has more than", Caps(file_bytes=len(content) - 1))
    refused(content, "allowed are 1 to", Caps(block_bytes=len(BLOCKS[0]) - 1))
    refused(content, "more than 4 blocks", Caps(blocks=4))
    with pytest.raises(ValueError, match="block_bytes"):
        Caps(block_bytes=1 << 24)


def test_an_empty_file_is_refused():
    refused(b"", "the file is empty")
