"""DAG-CBOR: only the canonical encoding is read, and no nesting is too deep to be refused."""

from __future__ import annotations

import sys
import threading

import pytest

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import cbor
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError

OTHER_ENCODINGS = [
    "1817",
    "190017",
    "780161",
    "9fff",
    "a2616101616102",
    "a2616201616102",
    "a262616101616202",
    "f93c00",
    "fa3f800000",
    "a10102",
    "61ff",
    "62",
    "fb3ff0000000000000",
    "fb7ff8000000000000",
    "f7",
    "f820",
    "e0",
    "0000",
    "c000",
    "d82a4101",
    "d82a40",
    "d82a00",
    "63eda080",
    "1c",
    "d902a0",
    "ff",
    "3bffffffffffffffff",
    "1bffffffffffffffff",
    "1b8000000000000000",
    "9bffffffffffffffff",
    "bbffffffffffffffff",
    "a161",
    "7bffffffffffffffff",
    "5affffffff",
    "",
    "d82a582300" + "1220" + "00" * 32,
    "d82a582500" + "01711320" + "00" * 32,
    "d82a582501" + "01711220" + "00" * 32,
]


@pytest.mark.parametrize("encoded", OTHER_ENCODINGS)
def test_other_encodings_are_refused(encoded):
    with pytest.raises(InvalidRepositoryError, match=r"^here: not canonical DAG-CBOR: "):
        cbor.decode(bytes.fromhex(encoded), "here")


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0, -1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32])
def test_whole_numbers_of_64_bits_are_read(value):
    assert cbor.decode(cbor.encode(value), "here") == value
    assert cbor.encode(value) == kit.dag_cbor(value)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, 1.5, object(), [1.5], {"a": object()}])
def test_what_has_no_encoding_is_not_encoded(value):
    with pytest.raises(TypeError):
        cbor.encode(value)


@pytest.mark.parametrize("unit", ["81", "a16161", "8181", "82f6", "c0", "d82a"])
@pytest.mark.parametrize("times", [65, 10_000, 500_000])
def test_a_nested_bomb_is_refused_whatever_the_stack(unit, times):
    bomb = bytes.fromhex(unit) * times + b"\0"
    with pytest.raises(InvalidRepositoryError):
        cbor.decode(bomb, "here")
    before, ended = sys.getrecursionlimit(), []

    def in_a_thread() -> None:
        with pytest.raises(InvalidRepositoryError):
            cbor.decode(bomb, "here")
        ended.append(True)

    sys.setrecursionlimit(10**6)
    try:
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(before)
    assert ended


def test_nesting_up_to_the_bound_is_read():
    cbor.decode(b"\x81" * cbor.MAX_DEPTH + b"\0", "here")
    with pytest.raises(InvalidRepositoryError, match="more than 64"):
        cbor.decode(b"\x81" * (cbor.MAX_DEPTH + 1) + b"\0", "here")
