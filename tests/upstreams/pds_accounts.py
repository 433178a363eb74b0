"""Accounts of the fake network: records, signed revisions of them, and the documents that say who they are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from threading import RLock
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.kits import atproto as kit
from tests.upstreams.pds_records import EPOCH_MICROSECONDS, edited, generated, tid

STATUSES = ("active", "deactivated", "takendown", "suspended", "deleted", "tombstoned")
GONE = ("deleted", "tombstoned")
KEY_FORMS = ("Multikey", "older", "older-uncompressed")
_OLDER = {"secp256k1": "EcdsaSecp256k1VerificationKey2019", "secp256r1": "EcdsaSecp256r1VerificationKey2019"}
_CURVES: dict[str, ec.EllipticCurve] = {"secp256k1": ec.SECP256K1(), "secp256r1": ec.SECP256R1()}
# Making a key takes milliseconds, so accounts share a few. It is also stricter: of some repositories that are another
# account's only the DID tells.
_KEYS_A_CURVE = 8


@dataclass
class Signer(kit.Account):
    """What signs for an account: the same signature for the same commit every time."""

    def sign(self, message: bytes) -> bytes:
        """The signature of a message: r and s, s low."""
        r, s = self.numbers(message)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def numbers(self, message: bytes) -> tuple[int, int]:
        """The two numbers of a signature, the second low."""
        private = _private(self.secret, self.curve.name)
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r, min(s, kit.ORDERS[self.curve.name] - s)

    def point(self, compressed: bool = True) -> bytes:
        """The public key's point."""
        form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
        return _private(self.secret, self.curve.name).public_key().public_bytes(Encoding.X962, form)


@cache
def _private(secret: int, curve: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(secret, _CURVES[curve])


def signer(did: str, curve: str, number: int) -> Signer:
    """One of the signers, for this account."""
    return Signer(did, _CURVES[curve], int.from_bytes(sha256(f"key {number % _KEYS_A_CURVE}".encode()).digest()[:31]))


@dataclass(frozen=True)
class Revision:
    """A signed state of a repository. `encoded` caches the CAR file's encoded forms."""

    rev: str
    head: str
    car: bytes
    encoded: dict[str, bytes] = field(default_factory=dict)


class FakeAccount:
    """An account; everything about it follows from its DID and the seed. Change it through the network.

    A record is a value, or bytes that are its encoding.

    `home` is the URL of its host, `host` that host's name. `key_form` is how its document writes the key. `delivered`
    is the newest rev that a client got whole and sound, empty if none did.
    """

    def __init__(
        self, did: str, handle: str, seed: int, lock: RLock, *, count: int, curve: str, records: Any = None
    ) -> None:
        self._rng = rng = random.Random(f"{seed} {did}")
        self._lock = lock
        self._count = count
        self._given: dict[str, Any] | None = records
        self.did, self.handle = did, handle
        self.host = self.home = ""
        self.status = "active"
        self.key = signer(did, curve, rng.randrange(_KEYS_A_CURVE))
        self.key_form = rng.choices(KEY_FORMS, (6, 1, 1))[0]
        self._labels = rng.random() < 0.1
        self._moment = self._first = EPOCH_MICROSECONDS + rng.randrange(86_400_000_000 * 300)
        self._clock = rng.randrange(1024)
        self._revision: Revision | None = None
        self.delivered = ""

    @cached_property
    def _records(self) -> dict[str, Any]:
        if self._given is not None:
            return dict(self._given)
        return generated(random.Random(f"records {self.did} {self._first}"), self._count)

    @property
    def records(self) -> Mapping[str, Any]:
        """The current records by path, to be read only."""
        return MappingProxyType(self._records)

    @property
    def rev(self) -> str:
        """The current rev, a TID of the past."""
        return tid(self._moment, self._clock)

    @property
    def older_rev(self) -> str:
        """A rev of before the account's first."""
        return tid(self._first - 86_400_000_000, self._clock)

    @property
    def head(self) -> str:
        """The CID of the current commit."""
        return self.revision().head

    def revision(self) -> Revision:
        """The current revision, made once."""
        with self._lock:
            if self._revision is None:
                records: dict[str | bytes, Any] = dict(self._records.items())
                root, blocks = self.key.written(records, rev=self.rev)
                self._revision = Revision(self.rev, str(root), kit.car(root, blocks.items()))
            return self._revision

    def is_made(self) -> bool:
        """Whether the current revision is made already."""
        return self._revision is not None

    def note_delivered(self, rev: str) -> None:
        """A client has got this rev."""
        self.delivered = max(self.delivered, rev)

    def edit(self, puts: Mapping[str, Any], deletes: Iterable[str]) -> None:
        """Write and delete records in one commit. Raises KeyError where there is nothing to delete."""
        with self._lock:
            records = {**self._records}
            for path in deletes:
                del records[path]
            self._records.clear()
            self._records.update(records | dict(puts))
            self.commit_again()

    def edit_at_random(self) -> None:
        """Write, change or delete some record."""
        with self._lock:
            paths = list(self._records)
            path = self._rng.choice(paths) if paths else ""
            roll = self._rng.random()
            if not path or roll < 0.5:
                self.edit(generated(self._rng, 1), ())
            elif roll < 0.75:
                self.edit({path: edited(self._rng, self._records[path])}, ())
            else:
                self.edit({}, [path])

    def rotate_key(self) -> None:
        """Take another key of the same curve, and sign with it."""
        with self._lock:
            for number in range(_KEYS_A_CURVE):
                other = signer(self.did, self.key.curve.name, number)
                if other.secret != self.key.secret:
                    self.key = other
                    break
            self.commit_again()

    def commit_again(self) -> None:
        """A new rev of the current records."""
        with self._lock:
            self._moment += self._rng.randrange(1, 60_000_000)
            self._revision = None

    def truth(self) -> dict[str, str]:
        """The CID of each record, by path; nothing for a deleted account."""
        with self._lock:
            if self.status in GONE:
                return {}
            values = (
                (path, kit.Verbatim(value) if isinstance(value, bytes) else value)
                for path, value in self._records.items()
            )
            return {path: str(kit.cid(kit.dag_cbor(value))) for path, value in values}

    def document(self) -> dict[str, Any]:
        """The DID document."""
        kind, text = self._method()
        service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": self.home}
        labels = {"id": "#atproto_labeler", "type": "AtprotoLabeler", "serviceEndpoint": "https://labels.example"}
        return {
            "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
            "id": self.did,
            "alsoKnownAs": [f"at://{self.handle}"],
            "verificationMethod": [
                {"id": f"{self.did}#atproto", "type": kind, "controller": self.did, "publicKeyMultibase": text}
            ],
            "service": [labels, service] if self._labels else [service],
        }

    def document_bytes(self) -> bytes:
        """The DID document as JSON."""
        with self._lock:
            return json.dumps(self.document()).encode()

    def _method(self) -> tuple[str, str]:
        """The type and the text of the signing key."""
        if self.key_form == "Multikey":
            return "Multikey", self.key.multikey()
        return _OLDER[self.key.curve.name], "z" + kit.base58(self.key.point(self.key_form == "older"))
