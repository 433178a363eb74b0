"""The commands that publish a corpus, and look after what is published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Literal

import msgspec
import typer

from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.runner import Pass
from tickwork.contract.units import Budget, Unit
from tickwork.corpus.corpus import Corpus
from tickwork.deployment import Deployment
from tickwork.generation.generations import Generations
from tickwork.publish import campaign
from tickwork.publish.campaign_context import CampaignContext, CampaignRequest
from tickwork.vectors.commands import CorpusName, Gpu, NoLock, Seconds, Threads, opened_source, vector_settings
from tickwork.vectors.settings import VectorSettings

app = typer.Typer(no_args_is_help=True)

Nlist = Annotated[int | None, typer.Option(min=1, help="Inverted lists of the index.")]
Nprobe = Annotated[int | None, typer.Option(min=1, help="Inverted lists looked into by a search.")]
Factory = Annotated[str | None, typer.Option(help="FAISS factory string of the index.")]
TopK = Annotated[int | None, typer.Option(min=1, help="Similar items of each item.")]
Full = Annotated[bool, typer.Option("--full", help="Make everything anew, nothing from the generation before.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command("publish")
def publish(
    context: typer.Context,
    corpus_name: CorpusName,
    seconds: Seconds = 1080,
    full: Full = False,
    threads: Threads = None,
    gpu: Gpu = None,
    no_lock: NoLock = False,
) -> None:
    """Publish a corpus, in bounded passes: snapshot, full text, index, similar items, verification, switch.

    3 while stages are left; nothing is done while nothing has changed.
    """
    deployment: Deployment = context.obj
    settings = vector_settings(deployment, gpu=gpu, threads=threads)
    _run(deployment, deployment.corpus(corpus_name), settings, "publish", seconds, full=full, lock=not no_lock)


@app.command("index")
def index(
    context: typer.Context,
    corpus_name: CorpusName,
    factory: Factory = None,
    nlist: Nlist = None,
    nprobe: Nprobe = None,
    seconds: Seconds = 1080,
    threads: Threads = None,
    gpu: Gpu = None,
    no_lock: NoLock = False,
) -> None:
    """Publish the current generation again with its index trained anew; 3 while work is left."""
    deployment: Deployment = context.obj
    settings = vector_settings(deployment, gpu=gpu, threads=threads, nlist=nlist, nprobe=nprobe)
    if factory is not None:
        settings = msgspec.structs.replace(settings, factory=factory)
    _run(deployment, deployment.corpus(corpus_name), settings, "index", seconds, full=True, lock=not no_lock)


@app.command("similar")
def similar(
    context: typer.Context,
    corpus_name: CorpusName,
    full: Full = False,
    top_k: TopK = None,
    seconds: Seconds = 1080,
    threads: Threads = None,
    gpu: Gpu = None,
    no_lock: NoLock = False,
) -> None:
    """Publish the current generation again with its similar items brought up to date, or found anew; 3 while left."""
    deployment: Deployment = context.obj
    settings = vector_settings(deployment, gpu=gpu, threads=threads, top_k=top_k)
    _run(deployment, deployment.corpus(corpus_name), settings, "similar", seconds, full=full, lock=not no_lock)


@app.command("generations")
def generations(
    context: typer.Context,
    corpus_name: CorpusName,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file with what was written.")] = False,
    roll_back: Annotated[str, typer.Option(metavar="NAME|previous", help="Make this one current again.")] = "",
    prune: Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep N, remove the others.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the generations of a corpus; verify, roll back or prune them."""
    deployment: Deployment = context.obj
    found = Generations(deployment.paths, deployment.corpus(corpus_name).name)
    if roll_back:
        _roll_back(deployment, found, roll_back)
    if prune is not None:
        for name in found.prune(prune):
            print(f"removed {name}")
    _list(found, verify=verify, as_json=as_json)


def _run(
    deployment: Deployment,
    corpus: Corpus,
    settings: VectorSettings,
    kind: Literal["publish", "index", "similar"],
    seconds: float,
    *,
    full: bool,
    lock: bool,
) -> None:
    published = Generations(deployment.paths, corpus.name)

    def work(one_pass: Pass) -> Iterator[Unit]:
        if not _has_documents(deployment, corpus, published, one_pass):
            return
        yield from campaign.finish_switch(published, one_pass.warn)
        if kind == "publish" and not full and campaign.nothing_to_do(deployment.paths, corpus, published):
            return
        top_k = settings.top_k
        if kind == "index" and (current := published.current()):
            top_k = current.meta.top_k
        asked = CampaignRequest(
            kind=kind,
            base=published.current_name(),
            full=full,
            factory=settings.factory,
            nlist=settings.nlist,
            nprobe=settings.nprobe,
            top_k=top_k,
        )
        from tickwork.vectors.device import open_device

        device = cache(lambda: open_device(settings.device, settings.threads, settings.dtype))
        if settings.device == "gpu":
            device()  # without it no campaign is begun
        build = CampaignContext(
            corpus=corpus,
            paths=deployment.paths,
            generations=published,
            request=campaign.begin(published, asked, one_pass.warn),
            open_device=device,
            warn=one_pass.warn,
        )
        yield from campaign.run(build, settings.keep_generations)
        if build.request.kind != kind:  # one by hand was under way, and is finished: now to what was asked for
            yield from work(one_pass)

    deployment.run(f"{corpus.name}-publish", work, Budget(seconds=seconds), lock=lock)


def _has_documents(deployment: Deployment, corpus: Corpus, published: Generations, one_pass: Pass) -> bool:
    """Whether there is anything to publish from. Raises OperatorError where there must be."""
    path = deployment.paths.database(corpus.database)
    if not path.exists():
        if published.names():
            raise OperatorError(f"{path} is missing, of which {corpus.name} was published: restore it from a copy")
        one_pass.notes.append(f"there is no {path} yet")
        return False
    with opened_source(path, corpus):
        return True


def _roll_back(deployment: Deployment, found: Generations, wanted: str) -> None:
    current = found.current_name()
    earlier = [name for name in found.names() if name < current]
    if wanted == "previous":
        if not earlier:
            raise OperatorError(f"{found.corpus} has no generation before {current or 'the first'}")
        wanted = earlier[-1]
    if wanted == current:
        raise OperatorError(f"{wanted} is current already")
    found.verify(wanted)
    job = f"{found.corpus}-publish"
    markers = Markers(deployment.paths.job(job), makes_folder=deployment.paths.makes_locks)
    markers.ready()
    # Before the switch: the next tick would publish again what is taken back. A pass under way does not.
    markers.halt(f"rolled back from {current or 'nothing'} to {wanted}")
    found.switch(wanted)
    print(f"{wanted} is current")
    print(f'{job} is halted; to publish again: tickwork rearm {job} --why "..."')


def _list(found: Generations, *, verify: bool, as_json: bool) -> None:
    current = found.current_name()
    rows = []
    failed = False
    for name in found.names():
        row: dict[str, object] = {"name": name, "current": name == current, "problem": ""}
        try:
            meta = (found.verify(name) if verify else found.open(name)).meta
            row |= {
                "built_at": meta.built_at,
                "total": meta.total,
                "vectors": meta.vectors,
                "index": meta.index.factory,
                "model": meta.model.name if meta.model else "",
            }
        except OperatorError as error:
            row["problem"], failed = str(error), True
        rows.append(row)
    if as_json:
        print(json.dumps(rows))
    elif not rows:
        print(f"nothing of {found.corpus} is published yet")
    else:
        for row in rows:
            mark = "*" if row["current"] else " "
            rest = row["problem"] or f"{row['total']} items, {row['vectors']} vectors, index {row['index']}"
            print(f"{mark} {row['name']}  {rest}{'  verified' if verify and not row['problem'] else ''}")
    if failed:
        raise typer.Exit(1)
