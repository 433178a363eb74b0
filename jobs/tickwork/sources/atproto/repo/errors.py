"""The one error of everything that reads repositories."""

from __future__ import annotations


class InvalidRepositoryError(Exception):
    """What was read is no valid repository, commit, tree, key or DID document; the message says what, and where."""
