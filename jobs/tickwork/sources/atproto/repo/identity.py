"""DID documents: where an account's repository is, how it calls itself, which key signs for it.

Sources: https://atproto.com/specs/did#did-documents, https://www.w3.org/TR/did-core/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import is_did, is_handle
from tickwork.sources.atproto.repo.keys import PublicKey
from tickwork.upstream.hosts import UNKNOWN, HostKey, InvalidHostError, host_key, server_of

_PDS = ("#atproto_pds", "AtprotoPersonalDataServer")
_KEY = "#atproto"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a DID document says. The handle is a claim that nobody has checked, None if there is no valid one.

    `pds` is an origin, in the one spelling that its server has here; None where the account has no server.
    """

    did: str
    pds: str | None
    handle: str | None
    key_type: str = ""
    key_text: str = ""

    @property
    def host(self) -> HostKey:
        """The account's server; UNKNOWN where it has none."""
        return host_key(self.pds) if self.pds else UNKNOWN

    def signing_key(self) -> PublicKey:
        """The key that signs the account's commits. Raises InvalidRepositoryError where there is none we can read."""
        if not self.key_text:
            raise InvalidRepositoryError(f"{self.did}: its document has no signing key")
        try:
            return PublicKey.from_method(self.key_type, self.key_text)
        except InvalidRepositoryError as error:
            raise InvalidRepositoryError(f"{self.did}: {error}") from error


def parse(document: object, did: str, *, allow_http: bool = False) -> Identity:
    """Read a DID document, as JSON gave it; `allow_http` is for servers of one's own.

    Of several services or keys of the right name the first counts. Raises InvalidRepositoryError for a document that is
    none or another account's, and for a server's address that is no https origin.
    """
    if not is_did(did):
        raise InvalidRepositoryError(f"{ascii(did)[:80]} is not a valid DID")
    if not isinstance(document, Mapping):
        raise InvalidRepositoryError(f"{did}: its document is not a JSON object")
    if document.get("id") != did:
        raise InvalidRepositoryError(f"{did}: its document is that of {ascii(document.get('id'))[:80]}")
    method = next((method for method in _objects(document, "verificationMethod") if _named(method, did, _KEY)), {})
    kind, text = method.get("type"), method.get("publicKeyMultibase")
    readable = isinstance(kind, str) and isinstance(text, str)
    return Identity(
        did=did,
        pds=_pds(document, did, allow_http),
        handle=_handle(document),
        key_type=str(kind) if readable else "",
        key_text=str(text) if readable else "",
    )


def _pds(document: Mapping[object, object], did: str, allow_http: bool) -> str | None:
    for service in _objects(document, "service"):
        if _named(service, did, _PDS[0]) and service.get("type") == _PDS[1]:
            return _origin(service.get("serviceEndpoint"), did, allow_http)
    return None


def _origin(url: object, did: str, allow_http: bool) -> str:
    problem = InvalidRepositoryError(f"{did}: its server's address is not an https origin: {ascii(url)[:200]}")
    if not isinstance(url, str) or not url.isascii():
        raise problem
    try:
        server = server_of(url)
    except InvalidHostError as error:
        raise problem from error
    schemes = ("https", "http") if allow_http else ("https",)
    if server.scheme not in schemes or urlsplit(url).path not in ("", "/") or "?" in url or "#" in url:
        raise problem
    return server.origin


def _handle(document: Mapping[object, object]) -> str | None:
    names = document.get("alsoKnownAs")
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and name.startswith("at://"):
            handle = name.removeprefix("at://")
            return handle.lower() if is_handle(handle) else None
    return None


def _objects(document: Mapping[object, object], name: str) -> Iterator[Mapping[object, object]]:
    items = document.get(name)
    return (item for item in items if isinstance(item, Mapping)) if isinstance(items, list) else iter(())


def _named(item: Mapping[object, object], did: str, name: str) -> bool:
    return item.get("id") in (name, did + name)
