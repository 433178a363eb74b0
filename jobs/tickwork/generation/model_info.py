"""What is remembered of a model."""

from __future__ import annotations

import msgspec


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """By what a model is known again. Vectors are comparable when their fingerprints are equal.

    `fingerprint` is a sha256 over weights, tokenizer, pooling, the bound on tokens, the prefixes and the template of
    the texts; the number format of the computation is recorded and not part of it.
    """

    name: str
    revision: str
    fingerprint: str
    dim: int
    max_tokens: int
    prefix: str
    query_prefix: str
