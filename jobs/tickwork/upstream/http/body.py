"""Reads the body of an answer, whole or not at all, within a cap on what comes in and on what it unpacks to.

The HTTP library must not decode: it unpacks a chunk without bound, and 64 kB can become 64 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError
from tickwork.upstream.http.content_encoding import ACCEPT_ENCODING, CHUNK_BYTES, DECODERS
from tickwork.upstream.http.errors import Incomplete, TooLarge, Undecodable


class RawBody(Protocol):
    """The undecoded body of an answer, as urllib3 gives it."""

    def read(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """Up to `amt` bytes; none at the end."""


class Body:
    """The body of one answer: `raw` as sent with `headers`, of which at most `max_bytes` may come out.

    `is_cut` tells whether we shut the connection down ourselves, so that its end is not the body's. `wire_bytes` is
    what came in so far, before decoding. Iterate once.
    """

    def __init__(
        self, raw: RawBody, headers: Mapping[str, str], max_bytes: int, is_cut: Callable[[], bool] = lambda: False
    ) -> None:
        self._raw = raw
        self._headers = headers
        self._max_bytes = max_bytes
        self._is_cut = is_cut
        self.wire_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        """The decoded body in pieces of at most 64 KiB; raises TooLarge, Incomplete or Undecodable."""
        self._check_length()
        encoding = self._headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("", "identity"):
            pieces = self._wire()
        elif decode := DECODERS.get(encoding):
            pieces = decode(self._wire())
        else:
            raise Undecodable(f"its Content-Encoding is {encoding[:40]!r}, we asked for {ACCEPT_ENCODING}")
        decoded = 0
        for piece in pieces:
            decoded += len(piece)
            if decoded > self._max_bytes:
                raise TooLarge(f"it decodes to more than {self._max_bytes} bytes")
            yield piece

    def read(self) -> bytes:
        """The whole decoded body."""
        return b"".join(self)

    def save(self, path: Path) -> None:
        """Write the whole decoded body to `path`, which only ever holds a complete one.

        Raises OperatorError when the file cannot be written.
        """
        try:
            # It need not last: what was fetched when the power went is fetched again.
            with files.whole(path, lasts=False) as partial, partial.open("wb") as file:
                file.writelines(self)
        except OSError as error:
            raise OperatorError(f"cannot write {path}: {error}") from error

    def _check_length(self) -> None:
        transfer = self._headers.get("Transfer-Encoding")
        if transfer is not None and transfer.lower() != "chunked":
            raise Undecodable(f"its Transfer-Encoding is {transfer[:40]!r}")
        length = self._headers.get("Content-Length")
        if length is None or transfer is not None:
            return
        if not (length.isascii() and length.isdigit()):
            raise Incomplete(f"its Content-Length is {length[:40]!r}")
        if int(length[:20]) > self._max_bytes:
            raise TooLarge(f"it has more than {self._max_bytes} bytes: its Content-Length is {length[:40]}")

    def _wire(self) -> Iterator[bytes]:
        """The body as sent; the library's faults become Incomplete, so that no OSError of a socket leaves here."""
        while True:
            try:
                piece = self._raw.read(CHUNK_BYTES, decode_content=False)
            except (HTTPError, RequestException, OSError) as error:
                raise Incomplete(f"it broke off after {self.wire_bytes} bytes: {error}") from error
            if not piece:
                if self._is_cut():
                    raise Incomplete(f"it was cut off after {self.wire_bytes} bytes")
                return
            self.wire_bytes += len(piece)
            if self.wire_bytes > self._max_bytes:
                raise TooLarge(f"it has more than {self._max_bytes} bytes")
            yield piece
