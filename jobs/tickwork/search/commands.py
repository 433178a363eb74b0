"""The commands `tickwork search` and `tickwork similar`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tickwork.contract.outcomes import OperatorError
from tickwork.corpus.corpus import Corpus
from tickwork.deployment import Deployment
from tickwork.generation.generations import Generation, Generations
from tickwork.options import CorpusName, Gpu, Threads
from tickwork.search import filters as filtering
from tickwork.search.searcher import Hit, Searcher
from tickwork.vectors.settings import vector_settings

if TYPE_CHECKING:
    from tickwork.vectors.exact_search import Vectors
    from tickwork.vectors.settings import VectorSettings

app = typer.Typer(no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, max=1000, help="Number of items to show.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list of id, identifier, title, score and snippet.")]


@app.command("search")
def search(
    context: typer.Context,
    corpus_name: CorpusName,
    query: Annotated[str, typer.Argument(help="The query.")] = "",
    mode: Annotated[
        Literal["words", "meaning", "both"], typer.Option(help="Search by words, by meaning or both.")
    ] = "both",
    limit: Limit = 10,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="FIELD=VALUE", help="Only items that match this filter. Repeatable."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="File of queries, one per line; each is answered with one line of JSON, a list.")
    ] = None,
    threads: Threads = None,
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Search the current generation of a corpus."""
    deployment: Deployment = context.obj
    if bool(query) == bool(queries):
        raise OperatorError("give a query, or a file of them with --queries")
    corpus, generation = _current(deployment, corpus_name)
    settings = vector_settings(deployment, gpu=gpu, threads=threads)
    conditions = filtering.parse(corpus, filters or [])
    with Searcher.open(corpus, generation, _encoder(settings, corpus, generation), settings.words_weight) as searcher:
        if queries is None:
            _show(searcher.search(query, mode, limit, conditions), as_json=as_json)
            return
        try:
            # Not splitlines: it also splits at characters that may stand in a query.
            lines = queries.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"cannot read the queries {queries}: {error}") from error
        for line in lines:
            _show(searcher.search(line, mode, limit, conditions), as_json=True)


@app.command("similar")
def similar(
    context: typer.Context,
    corpus_name: CorpusName,
    item: Annotated[str, typer.Argument(metavar="ID", help="Id or identifier of an item.")],
    limit: Limit = 10,
    as_json: AsJson = False,
) -> None:
    """Show the items most similar to a given one."""
    deployment: Deployment = context.obj
    corpus, generation = _current(deployment, corpus_name)
    settings = vector_settings(deployment)
    with Searcher.open(corpus, generation, _encoder(settings, corpus, generation), settings.words_weight) as searcher:
        _show(searcher.similar_to(searcher.find(item), limit), as_json=as_json)


def _current(deployment: Deployment, corpus_name: str) -> tuple[Corpus, Generation]:
    corpus = deployment.corpus(corpus_name)
    generation = Generations(deployment.paths, corpus.name).current()
    if generation is None:
        raise OperatorError(f"nothing of {corpus.name} is published yet; tickwork publish {corpus.name}")
    return corpus, generation


def _encoder(settings: VectorSettings, corpus: Corpus, generation: Generation) -> Callable[[Sequence[str]], Vectors]:
    """Queries to vectors; the model is loaded for the first one."""
    loaded = None

    def encode(texts: Sequence[str]) -> Vectors:
        nonlocal loaded
        if loaded is None:
            from tickwork.vectors import model
            from tickwork.vectors.device import open_device

            device = open_device(settings.device, settings.threads, settings.dtype)
            loaded = model.load_for(generation.meta.model, settings, corpus.template, device)
        return loaded.query(texts)

    return encode


def _show(hits: Sequence[Hit], *, as_json: bool) -> None:
    if as_json:
        names = ("id", "identifier", "title", "score", "snippet")
        print(json.dumps([{name: getattr(hit, name) for name in names} for hit in hits], ensure_ascii=False))
        return
    if not hits:
        print("nothing found", file=sys.stderr)
    for number, hit in enumerate(hits, start=1):
        print(f"{number:3}. {hit.title or hit.identifier}  [{hit.score:.3f}]")
        print(f"     {hit.url or hit.identifier}")
        if hit.snippet:
            print(f"     {' '.join(hit.snippet.split())}")
