"""Public keys as DID documents write them, and the signatures of commits.

Sources: https://atproto.com/specs/cryptography, https://atproto.com/specs/did#public-keys; the older kinds of key are
those of https://w3id.org/security/suites (ecdsa-2019, secp256k1-2019) as documents of before 2023 have them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tickwork.sources.atproto.repo.errors import InvalidRepositoryError

MAX_TEXT = 200
"""Characters of a key's text; an uncompressed key has 89."""

_BASE58 = {digit: value for value, digit in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}
_COMPRESSED, _UNCOMPRESSED = 33, 65
_DID_KEY = "did:key:"


@dataclass(frozen=True, slots=True)
class _Curve:
    """A curve: how a Multikey and a document of before 2023 name it, and the order of its group."""

    curve: ec.EllipticCurve
    multicodec: bytes
    older_type: str
    order: int


_K256 = _Curve(
    ec.SECP256K1(),
    b"\xe7\x01",
    "EcdsaSecp256k1VerificationKey2019",
    0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141,
)
_P256 = _Curve(
    ec.SECP256R1(),
    b"\x80\x24",
    "EcdsaSecp256r1VerificationKey2019",
    0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551,
)


class PublicKey:
    """A point of k256 or p256. Equal keys are equal however they were written."""

    def __init__(self, curve: _Curve, point: bytes, text: str) -> None:
        self._curve = curve
        try:
            self._key = ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, point)
        except ValueError as error:
            raise InvalidRepositoryError(f"the key {text[:MAX_TEXT]!a} is not a point of {curve.curve.name}") from error

    @classmethod
    def from_did_key(cls, text: str) -> PublicKey:
        """Read `did:key:z...`. Raises InvalidRepositoryError."""
        if not text.startswith(_DID_KEY):
            raise InvalidRepositoryError(f"{text[:MAX_TEXT]!r} is not a did:key")
        return cls.from_multikey(text.removeprefix(_DID_KEY))

    @classmethod
    def from_multikey(cls, text: str) -> PublicKey:
        """Read a Multikey: `z`, then in base58 the curve's multicodec and the compressed point."""
        data = _multibase(text)
        for curve in (_K256, _P256):
            if data.startswith(curve.multicodec) and len(data) == 2 + _COMPRESSED:
                return cls(curve, data[2:], text)
        raise InvalidRepositoryError(f"the key {text} is not a compressed point of k256 or p256")

    @classmethod
    def from_method(cls, kind: str, text: str) -> PublicKey:
        """Read the `publicKeyMultibase` of a verification method of this type. Raises InvalidRepositoryError."""
        if kind == "Multikey":
            return cls.from_multikey(text)
        for curve in (_K256, _P256):
            if kind == curve.older_type:
                data = _multibase(text)
                if len(data) not in (_COMPRESSED, _UNCOMPRESSED):
                    raise InvalidRepositoryError(f"the key {text} is not a point of {curve.curve.name}")
                return cls(curve, data, text)
        raise InvalidRepositoryError(f"unknown key type {kind[:MAX_TEXT]!a}")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether this key signed the message: ECDSA of its sha256; the signature is 64 bytes, r and s, s low."""
        if len(signature) != 64:
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if not 0 < r < self._curve.order or not 0 < s <= self._curve.order // 2:
            return False
        try:
            self._key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        point = self._key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        return _DID_KEY + "z" + _base58(self._curve.multicodec + point)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _multibase(text: str) -> bytes:
    """The bytes of a text in multibase, of which documents use base58btc alone."""
    shown = ascii(text[:MAX_TEXT])
    if not text.startswith("z") or len(text) > MAX_TEXT:
        raise InvalidRepositoryError(f"the key {shown} is not in base58")
    number = 0
    for digit in text[1:]:
        if digit not in _BASE58:
            raise InvalidRepositoryError(f"the key {shown} is not in base58")
        number = number * 58 + _BASE58[digit]
    zeros = len(text) - 1 - len(text[1:].lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _base58(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    alphabet = "".join(_BASE58)
    while number:
        number, rest = divmod(number, 58)
        digits = alphabet[rest] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits
