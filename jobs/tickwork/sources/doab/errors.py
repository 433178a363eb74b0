"""What an OAI-PMH server can answer instead of what it was asked for.

Transient             of the contract: the next tick may find it gone
Unreadable          no whole answer
Halt                  of the contract: a human must look
BadAnswer           an answer that no OAI-PMH server gives
OaiError              an error of the protocol, by its code
"""

from __future__ import annotations

from tickwork.contract.outcomes import Halt, Transient


class Unreadable(Transient):
    """An answer that is no OAI-PMH document: cut off, an HTML page, an error page, broken XML."""


class BadAnswer(Halt):
    """An answer no OAI-PMH server gives: an unexpected status, or a body beyond all bounds."""


class OaiError(Exception):
    """The server answered with an `<error>`; `code` is one of the protocol's (noRecordsMatch, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
