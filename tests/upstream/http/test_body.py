"""A body is had whole or not at all, within its cap."""

from __future__ import annotations

import functools
import gzip
import io
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from tickwork.contract.outcomes import OperatorError
from tickwork.upstream.http.body import Body
from tickwork.upstream.http.errors import Incomplete, TooLarge, Undecodable

zipped = functools.partial(gzip.compress, mtime=0)  # so that a test has the same name whenever it is collected
zstd = zstandard.ZstdCompressor().compress
TEXT = b"the quick brown fox " * 5000


class Raw(io.BytesIO):
    """A body as the HTTP library gives it."""

    def read(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:  # type: ignore[override]
        assert decode_content is False, "the library must not decode"
        assert amt is not None, "a read without bound"
        return super().read(amt)


def body(data: bytes, encoding: str = "", cap: int = 2**20, **headers: str) -> Body:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Body(Raw(data), {**named, **({"Content-Encoding": encoding} if encoding else {})}, cap)


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", zipped(TEXT)),
        ("X-GZip", zipped(TEXT)),
        ("gzip", zipped(TEXT[:777]) + zipped(TEXT[777:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare_deflate(TEXT)),
        ("br", brotli.compress(TEXT)),
        ("zstd", zstd(TEXT)),
        ("zstd", zstd(TEXT[:777]) + zstd(TEXT[777:])),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)),
    ],
)
def test_every_encoding_we_take_gives_the_same(encoding: str, sent: bytes, tmp_path: Path) -> None:
    read = body(sent, encoding)
    assert read.read() == TEXT
    assert read.wire_bytes == len(sent)
    body(sent, encoding).save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == TEXT


@pytest.mark.parametrize("encoding", ["br, gzip", "gzip, gzip", "compress", "nonsense"])
def test_an_encoding_we_did_not_ask_for_is_an_error(encoding: str) -> None:
    with pytest.raises(Undecodable, match=encoding):
        body(TEXT, encoding).read()


def test_a_transfer_encoding_that_is_not_unpacked_is_an_error() -> None:
    with pytest.raises(Undecodable, match="gzip, chunked"):
        body(TEXT, Transfer_Encoding="gzip, chunked").read()


@pytest.mark.parametrize(
    ("encoding", "whole"),
    [
        ("gzip", zipped(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare_deflate(TEXT)),
        ("br", brotli.compress(TEXT)),
        ("zstd", zstd(TEXT)),
    ],
)
def test_a_cut_stream_is_incomplete_wherever_it_is_cut(encoding: str, whole: bytes) -> None:
    for cut in [*range(1, 30), len(whole) // 2, *range(len(whole) - 9, len(whole))]:
        with pytest.raises(Incomplete):
            body(whole[:cut], encoding).read()


@pytest.mark.parametrize("garbage", [b"\0", b"\x1f", b"\x1f\x8b", b"garbage" * 50])
def test_garbage_after_the_stream_is_refused(garbage: bytes) -> None:
    packed = {"gzip": zipped, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd}
    for encoding, whole in ((name, pack(TEXT)) for name, pack in packed.items()):
        with pytest.raises(Incomplete):
            body(whole + garbage, encoding).read()
        with pytest.raises(Incomplete):
            body(garbage, encoding).read()


def test_a_changed_byte_is_noticed() -> None:
    sent = bytearray(zipped(TEXT))
    sent[len(sent) // 2] ^= 1
    with pytest.raises(Incomplete):
        body(bytes(sent), "gzip").read()


def test_the_cap_holds_for_what_is_sent_and_for_what_it_decodes_to() -> None:
    assert body(TEXT, cap=len(TEXT)).read() == TEXT
    assert body(zipped(TEXT), "gzip", cap=len(TEXT)).read() == TEXT
    for sent, encoding in ((TEXT, ""), (zipped(TEXT), "gzip")):
        with pytest.raises(TooLarge, match=f"more than {len(TEXT) - 1} bytes"):
            body(sent, encoding, cap=len(TEXT) - 1).read()
    with pytest.raises(TooLarge, match="Content-Length"):
        body(TEXT, cap=10, Content_Length="11").read()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", zipped),
        ("deflate", zlib.compress),
        ("br", functools.partial(brotli.compress, quality=1)),
        ("zstd", zstd),
    ],
    ids=["gzip", "deflate", "br", "zstd"],
)
def test_a_bomb_stops_at_the_cap_in_bounded_memory(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(100 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            body(bomb, encoding, cap=4 * 2**20).read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 2**20


@pytest.mark.parametrize("length", ["-5", "ten", "1_0", "", "5, 6", "٣"])
def test_a_length_that_is_no_length_is_refused(length: str) -> None:
    with pytest.raises(Incomplete, match="Content-Length"):
        body(b"12345", Content_Length=length).read()


def test_an_end_that_we_made_ourselves_is_not_the_bodys(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with pytest.raises(Incomplete, match="cut off after 9 bytes"):
        Body(Raw(b"beginning"), {}, 100, lambda: True).save(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_complete_or_absent_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    path.write_bytes(b"before")
    with pytest.raises(Incomplete):
        body(zipped(TEXT)[:-4], "gzip").save(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_the_operators_business(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"cannot write .*absent"):
        body(TEXT).save(tmp_path / "absent" / "saved")


def test_a_zstd_stream_with_a_larger_window_than_allowed_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(Incomplete, match="cannot be decoded"):
        body(stream.compress(TEXT * 300) + stream.flush(), "zstd", cap=2**26).read()
