"""The OAI-PMH client: one request, one answer; what an answer means for the pass is decided here once.

403, challenges and other unexpected statuses end the pass for a human: an OAI-PMH server has one address, and asking
on after a refusal is what gets a harvester banned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tickwork.contract.outcomes import Halt, OperatorError
from tickwork.sources.doab import response
from tickwork.sources.doab.errors import BadAnswer
from tickwork.sources.doab.response import Identity, Page, Record
from tickwork.sources.doab.settings import DoabSettings
from tickwork.upstream.http.errors import Forbidden, TooLarge, UnexpectedStatus, UnsafeUrl
from tickwork.upstream.http.session import Upstream


class OaiClient:
    """One repository, through one polite `upstream`; raises Held, Transient and Halt as the contract has them."""

    def __init__(self, upstream: Upstream, settings: DoabSettings) -> None:
        self._upstream = upstream
        self.base_url = settings.base_url
        self._prefix = settings.prefix
        self._set = settings.set

    def identify(self) -> Identity:
        """What the server says of itself."""
        return response.identity(self._get({"verb": "Identify"}), self.base_url)

    def page(self, verb: str, first: str, last: str, token: str) -> tuple[Page, int]:
        """The list's next page, and its size in bytes: by `token`, or else the first of the window [first, last].

        Raises OaiError for the protocol's errors, Unreadable for what is no whole answer.
        """
        if token:
            parameters = {"verb": verb, "resumptionToken": token}
        else:
            parameters = {"verb": verb, "metadataPrefix": self._prefix, "from": first, "until": last}
            if self._set:
                parameters["set"] = self._set
        body = self._get(parameters)
        return response.page(body, verb, self.base_url), len(body)

    def record(self, identifier: str) -> tuple[Record, int]:
        """One record and its size in bytes. Raises OaiError (idDoesNotExist, ...), Unreadable."""
        body = self._get({"verb": "GetRecord", "metadataPrefix": self._prefix, "identifier": identifier})
        return response.record(body, f"{self.base_url} for {identifier}"), len(body)

    def _get(self, parameters: dict[str, str]) -> bytes:
        with _for_a_human():
            return self._upstream.get(self.base_url, params=parameters, accept="text/xml, application/xml").content


@contextmanager
def _for_a_human() -> Iterator[None]:
    try:
        yield
    except Forbidden as refusal:
        what = "a challenge page" if refusal.challenge else "a refusal"
        raise Halt(f"{refusal} ({what}). Ask the repository's operator before re-arming") from refusal
    except (UnexpectedStatus, TooLarge) as answer:
        raise BadAnswer(f"{answer}. Check base_url and the server before re-arming") from answer
    except UnsafeUrl as url:
        raise OperatorError(str(url)) from url
