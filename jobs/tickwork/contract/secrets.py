"""Passwords and keys, out of files that nobody else can read; never out of arguments, which everybody can."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from tickwork.contract.outcomes import OperatorError

MAX_BYTES = 64 * 1024
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd puts the credentials of a unit (LoadCredential=), readable for it alone: systemd.exec(5)."""


def read_secret(key: str, named: str) -> str:
    """The secret that the settings' `key` names: by the absolute path of a file, or as a credential of the unit.

    A file must be ours, with no right for anybody else (mode 0600, or less), and no link. One newline at its end is not
    part of the secret. Raises OperatorError, which never shows the content.
    """
    is_file = named.startswith("/")
    path = Path(named) if is_file else _credential(key, named)
    try:
        # Not through a link, and without waiting for whoever might write to a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror
        raise OperatorError(f"{key}: cannot read the secret in {path}: {why}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OperatorError(f"{key}: {path} is not a regular file")
        if is_file:
            _check_rights(key, path, found)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise OperatorError(f"{key}: {path} has more than {MAX_BYTES} bytes, too many for a secret")
    try:
        secret = content.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        # Without its cause, which would show what was read.
        raise OperatorError(f"{key}: the secret in {path} is not UTF-8 text") from None
    if not secret:
        raise OperatorError(f"{key}: the secret in {path} is empty")
    return secret


def _credential(key: str, name: str) -> Path:
    folder = os.environ.get(CREDENTIALS, "")
    if not name or "/" in name or name in (".", ".."):
        raise OperatorError(f"{key}: {name!r} is neither an absolute path nor the name of a credential")
    if not folder:
        raise OperatorError(
            f"{key}: there is no credential {name!r} outside a unit that loads it (LoadCredential={name}:FILE); "
            "name a file by its absolute path instead"
        )
    return Path(folder) / name


def _check_rights(key: str, path: Path, found: os.stat_result) -> None:
    """Raise OperatorError for a file that somebody else may read or write."""
    if found.st_uid != os.geteuid():
        raise OperatorError(
            f"{key}: {path} belongs to user {found.st_uid}, and this runs as {os.geteuid()}. "
            f"Run: chown {os.geteuid()} {shlex.quote(str(path))}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise OperatorError(
            f"{key}: {path} has mode {mode:04o}, so others can read or change the secret. "
            f"Run: chmod 0600 {shlex.quote(str(path))}"
        )
