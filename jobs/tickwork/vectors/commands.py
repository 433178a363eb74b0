"""The command `tickwork embed`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tickwork.contract import database
from tickwork.contract.outcomes import OperatorError, Transient
from tickwork.contract.runner import Pass
from tickwork.contract.units import Budget, Unit
from tickwork.corpus.corpus import Corpus
from tickwork.deployment import Deployment
from tickwork.store import changes
from tickwork.vectors import embed as embedding
from tickwork.vectors.settings import VectorSettings
from tickwork.vectors.store import VectorStore

app = typer.Typer(no_args_is_help=True)

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="Name of the corpus, such as doab.")]
Seconds = Annotated[float, typer.Option(min=0, help="Bound of the pass in seconds.")]
Threads = Annotated[int | None, typer.Option(min=0, help="Processor threads; 0 takes the free cores.")]
Gpu = Annotated[bool | None, typer.Option("--gpu/--cpu", help="Where to compute; the settings' without it.")]
NoLock = Annotated[bool, typer.Option("--no-lock", hidden=True, help="Take no lock; for tests.")]

_LEAST = {
    # A first and a last token are no text yet.
    **{"max_tokens": 3, "threads": 0, "nlist": 0},
    **dict.fromkeys(("batch_tokens", "nprobe", "top_k", "keep_generations"), 1),
}
_OF_THE_MODEL = ("model", "revision", "prefix", "query_prefix", "max_tokens")


@app.callback()
def _all() -> None:
    """One command, of a group of its own because the name stands in the top-level group."""


@app.command("embed")
def embed(
    context: typer.Context,
    corpus_name: CorpusName,
    limit: Annotated[int | None, typer.Option(min=1, help="Bound of the pass in texts.")] = None,
    seconds: Seconds = 1080,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens computed at once.")] = None,
    threads: Threads = None,
    gpu: Gpu = None,
    no_lock: NoLock = False,
) -> None:
    """Give the texts of a corpus vectors, in a bounded pass; 3 while texts are left."""
    deployment: Deployment = context.obj
    corpus = deployment.corpus(corpus_name)
    settings = vector_settings(deployment, gpu=gpu, threads=threads, batch_tokens=batch_tokens)
    chosen = f"{[getattr(settings, name) for name in _OF_THE_MODEL]} {corpus.template}"
    documents = deployment.paths.database(corpus.database)
    vectors = deployment.paths.database(f"{corpus.name}-vectors")

    def work(one_pass: Pass) -> Iterator[Unit]:
        if not documents.exists():
            return
        with opened_source(documents, corpus) as source, VectorStore.open(vectors) as store:
            if embedding.nothing_to_do(corpus, source, store, chosen):
                return
            # Not before there is something to do: an idle tick imports no torch.
            from tickwork.vectors import model
            from tickwork.vectors.device import open_device

            device = open_device(settings.device, settings.threads, settings.dtype)
            info = model.inspect(settings, corpus.template)
            embedding.begin(corpus, source, store, info, chosen)
            yield from embedding.embed(
                corpus,
                source,
                store,
                info,
                lambda: model.load(settings, corpus.template, device),
                settings.batch_tokens,
                one_pass,
            )

    deployment.run(f"{corpus.name}-embed", work, Budget(limit, seconds), lock=not no_lock)


@contextmanager
def opened_source(path: Path, corpus: Corpus) -> Iterator[sqlite3.Connection]:
    """The database that holds the rows of `corpus`, to be read. Raises Transient while it has no feed of changes."""
    with closing(database.connect(path, read_only=True)) as source:
        if not changes.is_followed(source, corpus.table):
            raise Transient(f"{path} has no feed of changes yet: the next pass that writes to it adds one")
        yield source


def vector_settings(deployment: Deployment, *, gpu: bool | None = None, **given: int | None) -> VectorSettings:
    """The table `[vectors]` with what the command line says instead. Raises OperatorError."""
    settings = deployment.settings.section("vectors", VectorSettings)
    changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if gpu is not None:
        changes["device"] = "gpu" if gpu else "cpu"
    settings = msgspec.structs.replace(settings, **changes)
    for name, least in _LEAST.items():
        if getattr(settings, name) < least:
            raise OperatorError(f"[vectors] {name} must be at least {least}: {getattr(settings, name)}")
    if not 0 <= settings.words_weight <= 1:
        raise OperatorError(f"[vectors] words_weight must be between 0 and 1: {settings.words_weight}")
    return settings
