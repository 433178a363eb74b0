"""What is asked of the network: DID documents, and repositories. These functions run in threads and store nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from tickwork.contract.outcomes import Held, Transient
from tickwork.sources.atproto.errors import DirectoryDown, DirectoryHeld, Fault, Gone, Unresolved
from tickwork.sources.atproto.repo import identity as identities
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import is_tid
from tickwork.sources.atproto.repo.identity import Identity
from tickwork.upstream.hosts import host_key
from tickwork.upstream.http.challenge import is_html
from tickwork.upstream.http.errors import Forbidden, TooLarge, UnexpectedStatus, UnsafeUrl
from tickwork.upstream.http.response import Response
from tickwork.upstream.http.session import Upstream

MAX_DOCUMENT_BYTES = 256 * 1024
_ERROR_BYTES = 64 * 1024
_ERROR_STATUSES = (400, 401, 404, 410)
"""Statuses under which servers name an error of the protocol (403 and 429 are the session's to read)."""
GONE_ERRORS = {
    "RepoNotFound": "deleted",
    "RepoDeactivated": "deactivated",
    "RepoTakendown": "takendown",
    "RepoSuspended": "suspended",
}


class XrpcClient:
    """The directories and servers, as one deployment may reach them.

    `private` is for networks of one's own, where servers may speak http. Every method raises Interrupted, OperatorError
    (the slots cannot be written) and Held besides what it says.
    """

    def __init__(self, plc: Upstream, pds: Upstream, directories: Sequence[str], *, private: bool) -> None:
        self._plc = plc
        self._pds = pds
        self._directories = [url.rstrip("/") for url in directories]
        self._private = private

    def close(self) -> None:
        """Close all connections, also those in use."""
        self._plc.close()
        self._pds.close()

    def resolve(self, did: str) -> Identity:
        """The document of an account, asked for anew. Raises Unresolved, Gone, DirectoryDown."""
        try:
            return self._resolve(did)
        except Fault as fault:
            raise Unresolved(fault.kind, str(fault)) from fault

    def _resolve(self, did: str) -> Identity:
        if did.startswith("did:plc:"):
            answer = self._from_directories(did)
        elif did.startswith("did:web:"):
            answer = _asking(lambda: self._get_document(self._pds, self._well_known(did)))
        else:
            raise Fault("generic", f"{did.split(':')[1][:40]!r} is not a supported DID method: use plc or web")
        if answer.status == 410:
            raise Gone("tombstoned", f"{host_key(answer.url)} says that {did} is deleted")
        if answer.status == 404:
            raise Fault("generic", f"{host_key(answer.url)} does not know {did}")
        try:
            document = json.loads(answer.content)
            return identities.parse(document, did, allow_http=self._private)
        except (ValueError, RecursionError) as error:
            raise Fault("generic", f"the DID document of {did} is not JSON: {error}"[:300]) from error
        except InvalidRepositoryError as error:
            raise Fault("generic", str(error)) from error

    def newest_rev(self, identity: Identity) -> str:
        """The rev that the server has; empty where it does not say. Raises Fault, Gone."""
        url = self._method(identity, "getLatestCommit")
        answer = _asking(
            lambda: self._pds.get(
                url, params={"did": identity.did}, ok_statuses=(200, *_ERROR_STATUSES, 501), max_bytes=_ERROR_BYTES
            )
        )
        _check_error(answer, answer.content, identity.did)
        try:
            rev = json.loads(answer.content).get("rev", "")
        except (ValueError, RecursionError, AttributeError):
            return ""  # it is only to spare both sides a transfer
        return rev if answer.status == 200 and isinstance(rev, str) and is_tid(rev) else ""

    def fetch(self, identity: Identity, into: Path) -> int:
        """Have the repository's CAR file written to `into`; gives the bytes received. Raises Fault, Gone."""
        url = self._method(identity, "getRepo")
        answer = _asking(
            lambda: self._pds.get(
                url,
                params={"did": identity.did},
                accept="application/vnd.ipld.car",
                into=into,
                ok_statuses=(200, *_ERROR_STATUSES),
            )
        )
        if answer.status != 200:
            with into.open("rb") as file:
                said = file.read(_ERROR_BYTES)
            into.unlink()
            name = _check_error(answer, said, identity.did)
            raise Fault("generic", f"{host_key(url)} answered {answer.status} {name}".rstrip())
        if is_html(answer.headers):
            into.unlink()
            raise Fault("generic", f"{host_key(url)} answered with an HTML page instead of a repository")
        return answer.bytes

    def _method(self, identity: Identity, name: str) -> str:
        if identity.pds is None:
            raise Fault("generic", f"the DID document of {identity.did} does not name a server")
        return f"{identity.pds}/xrpc/com.atproto.sync.{name}"

    def _well_known(self, did: str) -> str:
        name = did.removeprefix("did:web:")
        host = unquote(name)
        # Paths are not in use with this protocol; a port only on machines of one's own.
        if ":" in name or not (self._private or ":" not in host) or "/" in host or "@" in host:
            raise Fault("generic", f"{did} is not a did:web with just a host name")
        return f"{'http' if ':' in host else 'https'}://{host}/.well-known/did.json"

    def _from_directories(self, did: str) -> Response:
        """Ask the directories one after the other; one that wants silence, or fails, is passed over."""
        holds: list[Held] = []
        fault = ""
        for url in self._directories:
            try:
                answer = self._get_document(self._plc, f"{url}/{did}")
            except Held as held:
                holds.append(held)
            except (Transient, Forbidden, UnsafeUrl) as error:
                fault = str(error)
            except (UnexpectedStatus, TooLarge) as error:
                # It works, and has something against this account: that is no outage.
                raise Fault("generic", str(error)) from error
            else:
                if answer.status != 200 or answer.content.lstrip().startswith(b"{"):
                    return answer
                fault = f"{host_key(url)} did not answer with a DID document"
        if holds:
            raise DirectoryHeld(min(holds, key=lambda held: held.until))
        raise DirectoryDown(fault or "no directory of did:plc is configured")

    def _get_document(self, upstream: Upstream, url: str) -> Response:
        return upstream.get(url, accept="application/json", ok_statuses=(200, 404, 410), max_bytes=MAX_DOCUMENT_BYTES)


def _asking(ask: Callable[[], Response]) -> Response:
    """Ask a server out of a document; what the session says of it, in terms of the account."""
    try:
        return ask()
    except Transient as error:
        raise Fault("transport", str(error)) from error
    except (Forbidden, UnexpectedStatus, UnsafeUrl, TooLarge) as error:
        raise Fault("generic", str(error)) from error


def _check_error(answer: Response, said: bytes, did: str) -> str:
    """The name of the error in an answer that is one, empty for another. Raises Gone for those that say so."""
    if answer.status == 200:
        return ""
    try:
        error = json.loads(said)
        name = error.get("error", "") if isinstance(error, dict) else ""
    except (ValueError, RecursionError):
        return ""
    if not isinstance(name, str):
        return ""
    if name in GONE_ERRORS:
        raise Gone(GONE_ERRORS[name], f"{host_key(answer.url)} answered {name} for {did}")
    return ascii(name)[1:-1][:80]
