"""DID documents: server, handle and key of an account, and what is read of odd documents."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import identity
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.keys import PublicKey

ALICE = kit.Account()
CURVES = [ec.SECP256K1(), ec.SECP256R1()]


def document(**changes: object) -> dict:
    return {
        "id": kit.DID,
        "alsoKnownAs": ["https://example.org", "at://Alice.example.org", "at://other.example.org"],
        "verificationMethod": [
            {"id": "#other", "type": "Multikey", "publicKeyMultibase": "z1"},
            {"id": f"{kit.DID}#atproto", "type": "Multikey", "publicKeyMultibase": ALICE.multikey()},
        ],
        "service": [
            {"id": "#bsky_fg", "type": "BskyFeedGenerator", "serviceEndpoint": "https://feed.example.org"},
            {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example.org/"},
        ],
    } | changes


def pds(url: object) -> list:
    return [{"id": f"{kit.DID}#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": url}]


def method(kind: object, text: object) -> list:
    return [{"id": "#atproto", "type": kind, "publicKeyMultibase": text}]


def test_a_document_names_server_handle_and_key():
    read = identity.parse(document(), kit.DID)
    assert (read.pds, read.handle) == ("https://pds.example.org", "alice.example.org")
    assert str(read.signing_key()) == f"did:key:{ALICE.multikey()}"


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("compressed", [True, False])
def test_older_kinds_of_key_are_read(curve, compressed):
    account = kit.Account(curve=curve)
    kinds = {"secp256k1": "EcdsaSecp256k1VerificationKey2019", "secp256r1": "EcdsaSecp256r1VerificationKey2019"}
    text = "z" + kit.base58(account.point(compressed))
    read = identity.parse(document(verificationMethod=method(kinds[curve.name], text)), kit.DID)
    assert read.signing_key() == PublicKey.from_multikey(account.multikey())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Multikey", ""),
        ("Multikey", "z"),
        ("Multikey", "zQ3sh0"),
        ("Multikey", "u" + ALICE.multikey()[1:]),
        ("Multikey", ALICE.multikey()[:-1]),
        ("Multikey", ALICE.multikey() * 100_000),
        ("Multikey", "z" + kit.base58(b"\xe7\x01" + ALICE.point(compressed=False))),
        ("Multikey", "z" + kit.base58(b"\xe7\x01" + b"\x02" + b"\xff" * 32)),
        ("Multikey", "z" + kit.base58(b"\xed\x01" + bytes(32))),
        ("EcdsaSecp256k1VerificationKey2019", "z" + kit.base58(ALICE.point()[:-1])),
        ("EcdsaSecp256k1VerificationKey2019", "z" + kit.base58(b"\x04" + b"\x01" * 64)),
        ("EcdsaSecp256k1VerificationKey2019", "z1111"),
        ("Ed25519VerificationKey2020", ALICE.multikey()),
        (None, ALICE.multikey()),
        ("Multikey", 5),
        ("Multikey", "z\ud800é"),
    ],
)
def test_a_key_that_cannot_be_read_is_an_error_when_it_is_asked_for(kind, text):
    read = identity.parse(document(verificationMethod=method(kind, text)), kit.DID)
    assert read.pds
    with pytest.raises(InvalidRepositoryError, match=f"^{kit.DID}: ") as caught:
        read.signing_key()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text", ["did:web:example.org", "", "did:key:", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"]
)
def test_other_did_keys_are_refused(text):
    with pytest.raises(InvalidRepositoryError):
        PublicKey.from_did_key(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://pds.example.org",
        "https://",
        "https://user@pds.example.org",
        "https://pds.example.org/path",
        "pds.example.org",
        "https://pds.example.org?x",
        "https://pds.example.org/?",
        "https://pds.example.org#x",
        "ftp://pds.example.org",
        "",
        5,
        "https://pds.example.org:x",
        "https://pds.example.org:99999",
        "https://[::1",
        "https://pds .org",
        "https://é.org",
        "https://pds.example.org\\@evil.org",
        "https://pds%2eorg",
        "https://pds.example.org\n",
        None,
        "https://" + "a" * 300,
    ],
)
def test_a_server_that_is_no_https_origin_is_refused(url):
    with pytest.raises(InvalidRepositoryError, match=f"^{kit.DID}: its server's address is not an https origin"):
        identity.parse(document(service=pds(url)), kit.DID)


def test_servers_of_ones_own_may_be_http():
    read = identity.parse(document(service=pds("http://127.0.0.1:2583")), kit.DID, allow_http=True)
    assert read.pds == "http://127.0.0.1:2583"
    assert identity.parse(document(service=pds("https://[::1]:8/")), kit.DID).pds == "https://[::1]:8"


@pytest.mark.parametrize("odd", [None, 5, "text", {}, [], [None], [5, "x"], [{}], [{"id": 5}], {"id": "#atproto"}])
def test_a_document_without_the_parts_is_read_as_far_as_it_goes(odd):
    read = identity.parse(document(service=odd, verificationMethod=odd, alsoKnownAs=odd), kit.DID)
    assert (read.pds, read.handle) == (None, None)
    with pytest.raises(InvalidRepositoryError, match="its document has no signing key"):
        read.signing_key()


@pytest.mark.parametrize("content", [None, [], "text", {}, document(id="did:plc:other"), document(id=None)])
def test_another_accounts_document_is_refused(content):
    with pytest.raises(InvalidRepositoryError, match=f"^{kit.DID}: "):
        identity.parse(content, kit.DID)


def test_a_service_of_another_type_is_no_server():
    service = [pds("https://one.example.org")[0] | {"type": "Other"}, *pds("https://two.example.org")]
    assert identity.parse(document(service=service), kit.DID).pds == "https://two.example.org"


def test_an_invalid_handle_is_none():
    assert identity.parse(document(alsoKnownAs=["at://-x", "at://fine.example.org"]), kit.DID).handle is None


def test_what_is_no_did_has_no_document():
    with pytest.raises(InvalidRepositoryError, match="is not a valid DID"):
        identity.parse(document(), "alice")
