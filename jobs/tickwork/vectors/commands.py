"""The command `tickwork embed`."""

from __future__ import annotations

from typing import Annotated

import typer

from tickwork.contract.units import Budget
from tickwork.deployment import Deployment
from tickwork.options import CorpusName, Gpu, NoLock, Seconds, Threads
from tickwork.options import limit as option_limit
from tickwork.vectors.embed_corpus import embed_corpus
from tickwork.vectors.settings import vector_settings

app = typer.Typer(no_args_is_help=True)


@app.command("embed")
def embed(
    context: typer.Context,
    corpus_name: CorpusName,
    limit: Annotated[int | None, option_limit("texts")] = None,
    seconds: Seconds = 1080,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per batch.")] = None,
    threads: Threads = None,
    gpu: Gpu = None,
    no_lock: NoLock = False,
) -> None:
    """Compute vectors for the texts of a corpus, in one bounded pass; exits with 3 while texts are left."""
    deployment: Deployment = context.obj
    corpus = deployment.corpus(corpus_name)
    settings = vector_settings(deployment, gpu=gpu, threads=threads, batch_tokens=batch_tokens)
    deployment.run(
        f"{corpus.name}-embed",
        lambda one_pass: embed_corpus(corpus, deployment.paths, settings, one_pass),
        Budget(limit, seconds),
        lock=not no_lock,
    )
