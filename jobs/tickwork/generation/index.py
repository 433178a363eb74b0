"""Reading the FAISS index of a generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss

from tickwork.contract.outcomes import OperatorError
from tickwork.generation.meta import INDEX, IndexMeta


def read_index(folder: Path, meta: IndexMeta, *, mapped: bool = True) -> Any:  # noqa: ANN401 - faiss has no types
    """The index of a generation, ready to be searched."""
    path = folder / INDEX
    try:
        found = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0)
    except RuntimeError as error:
        raise OperatorError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if meta.nlist:
        faiss.extract_index_ivf(found).nprobe = min(meta.nprobe, meta.nlist)
    return found
