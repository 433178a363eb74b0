"""The commands that publish a corpus, and look after what is published."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.units import Budget
from tickwork.deployment import Deployment
from tickwork.generation.generations import Generations
from tickwork.options import AsJson, CorpusName, Gpu, NoLock, Seconds, Threads
from tickwork.publish.publish_corpus import Only, publish_corpus
from tickwork.vectors.settings import vector_settings

app = typer.Typer(no_args_is_help=True)

_OF_INDEX = "With --only index: "


@app.command("publish")
def publish(
    context: typer.Context,
    corpus_name: CorpusName,
    only: Annotated[
        Only | None, typer.Option(help="Rebuild only the index, or only the similar items, of the current generation.")
    ] = None,
    seconds: Seconds = 1080,
    full: Annotated[
        bool, typer.Option("--full", help="Rebuild everything; reuse nothing from the previous generation.")
    ] = False,
    factory: Annotated[str | None, typer.Option(help=_OF_INDEX + "the FAISS factory string.")] = None,
    nlist: Annotated[int | None, typer.Option(min=1, help=_OF_INDEX + "the number of inverted lists.")] = None,
    nprobe: Annotated[
        int | None, typer.Option(min=1, help=_OF_INDEX + "the number of inverted lists that a search probes.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="With --only similar: the number of similar items per item.")
    ] = None,
    threads: Threads = None,
    gpu: Gpu = None,
    no_lock: NoLock = False,
) -> None:
    """Publish a corpus, in bounded passes: snapshot, full text, index, similar items, verification, switch.

    Exits with 3 while stages are left. Does nothing if nothing has changed since the current generation.
    """
    deployment: Deployment = context.obj
    if only != "index" and (factory, nlist, nprobe) != (None, None, None):
        raise OperatorError("--factory, --nlist and --nprobe need --only index; for every publication see [vectors]")
    if only != "similar" and top_k is not None:
        raise OperatorError("--top-k needs --only similar; for every publication see [vectors]")
    corpus = deployment.corpus(corpus_name)
    given = {"factory": factory, "nlist": nlist, "nprobe": nprobe, "top_k": top_k}
    settings = vector_settings(deployment, gpu=gpu, threads=threads, **given)
    deployment.run(
        f"{corpus.name}-publish",
        lambda one_pass: publish_corpus(corpus, deployment.paths, settings, one_pass, only=only, full=full),
        Budget(seconds=seconds),
        lock=not no_lock,
    )


class _ListsByDefault(TyperGroup):
    """`generations CORPUS` is `generations list CORPUS`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer's context type is private
        """The command that is named, or the list."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["list", *args])


generations = typer.Typer(
    cls=_ListsByDefault,
    no_args_is_help=True,
    help="List, verify, roll back or prune the published generations; `generations CORPUS` lists them.",
)


@generations.command("list")
def list_generations(context: typer.Context, corpus_name: CorpusName, as_json: AsJson = False) -> None:
    """List the generations of a corpus; the current one is marked."""
    _print(_of(context, corpus_name), verify=False, as_json=as_json)


@generations.command("verify")
def verify_generations(context: typer.Context, corpus_name: CorpusName, as_json: AsJson = False) -> None:
    """Check every file of every generation against its checksum; exits with 1 if one is damaged."""
    _print(_of(context, corpus_name), verify=True, as_json=as_json)


@generations.command("prune")
def prune_generations(
    context: typer.Context,
    corpus_name: CorpusName,
    keep: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of generations to keep, including the current one.")
    ],
) -> None:
    """Remove all but the newest generations and the current one."""
    for name in _of(context, corpus_name).prune(keep):
        print(f"removed {name}")


@generations.command("roll-back")
def roll_back(
    context: typer.Context,
    corpus_name: CorpusName,
    name: Annotated[str, typer.Argument(metavar="NAME|previous", help="The generation to make current.")] = "previous",
) -> None:
    """Make an earlier generation current again, and halt publishing until it is re-armed."""
    deployment: Deployment = context.obj
    found = _of(context, corpus_name)
    current = found.current_name()
    earlier = [other for other in found.names() if other < current]
    if name == "previous":
        if not earlier:
            raise OperatorError(f"{found.corpus} has no generation before {current or 'the first'}")
        name = earlier[-1]
    if name == current:
        raise OperatorError(f"{name} is already current")
    found.verify(name)
    job = f"{found.corpus}-publish"
    markers = Markers(deployment.paths.job(job), makes_folder=deployment.paths.makes_locks)
    markers.ready()
    # Before the switch: the next tick would publish again what is taken back. A pass under way does not.
    markers.halt(f"rolled back from {current or 'nothing'} to {name}")
    found.switch(name)
    print(f"{name} is current")
    print(f'{job} is halted; to publish again: tickwork rearm {job} --why "..."')


def _of(context: typer.Context, corpus_name: str) -> Generations:
    deployment: Deployment = context.obj
    return Generations(deployment.paths, deployment.corpus(corpus_name).name)


def _print(found: Generations, *, verify: bool, as_json: bool) -> None:
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
