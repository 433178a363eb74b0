"""What can come of an account, or of a pass, other than a repository that is stored.

Of one account, which the queue is told of:

    Fault                 not this time, by its kind
      Unresolved          it was the document
    Gone                  there is no repository to be had
    Unwanted              it has no record that makes it count
    Removed               an operator took it out meanwhile
    repo.errors.InvalidRepositoryError    what was read of it is not valid

Of no account:

    DirectoryDown         no directory of did:plc answers
      DirectoryHeld       they want silence
    Transient             of the contract: the next tick may find it gone
      Paused              enough repositories wait to be fetched
"""

from __future__ import annotations

from typing import Literal

from tickwork.contract.outcomes import Held, Transient

Kind = Literal["ratelimited", "transport", "generic"]


class Fault(Exception):  # noqa: N818 - what went wrong with one account
    """An account's document or repository could not be had, this time."""

    def __init__(self, kind: Kind, why: str) -> None:
        super().__init__(why)
        self.kind: Kind = kind


class Unresolved(Fault):
    """It was the document: nothing was asked of the account's server."""


class Gone(Exception):  # noqa: N818 - a state of the account
    """There is no repository to be had: `status` is deactivated, takendown, suspended, deleted or tombstoned."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Unwanted(Exception):  # noqa: N818 - says what it is
    """The repository has no record that makes it count."""


class Removed(Exception):  # noqa: N818 - it was taken out of the store, which is nobody's error
    """The repository was removed while it was fetched."""


class DirectoryDown(Exception):  # noqa: N818 - says what is the matter
    """No directory of did:plc answers: the fault of none of the accounts."""


class DirectoryHeld(DirectoryDown):
    """The directories of did:plc want silence until `until`."""

    def __init__(self, held: Held) -> None:
        super().__init__(str(held))
        self.held = held


class Paused(Transient):
    """Enough repositories wait to be fetched."""
