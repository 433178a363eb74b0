"""What can go wrong with a request.

Besides Held, Interrupted and OperatorError of the contract a session raises:

    Transient             of the contract: the next tick may find it gone
      ServerFault         a 5xx
    Forbidden             only a human can mend it
    UnexpectedStatus      an answer that was not asked for
    UnsafeUrl             refused by us, before anything was sent
    TooLarge              a limit of ours

Two never leave the session, which tries again, or says Transient:

    Incomplete            the body is not whole
    Undecodable           the body is in a coding that we did not ask for
"""

from __future__ import annotations

import re

from tickwork.contract.outcomes import Transient

MAX_SHOWN_CHARACTERS = 200
_SECRET = re.compile(
    r"([?&](?:[^=&]*[_-])?(?:api_?key|key|token|secret|password|passwd|pass|auth|sig|signature)=)[^&#]*", re.I
)


class ServerFault(Transient):
    """A 5xx other than 503: the server is at fault, and may have recovered by the next tick."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Forbidden(Exception):  # noqa: N818 - the server's own word
    """A 403, or with `challenge` a page that wants to see a human: only a human can mend it."""

    def __init__(self, message: str, status: int, *, challenge: bool) -> None:
        super().__init__(message)
        self.status = status
        self.challenge = challenge


class UnexpectedStatus(Exception):  # noqa: N818 - names what came
    """An answer whose status the caller did not allow, or a redirect that leads nowhere."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnsafeUrl(Exception):  # noqa: N818 - a refusal, not a fault
    """A URL we do not call; the message names it, the reason and, where one exists, the way to allow it."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"refused {shown(url)}: {why}")
        self.url = url
        self.why = why


class TooLarge(Exception):  # noqa: N818 - a limit of ours, not a fault
    """The body is larger than allowed, as sent or once decoded."""


class Incomplete(Exception):  # noqa: N818 - named for what the body is
    """The body ended before its end, or what came is not what it says it is."""


class Undecodable(Exception):  # noqa: N818 - named for what the body is
    """The body is encoded in a way we did not ask for."""


def shown(url: str) -> str:
    """`url` as it may stand in a message: no user, password or secret, nothing unprintable, not too long."""
    url = re.sub(r"^([^/?#]*//)[^/?#]*@", r"\1", url[: 4 * MAX_SHOWN_CHARACTERS])
    url = _SECRET.sub(r"\1…", url)
    url = "".join(character if character.isprintable() else "�" for character in url)
    return url if len(url) <= MAX_SHOWN_CHARACTERS else url[: MAX_SHOWN_CHARACTERS - 1] + "…"
