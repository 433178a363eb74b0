"""Identifiers of the AT Protocol: DIDs, handles, NSIDs, record keys, TIDs and CIDs, as text.

Source: https://atproto.com/specs/ (did, handle, nsid, record-key, tid, data-model); the interop fixtures for syntax.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re

import libipld

from tickwork.contract import times
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError

CID_BYTES = 36
"""Length of a binary CID as repositories have them: version, codec, sha2-256, length 32, digest."""
DAG_CBOR = b"\x01\x71\x12\x20"
"""What the binary CID of a DAG-CBOR block starts with; the digest follows."""
RAW = b"\x01\x55\x12\x20"

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_TOP = "[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HANDLE = re.compile(rf"(?:{_LABEL}\.)+{_TOP}")
_NSID = re.compile(rf"{_TOP}(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}")
_RECORD_KEY = re.compile(r"[a-zA-Z0-9_~.:-]{1,512}")
_CID = re.compile(r"[a-zA-Z0-9+=]{8,256}")

_TID_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_TID = re.compile(r"[2-7a-j][2-7a-z]{12}")
_TID_VALUES = {digit: value for value, digit in enumerate(_TID_DIGITS)}
_CLOCK_BITS = 10
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def is_did(text: str) -> bool:
    """Whether this is a DID, of any method."""
    return len(text) <= 2048 and _DID.fullmatch(text) is not None


def is_handle(text: str) -> bool:
    """Whether this is a handle: a domain name of two labels or more, with a last label that is no number."""
    return len(text) <= 253 and _HANDLE.fullmatch(text) is not None


def is_nsid(text: str) -> bool:
    """Whether this is the name of a collection: a reversed domain name and a name, without wildcards."""
    return len(text) <= 317 and _NSID.fullmatch(text) is not None


def is_record_key(text: str) -> bool:
    """Whether this is the key of a record within its collection."""
    return _RECORD_KEY.fullmatch(text) is not None and text not in (".", "..")


def is_path(text: str) -> bool:
    """Whether this is the path of a record: collection, one slash, record key."""
    collection, slash, key = text.partition("/")
    return bool(slash) and is_record_key(key) and is_nsid(collection)


def is_tid(text: str) -> bool:
    """Whether this is a TID. TIDs as texts sort by their time."""
    return _TID.fullmatch(text) is not None


def tid_time(text: str) -> dt.datetime:
    """The time of a TID, UTC, to the microsecond. Raises InvalidRepositoryError."""
    if not is_tid(text):
        raise InvalidRepositoryError(f"{text[:40]!r} is not a valid TID")
    number = 0
    for digit in text:
        number = number << 5 | _TID_VALUES[digit]
    try:
        return _EPOCH + dt.timedelta(microseconds=number >> _CLOCK_BITS)
    except OverflowError:
        return times.LAST


def tid(time: dt.datetime, clock: int = 0) -> str:
    """The TID of a time and a clock's identifier (0 to 1023)."""
    number = (time - _EPOCH) // dt.timedelta(microseconds=1) << _CLOCK_BITS | clock
    return "".join(_TID_DIGITS[number >> shift & 31] for shift in range(60, -1, -5))


def is_cid(text: str) -> bool:
    """Whether this looks like a CID in any base; nothing is decoded. Version 0 (`Qm...`) is none."""
    return _CID.fullmatch(text) is not None and not text.startswith("Qmb")


def cid_text(cid: bytes) -> str:
    """The text of a binary CID: base32, as links are written (`bafyrei...`)."""
    return libipld.encode_cid(cid)


def cid_bytes(text: str) -> bytes:
    """The 36 bytes of a CID's text. Raises InvalidRepositoryError for all but version 1, base32 and sha2-256."""
    # 36 bytes are 57.6 digits of base32, so the last one has two bits to spare, and they must be 0.
    if len(text) == 59 and text[0] == "b" and text.islower():
        try:
            cid = base64.b32decode(text[1:].upper() + "======")
        except (binascii.Error, ValueError):
            cid = b""
        if is_repository_cid(cid) and cid_text(cid) == text:
            return cid
    raise InvalidRepositoryError(
        f"{text[:80]!r} is not a CID of version 1, in base32, of DAG-CBOR or raw data, with sha2-256"
    )


def is_repository_cid(cid: bytes) -> bool:
    """Whether a binary CID is one that repositories may have: version 1, DAG-CBOR or raw, sha2-256."""
    return len(cid) == CID_BYTES and cid[:4] in (DAG_CBOR, RAW)
