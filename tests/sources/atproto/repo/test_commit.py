"""Commits: what is read, what is refused; their signatures and revs."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import commit
from tickwork.sources.atproto.repo import identifiers as syntax
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.keys import PublicKey

DATA = kit.cid(b"tree")
NOW = dt.datetime(2026, 10, 5, 12, 0, tzinfo=dt.UTC)
ALICE = kit.Account()
CURVES = [ec.SECP256K1(), ec.SECP256R1()]


def parsed(fields: object) -> commit.Commit:
    block = kit.dag_cbor(fields)
    return commit.parse(block, kit.cid(block).binary)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize(
    "fields",
    [{}, {"version": 2}, {"version": 2, "rev": ...}, {"version": 2, "prev": ...}, {"prev": kit.cid(b"before")}],
)
def test_a_signed_commit_is_read_and_verified(curve, fields):
    account = kit.Account(curve=curve)
    read = parsed(account.commit(DATA, **fields))
    read.verify(PublicKey.from_multikey(account.multikey()))
    read.check(account.did, NOW)
    assert (read.did, read.data, read.version) == (kit.DID, DATA.binary, fields.get("version", 3))
    assert read.rev == ("" if fields.get("rev") is ... else kit.REV)
    with pytest.raises(InvalidRepositoryError, match="its signature is not by did:key:z"):
        read.verify(PublicKey.from_multikey(kit.Account(curve=curve, secret=5).multikey()))


@pytest.mark.parametrize("name", ["did", "version", "data", "rev", "prev"])
def test_a_field_changed_after_signing_breaks_the_signature(name):
    changes = {
        "did": "did:plc:other",
        "version": 2,
        "data": kit.cid(b"x"),
        "rev": "3l6oveex3ii2m",
        "prev": kit.cid(b"y"),
    }
    read = parsed(ALICE.commit(DATA) | {name: changes[name]})
    with pytest.raises(InvalidRepositoryError, match="its signature is not by"):
        read.verify(PublicKey.from_multikey(ALICE.multikey()))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"version": 1}, "version is 1"),
        ({"version": 4}, "version is 4"),
        ({"version": True}, "version is True"),
        ({"version": "3"}, "version is '3'"),
        ({"rev": ...}, "lacks fields: 'rev'"),
        ({"prev": ...}, "lacks fields: 'prev'"),
        ({"rev": ""}, "is not a valid TID"),
        ({"rev": None}, "is not a valid TID"),
        ({"version": 2, "rev": "not a tid"}, "is not a valid TID"),
        ({"rev": "zzzzzzzzzzzzz"}, "is not a valid TID"),
        ({"did": "alice.test"}, "is not a valid DID"),
        ({"did": 3}, "is not a valid DID"),
        ({"data": None}, "its data is not a link"),
        ({"data": DATA.binary}, "its data is not a link"),
        ({"data": kit.cid(b"raw", 0x55)}, "its data is not a link"),
        ({"prev": b""}, "its prev is not a link"),
        ({"sig": "text"}, "signature is not a byte string"),
        ({"sig": DATA}, "signature is not a byte string"),
        ({"more": 1}, "has unknown fields: 'more'"),
    ],
)
def test_what_is_no_commit_is_refused(fields, problem):
    content = {"did": kit.DID, "version": 3, "data": DATA, "rev": kit.REV, "prev": None, "sig": bytes(64)} | fields
    with pytest.raises(InvalidRepositoryError, match=problem):
        parsed({name: value for name, value in content.items() if value is not ...})


@pytest.mark.parametrize("content", [None, [], 3, b"", "text", kit.Verbatim(b""), kit.Verbatim(b"\xa0\xa0")])
def test_a_block_that_is_no_map_is_refused(content):
    with pytest.raises(InvalidRepositoryError, match=r"^the commit bafy"):
        parsed(content)


def test_a_commit_far_too_large_is_not_decoded():
    with pytest.raises(InvalidRepositoryError, match="more than 16384"):
        parsed([[]] * 20_000)


@pytest.mark.parametrize("size", [0, 1, 63, 65, 70, 10_000])
def test_signatures_are_64_bytes(size):
    with pytest.raises(InvalidRepositoryError, match="its signature is not by"):
        parsed(ALICE.commit(DATA) | {"sig": bytes(size)}).verify(PublicKey.from_multikey(ALICE.multikey()))


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_signatures_out_of_range_are_refused(curve):
    account = kit.Account(curve=curve)
    key, good = PublicKey.from_multikey(account.multikey()), account.sign(b"m")
    order = kit.ORDERS[curve.name]
    r, s = good[:32], int.from_bytes(good[32:], "big")
    assert key.verify(good, b"m")
    for other in ((order - s).to_bytes(32, "big"), bytes(32), order.to_bytes(32, "big"), b"\xff" * 32):
        assert not key.verify(r + other, b"m")
        assert not key.verify(other + good[32:], b"m")
    assert not key.verify(r + b"\0" + good[32:], b"m")


def test_the_account_must_be_the_one_asked_for():
    with pytest.raises(InvalidRepositoryError, match=f"it belongs to {kit.DID}, not to did:plc:other"):
        parsed(ALICE.commit(DATA)).check("did:plc:other", NOW)


@pytest.mark.parametrize(("minutes", "allowed"), [(-1000, True), (4.9, True), (5.1, False), (10**7, False)])
def test_a_rev_may_be_five_minutes_ahead(minutes, allowed):
    read = parsed(ALICE.commit(DATA, rev=syntax.tid(NOW + dt.timedelta(minutes=minutes), 7)))
    if allowed:
        read.check(kit.DID, NOW)
    else:
        with pytest.raises(InvalidRepositoryError, match="in the future"):
            read.check(kit.DID, NOW)


def test_a_rev_may_not_be_older_than_ours():
    before, same, after = (syntax.tid(NOW - dt.timedelta(seconds=seconds)) for seconds in (3, 2, 1))
    read = parsed(ALICE.commit(DATA, rev=same))
    read.check(kit.DID, NOW, before)
    read.check(kit.DID, NOW, same)
    with pytest.raises(InvalidRepositoryError, match=f"its rev {same} is older than {after}"):
        read.check(kit.DID, NOW, after)
    with pytest.raises(InvalidRepositoryError, match=r"its rev \(none\) is older than"):
        parsed(ALICE.commit(DATA, version=2, rev=...)).check(kit.DID, NOW, before)


def test_the_time_of_a_tid():
    assert syntax.tid_time(syntax.tid(NOW, 1023)) == NOW
    assert syntax.tid_time("2222222222222") == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert syntax.tid_time("3jzfcijpj2z2a").year == 2023
    assert syntax.tid_time("jzzzzzzzzzzzz").year > 2200
    with pytest.raises(InvalidRepositoryError, match="is not a valid TID"):
        syntax.tid_time("222")
