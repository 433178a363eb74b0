"""The interop fixtures of the AT Protocol: identifiers, keys and signatures, trees, data model, commit proofs."""

from __future__ import annotations

import base64
import json
import re

import pytest

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import cbor, mst
from tickwork.sources.atproto.repo import dag_json as data_model
from tickwork.sources.atproto.repo import identifiers as syntax
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.keys import PublicKey


def load(name: str) -> list:
    return json.loads((kit.FIXTURES / name).read_text())


def lines(name: str) -> list[str]:
    text = (kit.FIXTURES / "syntax" / name).read_text()
    return [line for line in text.split("\n") if line and not line.startswith("# ")]


CHECKS = {
    "tid": syntax.is_tid,
    "nsid": syntax.is_nsid,
    "recordkey": syntax.is_record_key,
    "did": syntax.is_did,
    "handle": syntax.is_handle,
    "cid": syntax.is_cid,
}


@pytest.mark.parametrize("kind", CHECKS)
def test_valid_identifiers_are_accepted(kind):
    texts = lines(f"{kind}_syntax_valid.txt")
    assert texts
    assert [text for text in texts if not CHECKS[kind](text)] == []


@pytest.mark.parametrize("kind", CHECKS)
def test_invalid_identifiers_are_refused(kind):
    texts = lines(f"{kind}_syntax_invalid.txt")
    assert texts
    assert [text for text in texts if CHECKS[kind](text)] == []


@pytest.mark.parametrize("kind", CHECKS)
def test_a_line_feed_at_the_end_is_no_part_of_an_identifier(kind):
    assert not any(CHECKS[kind](text + "\n") for text in lines(f"{kind}_syntax_valid.txt"))


@pytest.mark.parametrize("fixture", load("crypto/signature-fixtures.json"), ids=lambda fixture: fixture["comment"])
def test_signatures(fixture):
    key = PublicKey.from_did_key(fixture["publicKeyDid"])
    message, signature = (base64.b64decode(fixture[name] + "==") for name in ("messageBase64", "signatureBase64"))
    assert key.verify(signature, message) is fixture["validSignature"]
    assert str(key) == fixture["publicKeyDid"]
    older = PublicKey.from_method(fixture["didDocSuite"], fixture["publicKeyMultibase"])
    assert older == key
    assert hash(older) == hash(key)


@pytest.mark.parametrize("name", ["K256", "P256"])
def test_public_keys_of_the_w3c(name):
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = ec.SECP256K1() if name == "K256" else ec.SECP256R1()
    for fixture in load(f"crypto/w3c_didkey_{name}.json"):
        if "privateKeyBytesHex" in fixture:
            secret = int(fixture["privateKeyBytesHex"], 16)
        else:
            alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
            secret = 0
            for digit in fixture["privateKeyBytesBase58"]:
                secret = secret * 58 + alphabet.index(digit)
        account = kit.Account(curve=curve, secret=secret)
        key = PublicKey.from_did_key(fixture["publicDidKey"])
        assert str(key) == fixture["publicDidKey"] == "did:key:" + account.multikey()
        assert key.verify(account.sign(b"message"), b"message")
        assert not key.verify(account.sign(b"message"), b"another")


def test_heights_of_keys():
    for fixture in load("mst/key_heights.json"):
        key = fixture["key"].encode()
        assert mst.layer_of(key) == fixture["height"] == kit.height(key)
    keys = (kit.FIXTURES / "mst" / "example_keys.txt").read_text().split()
    assert len(keys) == 156
    for key in keys:
        assert mst.layer_of(key.encode()) == int(key[1]) == kit.height(key.encode())


def test_common_prefixes_as_the_writer_and_the_reader_see_them():
    value = kit.cid(b"value")
    for fixture in load("mst/common_prefix.json"):
        left, right = fixture["left"].encode(), fixture["right"].encode()
        assert kit.common_prefix(left, right) == fixture["len"]
        for shared in range(min(len(left), len(right)) + 1):
            entries = [
                {"p": 0, "k": left, "v": value, "t": None},
                {"p": shared, "k": right[shared:], "v": value, "t": None},
            ]
            block = kit.dag_cbor({"l": None, "e": entries})
            if left[:shared] == right[:shared] and shared == fixture["len"]:
                assert [key for key, _, _ in mst.parse(block, value.binary)[1]] == [left, right]
            elif left[:shared] == right[:shared]:
                with pytest.raises(InvalidRepositoryError, match="but could share more"):
                    mst.parse(block, value.binary)


@pytest.mark.parametrize("fixture", load("firehose/commit-proof-fixtures.json"), ids=lambda fixture: fixture["comment"])
def test_trees_of_the_commit_proofs(fixture):
    value = kit.cid_of(fixture["leafValue"])
    before = {key.encode(): value for key in fixture["keys"]}
    after = {key: value for key in before if key.decode() not in fixture["dels"]}
    after |= {key.encode(): value for key in fixture["adds"]}
    for keys, expected in ((before, fixture["rootBeforeCommit"]), (after, fixture["rootAfterCommit"])):
        blocks: kit.Blocks = {}
        root = kit.tree(keys, blocks)
        assert str(root) == expected
        assert list(mst.walk(root.binary, blocks.get)) == [(key, value.binary) for key in sorted(keys)]
    assert {kit.cid_of(text).binary for text in fixture["blocksInProof"]} <= blocks.keys()


@pytest.mark.parametrize("fixture", load("data-model/data-model-fixtures.json"), ids=lambda fixture: fixture["cid"])
def test_data_model_in_json_and_in_cbor(fixture):
    encoded = base64.b64decode(fixture["cbor_base64"] + "==")
    value = cbor.decode(encoded, "fixture")
    assert str(kit.cid(encoded)) == fixture["cid"]
    assert data_model.to_json(value) == fixture["json"]
    assert data_model.from_json(fixture["json"]) == value
    assert cbor.encode(data_model.from_json(fixture["json"])) == encoded


@pytest.mark.parametrize("fixture", load("data-model/data-model-valid.json"), ids=lambda fixture: fixture["note"])
def test_data_model_accepts(fixture):
    value = data_model.from_json(fixture["json"])
    assert cbor.decode(cbor.encode(value), "fixture") == value


@pytest.mark.parametrize("fixture", load("data-model/data-model-invalid.json"), ids=lambda fixture: fixture["note"])
def test_data_model_refuses(fixture):
    with pytest.raises(InvalidRepositoryError):
        data_model.from_json(fixture["json"])


def test_cids_go_to_text_and_back():
    cid = kit.cid(b"a block")
    assert syntax.cid_text(cid.binary) == str(cid)
    assert syntax.cid_bytes(str(cid)) == cid.binary
    raw = kit.cid(b"a block", 0x55)
    assert syntax.cid_bytes(str(raw)) == raw.binary


@pytest.mark.parametrize("text", ["", "b", "bafy", "é" * 59, str(kit.cid(b"a", 0x70)), str(kit.cid(b"")).upper()])
def test_other_cids_are_not_read(text):
    with pytest.raises(InvalidRepositoryError, match="not a CID"):
        syntax.cid_bytes(text)


def test_a_cid_with_stray_bits_at_its_end_is_not_read():
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    text = str(kit.cid(b"a block"))
    stray = text[:-1] + digits[digits.index(text[-1]) + 1]
    with pytest.raises(InvalidRepositoryError, match=re.escape(stray)):
        syntax.cid_bytes(stray)
