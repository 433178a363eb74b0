"""Embedding a corpus as a function: for its command, and for a campaign of a source within its own pass."""

from __future__ import annotations

from collections.abc import Iterator

from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass
from tickwork.contract.units import Unit
from tickwork.corpus.corpus import Corpus
from tickwork.corpus.database import opened_source
from tickwork.vectors import embed
from tickwork.vectors.settings import VectorSettings
from tickwork.vectors.store import VectorStore

_OF_THE_MODEL = ("model", "revision", "prefix", "query_prefix", "max_tokens")


def embed_corpus(corpus: Corpus, paths: Paths, settings: VectorSettings, one_pass: Pass) -> Iterator[Unit]:
    """Give the texts of `corpus` that have none a vector; a unit is a batch of texts, committed.

    Exhausted when every text has its vector or its fault. Nothing is loaded where there is nothing to do. Raises
    Transient while the database has no feed of changes, OperatorError for a model or device that cannot be used.
    """
    documents = paths.database(corpus.database)
    if not documents.exists():
        return
    chosen = f"{[getattr(settings, name) for name in _OF_THE_MODEL]} {corpus.template}"
    vectors = paths.database(f"{corpus.name}-vectors")
    with opened_source(documents, corpus) as source, VectorStore.open(vectors) as store:
        if embed.nothing_to_do(corpus, source, store, chosen):
            return
        # Not before there is something to do: an idle tick imports no torch.
        from tickwork.vectors import model
        from tickwork.vectors.device import open_device

        device = open_device(settings.device, settings.threads, settings.dtype)
        info = model.inspect(settings, corpus.template)
        embed.begin(corpus, source, store, info, chosen)
        yield from embed.embed(
            corpus,
            source,
            store,
            info,
            lambda: model.load(settings, corpus.template, device),
            settings.batch_tokens,
            one_pass,
        )
