"""The codings in which a body may be sent, undone piece by piece: a few bytes may stand for gigabytes.

gzip and deflate come with Python; zstd and br (Brotli) are asked for where their packages are installed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from tickwork.upstream.http.errors import Incomplete

CHUNK_BYTES = 64 * 1024
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZSTD_WINDOW = 8 * 1024 * 1024
"""The largest window that a sender may use (RFC 9659)."""
_ZSTD_SLICE = 128
"""Bytes decoded at once, as its decoder has no bound: four may stand for a block of 128 KiB, so these for 4 MiB."""
_BROTLI_BYTES = 16 * 1024


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


def _unzstd(wire: Iterator[bytes]) -> Iterator[bytes]:
    """Decode zstd, of one or more frames (RFC 8878) and nothing after them."""
    import zstandard

    whole = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decoder, started = whole.decompressobj(), False
    for piece in wire:
        rest = memoryview(piece)
        while rest:
            if decoder.eof:
                decoder = whole.decompressobj()
            started, some = True, rest[:_ZSTD_SLICE]
            try:
                decoded = decoder.decompress(some)
            except zstandard.ZstdError as error:
                raise Incomplete(f"it cannot be decoded: {error}") from error
            rest = rest[len(some) - len(decoder.unused_data) :]
            for start in range(0, len(decoded), CHUNK_BYTES):
                yield decoded[start : start + CHUNK_BYTES]
    if started and not decoder.eof:
        raise Incomplete("its zstd stream is cut")


def _unbrotli(wire: Iterator[bytes]) -> Iterator[bytes]:
    """Decode br (RFC 7932)."""
    import brotli

    decoder, started = brotli.Decompressor(), False
    for piece in wire:
        started = True
        while True:
            if piece and decoder.is_finished():
                raise Incomplete("something follows its br stream")
            try:
                # The bound is where it stops to grow: what comes out may be three times that.
                decoded = decoder.process(piece, output_buffer_limit=_BROTLI_BYTES)
            except brotli.error as error:
                raise Incomplete(f"it cannot be decoded: {error}") from error
            if decoded:
                yield decoded
            piece = b""
            if decoder.is_finished() or (decoder.can_accept_more_data() and len(decoded) < _BROTLI_BYTES):
                break
    if started and not decoder.is_finished():
        raise Incomplete("its br stream is cut")


def _decode(decoder: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    """What `piece` decodes to, never more than a chunk at a time."""
    while True:
        try:
            decoded = decoder.decompress(piece, CHUNK_BYTES)
        except zlib.error as error:
            raise Incomplete(f"it cannot be decoded: {error}") from error
        if decoded:
            yield decoded
        piece = decoder.unconsumed_tail
        if decoder.eof or (not piece and len(decoded) < CHUNK_BYTES):
            return


DECODERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    **({"zstd": _unzstd} if find_spec("zstandard") else {}),
    **({"br": _unbrotli} if find_spec("brotli") else {}),
}
"""What undoes a coding: the body as sent in, its pieces out. They raise Incomplete."""
ACCEPT_ENCODING = ", ".join(name for name in ("gzip", "zstd", "br") if name in DECODERS)
