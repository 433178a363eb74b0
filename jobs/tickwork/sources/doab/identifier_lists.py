"""Snapshots: the identifiers a crawl found, in files that any machine may use instead of crawling again.

A snapshot is two files, NAME.active and NAME.deleted. The first line tells what it is, how many lines follow and their
SHA-256, so a file that was cut off on its way is refused instead of being taken for a short list. Each further line
is an identifier, a tab, and its datestamp, in the order of the repository's own numbers: the same crawl gives the same
bytes everywhere. A bare list of identifiers, one a line, is read as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError

_MARK = b"# tickwork identifiers "
_HEAD = re.compile(r"# tickwork identifiers v1 source=(\S+) crawled=(\S+) count=(\d+) sha256=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class IdentifierList:
    """One file of identifiers; `crawled` and `source` are empty for a bare list, datestamps then too."""

    identifiers: Mapping[str, str]
    digest: str
    """SHA-256 of the lines, the same for the same identifiers."""
    crawled: str = ""
    source: str = ""


def order_key(pattern: re.Pattern[str], identifier: str) -> tuple[int, str]:
    """Sort key by the repository's own number where the pattern finds one; higher numbers are newer records."""
    match = pattern.fullmatch(identifier)
    number = match.groupdict().get("number") if match else None
    return int(number) if number else 0, identifier


def write(
    path: Path, listed: Iterable[tuple[str, str]], pattern: re.Pattern[str], *, source: str, crawled: str
) -> None:
    """Write identifiers and datestamps to `path`: whole or not at all, also when killed."""
    body = "".join(
        f"{identifier}\t{datestamp}\n"
        for identifier, datestamp in sorted(listed, key=lambda row: order_key(pattern, row[0]))
    ).encode()
    count = body.count(b"\n")
    head = f"# tickwork identifiers v1 source={source} crawled={crawled} count={count} sha256={_digest(body)}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(path) as partial:
            partial.write_bytes(head.encode() + body)
    except OSError as error:
        raise OperatorError(f"cannot write the snapshot {path}: {error.strerror}") from error


def read(path: Path) -> IdentifierList:
    """Read a snapshot or a bare list. Raises OperatorError for a damaged, empty or unreadable file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"cannot read the identifiers in {path}: {error.strerror}") from error
    head, _, body = content.partition(b"\n")
    match = _HEAD.fullmatch(head.decode("utf-8", errors="replace"))
    crawled = source = ""
    if match:
        source, crawled = match[1], match[2]
        if body.count(b"\n") != int(match[3]) or _digest(body) != match[4]:
            raise OperatorError(
                f"{path} is damaged or was cut off: it should have {match[3]} identifiers; copy it again"
            )
    elif head.startswith(_MARK):
        raise OperatorError(f"{path} is damaged or was cut off in its first line; copy it again")
    else:
        body = content
    try:
        lines = [line.strip() for line in body.decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path} is not a list of identifiers: {error}") from error
    pairs = (line.partition("\t") for line in lines if line and not line.startswith("#"))
    return IdentifierList(
        {identifier.strip(): stamp.strip() for identifier, _, stamp in pairs}, _digest(body), crawled, source
    )


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
