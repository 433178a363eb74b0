"""What a generation is: the description that is written last of its files, and the names of them all."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError
from tickwork.generation.model_info import ModelInfo

META, IDS, VECTORS, INDEX, SIMILAR = "meta.json", "ids.npy", "vectors.npy", "index.faiss", "similar.db"
FORMAT = 1


class IndexMeta(msgspec.Struct, kw_only=True, frozen=True):
    """How an index was made; `recall` is that at 10 on `probes` of its own vectors, after the last training."""

    index_type: str
    factory: str
    nlist: int
    nprobe: int
    metric: str
    trained_on: int
    recall: float
    recall_trained: float
    probes: int
    acceleration: str


class Watermark(msgspec.Struct, kw_only=True, frozen=True):
    """Up to which change of the documents, and of the vectors, a generation reaches."""

    documents: int
    vectors: int


class Meta(msgspec.Struct, kw_only=True, frozen=True):
    """What a generation is."""

    format: int
    corpus: str
    built_at: str
    """UTC, like 2026-11-22T07:15:00Z."""
    total: int
    """Items that can be found by words."""
    vectors: int
    """Items that can be found by meaning."""
    dim: int
    dtype: str
    model: ModelInfo | None
    """None when nothing is embedded yet."""
    fingerprint: str
    index: IndexMeta
    top_k: int
    similarity: str
    id_source: str
    watermark: Watermark
    libraries: dict[str, str]
    sha256: dict[str, str]


def read_meta(folder: Path) -> Meta:
    """The description in a generation's folder. Raises OperatorError when there is none, or one of another format."""
    path = folder / META
    try:
        meta = msgspec.json.decode(path.read_bytes(), type=Meta)
    except (OSError, msgspec.DecodeError) as error:
        raise OperatorError(
            f"cannot read {path}: {error}; roll back to another generation, or publish again"
        ) from error
    if meta.format != FORMAT:
        raise OperatorError(f"{path} has format {meta.format}, but this tickwork reads format {FORMAT}: publish again")
    return meta


def write_meta(folder: Path, meta: Meta) -> None:
    """Write the description of a generation, the last of its files."""
    with files.whole(folder / META) as path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(meta), indent=2))
