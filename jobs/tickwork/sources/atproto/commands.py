"""The commands of `tickwork atproto`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.runner import Pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit
from tickwork.deployment import Deployment
from tickwork.options import AllowPrivate, NoLock, Seconds
from tickwork.options import limit as option_limit
from tickwork.sources.atproto import inspect_commands
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.queue import Claim, Queue
from tickwork.sources.atproto.repo.identifiers import is_did
from tickwork.sources.atproto.sessions import Sessions, settings_of, writing
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore
from tickwork.upstream.shards import Shard

app = typer.Typer(no_args_is_help=True, help="Repositories of the AT Protocol, whole or filtered, verified.")
inspect_commands.register(app)

Dids = Annotated[list[str] | None, typer.Argument(help="Accounts, as DIDs.")]
Did = Annotated[str, typer.Argument(help="An account, as its DID.")]
Directory = Annotated[list[str] | None, typer.Option("--plc-url", help="Directory of did:plc. Repeatable.")]
ShardOption = Annotated[str | None, typer.Option("--shard", help="Only the servers of this shard, such as 2/8.")]


@app.command()
def discover(
    context: typer.Context,
    relay: Annotated[list[str] | None, typer.Option(help="Read this relay's list. Repeatable.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Read this server's list. Repeatable.")] = None,
    limit: Annotated[int | None, option_limit("repositories listed")] = None,
    seconds: Seconds = 1200,
    shard: ShardOption = None,
    allow_private: AllowPrivate = None,
    no_lock: NoLock = False,
) -> None:
    """Find new and changed repositories in the lists of relays and servers."""
    # Here and not above: most of these commands need no HTTP library.
    from tickwork.sources.atproto import discover as discovering

    deployment: Deployment = context.obj
    settings = settings_of(deployment, shard=shard)
    if relay or host:
        settings = settings_of(deployment, shard=shard, relays=tuple(relay or ()), hosts=tuple(host or ()))
    part, wanted = Shard.parse(settings.shard), Filter(settings.filter)
    todo = discovering.lists(settings, wanted, part)

    def work(one_pass: Pass) -> Iterator[Unit]:
        with writing(deployment) as store, Sessions(deployment, settings, one_pass.stop) as sessions:
            # A changed filter is the backfill's to apply: one that is under way stores by the filter it began with.
            queue = Queue(store, settings, part)
            upstream = sessions.lists(allow_private or ())
            yield from discovering.discover(store, queue, upstream, todo, settings, one_pass)

    deployment.run("atproto-discover", work, Budget(limit, seconds), lock=not no_lock)


@app.command()
def backfill(
    context: typer.Context,
    limit: Annotated[int, option_limit("repositories")] = 5000,
    seconds: Seconds = 1200,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Repositories fetched at once.")] = 16,
    per_host: Annotated[int | None, typer.Option(min=1, help="Requests to one server at once.")] = None,
    verify_signatures: Annotated[
        bool | None,
        typer.Option("--verify-signatures/--no-verify-signatures", help="Verify the signature of each commit."),
    ] = None,
    ephemeral: Annotated[bool | None, typer.Option("--ephemeral", help="Keep only events, not records.")] = None,
    shard: ShardOption = None,
    plc_url: Directory = None,
    allow_private: AllowPrivate = None,
    no_lock: NoLock = False,
) -> None:
    """Fetch, verify and store the repositories that are due, from many servers in parallel."""
    from tickwork.sources.atproto.backfill import Backfill
    from tickwork.sources.atproto.xrpc_client import XrpcClient

    deployment: Deployment = context.obj
    settings = settings_of(
        deployment,
        plc=tuple(plc_url) if plc_url else None,
        shard=shard,
        host_concurrency=per_host,
        verify_signatures=verify_signatures,
        ephemeral=ephemeral,
    )
    wanted, part = Filter(settings.filter), Shard.parse(settings.shard)

    def work(one_pass: Pass) -> Iterator[Unit]:
        # The requests end with the pass, whether or not somebody asked it to stop.
        stop = Stop()
        with writing(deployment) as store, Sessions(deployment, settings, stop) as sessions:
            _check_mode(store, settings)
            queue = Queue(store, settings, part)
            queue.choose(wanted)

            def network(claim: Claim) -> XrpcClient:
                return sessions.network(claim.plc, (*(allow_private or ()), *claim.allow))

            spool = deployment.paths.state / "spool" / "atproto"
            job = Backfill(store, queue, settings, one_pass, wanted=wanted, network=network, spool=spool, stop=stop)
            yield from job.units(concurrency)

    deployment.run("atproto-backfill", work, Budget(limit, seconds), lock=not no_lock)


@app.command()
def add(
    context: typer.Context,
    dids: Dids = None,
    file: Annotated[Path | None, typer.Option(help="File with more accounts to add, one per line.")] = None,
    plc_url: Directory = None,
    allow_private: AllowPrivate = None,
) -> None:
    """Add accounts by DID; those already stored are checked again.

    They are kept even if the filter's signals would leave them out. `--plc-url` and `--allow-private` are remembered
    for them.
    """
    deployment: Deployment = context.obj
    wanted = _valid([*(dids or ()), *(_lines(file) if file else ())])
    settings = settings_of(deployment, plc=tuple(plc_url) if plc_url else None)
    _check_excluded(settings, wanted)
    for network in allow_private or ():
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise OperatorError(f"--allow-private: {error}; write a network such as 10.1.0.0/16") from error
    with writing(deployment) as store, store.transaction():
        queue = Queue(store, settings, Shard())
        directories = settings.plc if plc_url else ()
        new, known = queue.add(wanted, plc=directories, allow=allow_private or ())
    print(f"{new} added, {known} already known")


@app.command()
def resync(context: typer.Context, dids: Dids = None) -> None:
    """Have repositories fetched in full and compared again, even if their rev is unchanged."""
    deployment: Deployment = context.obj
    settings, wanted = settings_of(deployment), _valid(dids or ())
    _check_excluded(settings, wanted)
    with writing(deployment) as store, store.transaction():
        queue = Queue(store, settings, Shard())
        for did in wanted:
            if not queue.ask(did, anew=True):
                raise OperatorError(f"{did} is not known; add it: tickwork atproto add {did}")
    print(f"{len(wanted)} due")


@app.command()
def remove(context: typer.Context, dids: Dids = None) -> None:
    """Forget repositories and all their records; a backfill that is fetching one drops it.

    Discovery finds them again unless [atproto.filter] excludes them.
    """
    deployment: Deployment = context.obj
    with writing(deployment) as store, store.transaction():
        for did in _valid(dids or ()):
            row = store.connection.execute("SELECT account FROM repos WHERE did = ?", (did,)).fetchone()
            if row is None:
                raise OperatorError(f"{did} is not known")
            store.wipe(did)
            if row["account"]:  # of one that nothing was told of, neither is its end
                store.tell_account(did, "removed")
            store.connection.execute("DELETE FROM disagreements WHERE did = ?", (did,))
            store.connection.execute("DELETE FROM repos WHERE did = ?", (did,))
    print(f"{len(set(dids or ()))} removed")


def _valid(dids: Iterable[str]) -> list[str]:
    listed = list(dict.fromkeys(dids))
    for did in listed:
        if not is_did(did):
            raise OperatorError(f"{did[:100]!r} is not a valid DID; write did:plc:... or did:web:...")
    if not listed:
        raise OperatorError("name at least one account")
    return listed


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"cannot read {file}: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _check_excluded(settings: AtprotoSettings, dids: Iterable[str]) -> None:
    if excluded := Filter(settings.filter).excludes.intersection(dids):
        raise OperatorError(f"{min(excluded)} is excluded in [atproto.filter]; remove it there first")


def _check_mode(store: AtprotoStore, settings: AtprotoSettings) -> None:
    """Refuse to mix: events without records, and records, cannot be told apart in one database."""
    mode = "ephemeral" if settings.ephemeral else "whole"
    before = store.fact("mode")
    if before and before != mode:
        raise OperatorError(f"this database holds {before} repositories; use another state folder for {mode} ones")
    if not before:
        with store.transaction():
            store.remember("mode", mode)
