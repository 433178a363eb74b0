"""Reads the body of an answer, whole or not at all, within a cap on what comes in and on what it unpacks to.

The HTTP library must not decode: it unpacks a chunk without bound, and 64 kB can become 64 MB.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from tickwork.contract.outcomes import OperatorError

ACCEPT_ENCODING = "gzip"
_CHUNK_BYTES = 64 * 1024
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class TooLarge(Exception):  # noqa: N818 - a limit of ours, not a fault
    """The body is larger than allowed, as sent or once decoded."""


class Incomplete(Exception):  # noqa: N818 - named for what the body is
    """The body ended before its end, or what came is not what it says it is."""


class Undecodable(Exception):  # noqa: N818 - named for what the body is
    """The body is encoded in a way we did not ask for."""


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
        elif encoding in ("gzip", "x-gzip"):
            pieces = _gunzip(self._wire())
        elif encoding == "deflate":
            pieces = _inflate(self._wire())
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
        part = path.with_name(path.name + ".part")
        pieces = iter(self)
        try:
            with part.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
            part.replace(path)
        except OSError as error:
            raise OperatorError(f"cannot write {path}: {error}") from error
        finally:
            part.unlink(missing_ok=True)

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
                piece = self._raw.read(_CHUNK_BYTES, decode_content=False)
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


def _gunzip(wire: Iterator[bytes]) -> Iterator[bytes]:
    """Decode gzip, of one or more members (RFC 1952) and nothing after them."""
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    started = False
    for piece in wire:
        while piece:
            if decoder.eof:
                decoder, started = zlib.decompressobj(_GZIP_WINDOW), False
            started = True
            yield from _decode(decoder, piece)
            piece = decoder.unused_data
    if started and not decoder.eof:
        raise Incomplete("its gzip stream is cut")


def _inflate(wire: Iterator[bytes]) -> Iterator[bytes]:
    """Decode deflate: in its zlib wrapper as RFC 9110 has it, or bare as some servers send it."""
    decoder = None
    for piece in wire:
        if decoder is None:
            wrapped = piece[0] & 0x0F == 8 and (piece[0] >> 4) <= 7
            decoder = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        if decoder.eof:
            raise Incomplete("something follows its deflate stream")
        yield from _decode(decoder, piece)
        if decoder.unused_data:
            raise Incomplete("something follows its deflate stream")
    if decoder is not None and not decoder.eof:
        raise Incomplete("its deflate stream is cut")


def _decode(decoder: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    """What `piece` decodes to, never more than a chunk at a time."""
    while True:
        try:
            decoded = decoder.decompress(piece, _CHUNK_BYTES)
        except zlib.error as error:
            raise Incomplete(f"it cannot be decoded: {error}") from error
        if decoded:
            yield decoded
        piece = decoder.unconsumed_tail
        if decoder.eof or (not piece and len(decoded) < _CHUNK_BYTES):
            return
