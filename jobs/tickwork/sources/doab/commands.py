"""The commands of `tickwork doab`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.runner import Pass
from tickwork.contract.settings import override
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit
from tickwork.deployment import Deployment
from tickwork.options import AllowPrivate, AsJson, NoLock, Seconds
from tickwork.options import limit as option_limit
from tickwork.sources.doab import backfill as backfilling
from tickwork.sources.doab import dates, identifier_lists, worklist
from tickwork.sources.doab import export as exporting
from tickwork.sources.doab import reconcile as reconciling
from tickwork.sources.doab.circuit_breaker import WINDOW, CircuitBreaker
from tickwork.sources.doab.discover import IdentifierFiles, in_progress, source
from tickwork.sources.doab.discover import discover as discovering
from tickwork.sources.doab.harvest import harvest as harvesting
from tickwork.sources.doab.oai import OaiClient
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore
from tickwork.sources.doab.worklist import Worklist
from tickwork.upstream.hosts import HostKey, InvalidHostError, host_key
from tickwork.upstream.http.errors import shown
from tickwork.upstream.policy import Policy

app = typer.Typer(no_args_is_help=True, help="Books from an OAI-PMH repository (DOAB is the shipped profile).")

BaseUrl = Annotated[str | None, typer.Option(help="OAI-PMH address; by default the one in the settings.")]
Interval = Annotated[float | None, typer.Option(min=0, help="Seconds to wait between two requests.")]
Jitter = Annotated[float | None, typer.Option(min=0, max=10, help="Random addition to the interval, as a share of it.")]
ActiveFile = Annotated[
    Path | None, typer.Option(help="Snapshot of active identifiers to use instead of this machine's.")
]
DeletedFile = Annotated[
    Path | None, typer.Option(help="Snapshot of deleted identifiers to use instead of this machine's.")
]
AllowDeletes = Annotated[
    int, typer.Option(min=0, metavar="N", help="Accept up to N deletions; you have checked that they are genuine.")
]


@app.command()
def harvest(
    context: typer.Context,
    base_url: BaseUrl = None,
    first: Annotated[str, typer.Option("--from", help="Start at this date instead of the cursor.")] = "",
    last: Annotated[str, typer.Option("--until", help="End at this date instead of now.")] = "",
    limit: Annotated[int, option_limit("records")] = 20000,
    seconds: Seconds = 1200,
    interval_seconds: Interval = None,
    jitter: Jitter = None,
    allow_deletes: AllowDeletes = 0,
    allow_private: AllowPrivate = None,
    no_lock: NoLock = False,
) -> None:
    """Store what changed since the last complete harvest, or continue an interrupted one."""
    deployment: Deployment = context.obj
    settings = _settings(deployment, base_url=base_url, interval_seconds=interval_seconds, jitter=jitter)
    for bound, option in ((first, "--from"), (last, "--until")):
        if bound:
            dates.parse(bound, option)
    if first and last and dates.parse(first) > dates.parse(last):
        raise OperatorError(f"--from {first} is later than --until {last}")

    def work(one_pass: Pass) -> Iterator[Unit]:
        with _store(deployment, settings) as store, _client(deployment, settings, one_pass.stop, allow_private) as oai:
            yield from harvesting(
                store, oai, settings, one_pass.warn, first=first, last=last, allow_deletes=allow_deletes
            )

    deployment.run("doab-harvest", work, Budget(limit, seconds), host=_host(settings), lock=not no_lock)


@app.command()
def discover(
    context: typer.Context,
    base_url: BaseUrl = None,
    refresh_ids: Annotated[bool, typer.Option(help="Crawl even if the snapshot is still fresh.")] = False,
    limit: Annotated[int | None, option_limit("identifiers")] = None,
    seconds: Seconds = 1200,
    interval_seconds: Interval = None,
    jitter: Jitter = None,
    allow_private: AllowPrivate = None,
    no_lock: NoLock = False,
) -> None:
    """List all identifiers into a snapshot (.active and .deleted) that other machines can use too."""
    deployment: Deployment = context.obj
    settings = _settings(deployment, base_url=base_url, interval_seconds=interval_seconds, jitter=jitter)
    files = IdentifierFiles.under(deployment.paths.snapshots())

    def work(one_pass: Pass) -> Iterator[Unit]:
        with _store(deployment, settings) as store:
            if not (refresh_ids or in_progress(store) or files.older_than(settings.snapshot_days, settings)):
                return
            with _client(deployment, settings, one_pass.stop, allow_private) as oai:
                yield from discovering(store, oai, settings, files, one_pass.warn)

    budget = Budget(limit, seconds)
    deployment.run("doab-discover", work, budget, host=_host(settings), lock=not no_lock)


@app.command()
def backfill(
    context: typer.Context,
    base_url: BaseUrl = None,
    limit: Annotated[int, option_limit("requests for records")] = 500,
    seconds: Seconds = 1200,
    interval_seconds: Interval = None,
    jitter: Jitter = None,
    use_active_file: ActiveFile = None,
    use_deleted_file: DeletedFile = None,
    ids_file: Annotated[Path | None, typer.Option(help="File of the identifiers to request, one per line.")] = None,
    refresh_ids: Annotated[bool, typer.Option(help="Crawl again if the snapshot is older than a day.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the worklist; send and write nothing.")] = False,
    allow_private: AllowPrivate = None,
    no_lock: NoLock = False,
) -> None:
    """Fetch the records that are active upstream but not stored here, newest first, until none is left."""
    deployment: Deployment = context.obj
    settings = _settings(deployment, base_url=base_url, interval_seconds=interval_seconds, jitter=jitter)
    own = IdentifierFiles.under(deployment.paths.snapshots())
    given = _given_list(use_active_file, use_deleted_file, ids_file)
    if dry_run:
        _print_worklist(deployment, settings, given, own)
        return

    def work(one_pass: Pass) -> Iterator[Unit]:
        with _store(deployment, settings) as store, _client(deployment, settings, one_pass.stop, allow_private) as oai:
            days = 1 if refresh_ids else settings.snapshot_days
            if given is None and (in_progress(store) or own.older_than(days, settings)):
                # The bound is on requests: a page of identifiers counts as one.
                pages = discovering(store, oai, settings, own, one_pass.warn)
                yield from (replace(page, items=1) for page in pages)
            name = str(given.resolve()) if given else worklist.OWN
            todo = backfilling.prepare(store, name, identifier_lists.read(given or own.active), settings, one_pass.warn)
            breaker = CircuitBreaker(settings, todo.settled_since(one_pass.armed, WINDOW))
            yield from backfilling.backfill(store, oai, settings, todo, breaker, one_pass)

    # A list of some identifiers says nothing of the others: when it is through, the job is not done.
    drains = None if ids_file is None else False
    budget = Budget(limit, seconds)
    deployment.run("doab-backfill", work, budget, host=_host(settings), lock=not no_lock, drains=drains)


@app.command()
def diff(
    context: typer.Context,
    use_active_file: ActiveFile = None,
    use_deleted_file: DeletedFile = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the lists missing, stale and orphan.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the store with a snapshot: missing, stale and orphan records. Sends no requests."""
    deployment: Deployment = context.obj
    settings = _settings(deployment)
    with _reading(deployment, settings) as store:
        live = store.live()
    found = reconciling.difference(live, *_snapshot(deployment, settings, use_active_file, use_deleted_file))
    lists = {"missing": found.missing, "stale": [identifier for identifier, _ in found.stale], "orphan": found.orphan}
    if output:
        output.mkdir(parents=True, exist_ok=True)
        for name, identifiers in lists.items():
            with files.whole(output / name, lasts=False) as partial:
                partial.write_text("".join(f"{identifier}\n" for identifier in identifiers), encoding="utf-8")
    counts = {name: len(identifiers) for name, identifiers in lists.items()}
    print(json.dumps(counts) if as_json else "\n".join(f"{name:8} {count}" for name, count in counts.items()))


@app.command()
def reconcile(
    context: typer.Context,
    use_active_file: ActiveFile = None,
    use_deleted_file: DeletedFile = None,
    allow_deletes: AllowDeletes = 0,
    no_lock: NoLock = False,
) -> None:
    """Turn stored records that a snapshot lists as deleted into tombstones. Sends no requests."""
    deployment: Deployment = context.obj
    settings = _settings(deployment)

    def work(one_pass: Pass) -> Iterator[Unit]:
        active, deleted = _snapshot(deployment, settings, use_active_file, use_deleted_file)
        with _store(deployment, settings) as store:
            yield from reconciling.reconcile(store, active, deleted, settings, allow_deletes)

    deployment.run("doab-reconcile", work, Budget(), lock=not no_lock)


@app.command()
def export(
    context: typer.Context,
    form: Annotated[Literal["jsonl", "csv"], typer.Option("--format", help="Output format.")] = "jsonl",
    output: Annotated[Path | None, typer.Option(help="File to write or replace; by default standard output.")] = None,
) -> None:
    """Write all live records as JSON lines or CSV."""
    deployment: Deployment = context.obj
    write = exporting.write_jsonl if form == "jsonl" else exporting.write_csv
    with _reading(deployment, _settings(deployment), begin="tickwork doab harvest") as store:
        if output is None:
            write(store, sys.stdout)
            return
        if output.is_dir():
            raise OperatorError(f"{output} is a folder; name a file")
        with files.whole(output) as partial, partial.open("w", encoding="utf-8", newline="") as out:
            count = write(store, out)
    print(f"records written to {output}: {count}")


@app.command()
def stats(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is stored, how far the backfill has got, and which records need a human."""
    deployment: Deployment = context.obj
    states: Counter[str] = Counter()
    reviews: list[dict[str, object]] = []
    with _reading(deployment, _settings(deployment)) as store:
        live, deleted = store.counts()
        for name in worklist.names(store):
            todo = Worklist(store, name)
            states.update(todo.counts())
            reviews += [dict(row) for row in todo.reviews()]
    if as_json:
        print(json.dumps({"live": live, "deleted": deleted, "worklist": dict(states), "review": reviews}))
        return
    print(f"records   {live} live, {deleted} deleted")
    print("worklist  " + (", ".join(f"{count} {state}" for state, count in states.items()) or "none"))
    for review in reviews[:20]:
        print(f"review    {review['identifier']}  {review['why']}")


def _settings(deployment: Deployment, **given: object) -> DoabSettings:
    """The table, with what a command's options say instead. Raises OperatorError."""
    settings = override(deployment.settings.section("doab", DoabSettings), "doab", **given)
    _host(settings)
    return settings


def _host(settings: DoabSettings) -> HostKey:
    """The upstream's key among holds and slots; OperatorError for an address that is none."""
    try:
        return host_key(settings.base_url)
    except InvalidHostError as error:
        raise OperatorError(f"base_url: {shown(settings.base_url)} does not name a server: {error}") from error


@contextmanager
def _store(deployment: Deployment, settings: DoabSettings) -> Iterator[DoabStore]:
    with DoabStore.open(deployment.paths.database("doab"), settings.pattern()) as store:
        yield store


def _reading(deployment: Deployment, settings: DoabSettings, *, begin: str = "") -> AbstractContextManager[DoabStore]:
    """The store, to be looked at; an empty one, or with `begin` OperatorError, where there is none yet."""
    return DoabStore.reading(deployment.paths.database("doab"), settings.pattern(), begin=begin)


@contextmanager
def _client(
    deployment: Deployment, settings: DoabSettings, stop: Stop, private: list[str] | None
) -> Iterator[OaiClient]:
    policy = Policy(
        interval_seconds=settings.interval_seconds,
        jitter_seconds=settings.interval_seconds * settings.jitter,
        connect_seconds=settings.connect_seconds,
        read_seconds=settings.read_seconds,
        total_seconds=settings.total_seconds,
        max_bytes=settings.max_bytes,
    )
    port = urlsplit(settings.base_url).port  # an operator's own choice, unlike a URL out of data
    with deployment.upstream("doab", policy, stop, private=private or (), ports=[port] if port else ()) as upstream:
        yield OaiClient(upstream, settings)


def _given_list(active: Path | None, deleted: Path | None, identifiers: Path | None) -> Path | None:
    """The file that says what to ask for, when the operator gave one; two that contradict each other are refused."""
    if identifiers and active:
        raise OperatorError("give --ids-file or --use-active-file, not both")
    if deleted:
        if not active:
            raise OperatorError("--use-deleted-file needs --use-active-file")
        reconciling.difference({}, identifier_lists.read(active), identifier_lists.read(deleted))
    given = identifiers or active
    if given:
        identifier_lists.read(given)
    return given


def _snapshot(
    deployment: Deployment, settings: DoabSettings, active: Path | None, deleted: Path | None
) -> tuple[identifier_lists.IdentifierList, identifier_lists.IdentifierList]:
    """The snapshot the operator gave, or our own; both files of one crawl."""
    if bool(active) != bool(deleted):
        raise OperatorError("give both --use-active-file and --use-deleted-file")
    own = IdentifierFiles.under(deployment.paths.snapshots())
    if not active and not own.active.exists():
        raise OperatorError(f"there is no snapshot in {own.active.parent} yet; run: tickwork doab discover")
    found = identifier_lists.read(active or own.active), identifier_lists.read(deleted or own.deleted)
    if not active and any(snapshot.source != source(settings) for snapshot in found):
        raise OperatorError(f"the snapshot in {own.active.parent} is of {found[0].source}; run: tickwork doab discover")
    return found


def _print_worklist(deployment: Deployment, settings: DoabSettings, given: Path | None, own: IdentifierFiles) -> None:
    snapshot = identifier_lists.read(given or own.active) if given or own.active.exists() else None
    if snapshot is None or (not given and snapshot.source != source(settings)):
        print("there is no snapshot of this repository yet: the first passes would make one", file=sys.stderr)
        return
    malformed = set(backfilling.malformed_in(snapshot, settings))
    with _reading(deployment, settings) as store:
        live = store.live()
    wanted = worklist.plan(snapshot.identifiers.keys() - malformed, live, settings.pattern())
    for identifier in wanted:
        print(identifier)
    print(f"records that would be requested: {len(wanted)}, {settings.interval_seconds:g} s apart", file=sys.stderr)
