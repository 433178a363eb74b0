"""The backfill: fetch what is due, from all servers side by side, verify it, and store what changed.

Threads fetch; this generator commits, one repository at a time. What was fetched when a pass ends is fetched again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tickwork.contract import times
from tickwork.contract.outcomes import Held, Transient
from tickwork.contract.runner import Pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Unit
from tickwork.sources.atproto import events
from tickwork.sources.atproto.apply_diff import keep
from tickwork.sources.atproto.errors import (
    DirectoryDown,
    DirectoryHeld,
    Fault,
    Gone,
    Kind,
    Removed,
    Unresolved,
    Unwanted,
)
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.queue import Claim, Queue
from tickwork.sources.atproto.repo import repository
from tickwork.sources.atproto.repo.car import Caps
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import cid_text
from tickwork.sources.atproto.repo.identity import Identity
from tickwork.sources.atproto.repo.repository import Repository
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore
from tickwork.sources.atproto.xrpc_client import XrpcClient
from tickwork.upstream.fetch_pool import FetchPool
from tickwork.upstream.host_turns import HostTurns
from tickwork.upstream.hosts import UNKNOWN, HostKey

CLAIM_UNTIL = 0.9
"""Share of the pass's time after which nothing more is begun: what is under way then can still be stored."""
DOCUMENT_SECONDS = 300.0
"""How long a document may be used that was read to find the server, before the repository is fetched there."""
MAX_DOCUMENTS = 10_000
"""So many are remembered; the others are asked for once more."""
MAX_DIRECTORY_FAULTS = 3


@dataclass(frozen=True, slots=True)
class Located:
    """The account is at another server than was thought; nothing was asked of that one."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The server has the rev that is stored."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Fetched:
    """A repository lies in a file, and nothing of it was looked at yet."""

    identity: Identity
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class _Settled:
    """What was committed: a word on it, whether the repository has left the queue, what the budget counts."""

    note: str
    left: bool = True
    items: int = 1


Outcome = Located | Unchanged | Fetched | Fault | Gone | Held | DirectoryDown


class Backfill:
    """One pass over the queue; `units` makes it.

    `network` gives the network for a claim, `spool` is a folder for files on their way, which is ours alone, `stop` is
    what the requests watch.
    """

    def __init__(
        self,
        store: AtprotoStore,
        queue: Queue,
        settings: AtprotoSettings,
        one_pass: Pass,
        *,
        wanted: Filter,
        network: Callable[[Claim], XrpcClient],
        spool: Path,
        stop: Stop,
    ) -> None:
        self._store = store
        self._queue = queue
        self._settings = settings
        self._pass = one_pass
        self._wanted = wanted
        self._network = network
        self._spool = spool
        self._stop = stop
        self._turns = HostTurns(queue, per_host=settings.host_concurrency, unknown=settings.plc_concurrency)
        self._documents: dict[int, tuple[float, Identity]] = {}
        self._under_way = 0
        self._directory_faults = 0
        self._why_directory = ""

    def units(self, concurrency: int) -> Iterator[Unit]:
        """One unit is one repository dealt with. Raises Held, Transient, Interrupted."""
        self._empty_spool()
        yield from events.prune(self._store, self._settings)
        self._pass.backlog, _ = self._queue.waiting()
        with FetchPool[tuple[Claim, Outcome]](concurrency, self._pass, self._stop) as pool:
            while True:
                while pool.busy < pool.size and (claim := self._claim()):
                    pool.start(partial(self._work, claim, self._network(claim), self._document(claim)))
                if not pool.busy:
                    break
                claim, outcome = pool.next()
                try:
                    unit = self._settle(claim, outcome)
                finally:
                    if isinstance(outcome, Fetched):
                        outcome.path.unlink(missing_ok=True)
                self._under_way -= bool(claim.host)
                self._turns.done(claim)
                yield unit
        self._conclude()

    # Taking from the queue.

    def _claim(self) -> Claim | None:
        budget = self._pass.budget
        # As many as may still be counted, and no more: what the pass cannot commit would be fetched for nothing.
        if budget.remaining is not None and self._under_way >= budget.remaining:
            return None
        if budget.seconds and (budget.seconds_left or 0.0) < (1 - CLAIM_UNTIL) * budget.seconds:
            return None
        if self._directory_faults >= MAX_DIRECTORY_FAULTS:
            return None
        claim = self._turns.claim()
        if claim:
            self._under_way += bool(claim.host)
        return claim

    def _document(self, claim: Claim) -> Identity | None:
        """The document by which the server was found, while it is fresh."""
        read, identity = self._documents.pop(claim.id, (0.0, None))
        return identity if time.monotonic() - read < DOCUMENT_SECONDS else None

    # In threads.

    def _work(self, claim: Claim, network: XrpcClient, identity: Identity | None) -> tuple[Claim, Outcome]:
        try:
            return claim, self._ask(claim, network, identity)
        except (Fault, Gone, Held, DirectoryDown) as outcome:
            return claim, outcome

    def _ask(self, claim: Claim, network: XrpcClient, identity: Identity | None) -> Outcome:
        if identity is None:
            identity = network.resolve(claim.did)
            if identity.host != claim.host:
                return Located(identity)
        if claim.rev and claim.filter == self._wanted.fingerprint and network.newest_rev(identity) == claim.rev:
            return Unchanged(identity)
        path = self._spool / f"{claim.id}.car"
        return Fetched(identity, path, network.fetch(identity, path))

    # Committing.

    def _settle(self, claim: Claim, outcome: Outcome) -> Unit:
        """Commit what became of a claim."""
        try:
            settled = self._commit(claim, outcome)
        except Removed:
            settled = _Settled("removed meanwhile")
        if not isinstance(outcome, DirectoryDown):
            self._directory_faults = 0
        if settled.left and self._pass.backlog:
            self._pass.backlog -= 1
        size = outcome.size if isinstance(outcome, Fetched) else 0
        return Unit(settled.items, size, f"{claim.did} {settled.note}", progress=settled.left)

    def _commit(self, claim: Claim, outcome: Outcome) -> _Settled:
        match outcome:
            case Located():
                return self._located(claim, outcome)
            case Held():
                return self._held(claim, outcome)
            case DirectoryDown():
                return self._directory_down(claim, outcome)
            case Fetched():
                return self._fetched(claim, outcome)
            case Unchanged():
                return self._unchanged(claim, outcome.identity)
            case Gone():
                return self._gone(claim, outcome)
            case Unresolved():
                return self._failed(claim, outcome.kind, str(outcome), asked=False)
            case Fault():
                return self._failed(claim, outcome.kind, str(outcome))

    def _located(self, claim: Claim, located: Located) -> _Settled:
        identity = located.identity
        if identity.host == UNKNOWN:
            return self._failed(claim, "generic", f"the DID document of {claim.did} does not name a server")
        with self._store.transaction():
            self._queue.located(claim, identity)
        if len(self._documents) < MAX_DOCUMENTS:
            self._documents[claim.id] = (time.monotonic(), identity)
        self._turns.expect(identity.host)
        return _Settled(f"is at {identity.host}", left=False, items=0)

    def _held(self, claim: Claim, held: Held) -> _Settled:
        until = held.until.timestamp()
        self._turns.rest(HostKey(held.host), until)
        if not held.answered and held.host == claim.host:
            return _Settled("was not asked for", left=False, items=0)
        # Its own request was refused, or it needs a host that others do not: they are not to wait with it.
        with self._store.transaction():
            self._queue.failed(claim, "ratelimited", str(held), until=until, counts=False)
        return _Settled("ratelimited", left=False)

    def _directory_down(self, claim: Claim, down: DirectoryDown) -> _Settled:
        if claim.plc:
            # It has directories of its own, of which the others know nothing.
            until = down.held.until.timestamp() if isinstance(down, DirectoryHeld) else None
            with self._store.transaction():
                self._queue.failed(claim, "ratelimited" if until else "transport", str(down), until=until, counts=False)
            return _Settled("error", left=False)
        self._why_directory = str(down)
        if isinstance(down, DirectoryHeld):
            self._directory_faults = MAX_DIRECTORY_FAULTS
            return _Settled("was not resolved", left=False, items=0)
        self._directory_faults += 1
        with self._store.transaction():
            self._queue.failed(claim, "transport", str(down), counts=False)
        return _Settled("error", left=False)

    def _failed(self, claim: Claim, kind: Kind, why: str, *, asked: bool = True) -> _Settled:
        """`asked` is whether its server was."""
        if asked and kind == "transport":
            self._turns.failed(claim.host)
        elif asked:
            self._turns.answered(claim.host)
        with self._store.transaction():
            state = self._queue.failed(claim, kind, why)
        return _Settled(state, left=state == "parked")

    def _gone(self, claim: Claim, gone: Gone) -> _Settled:
        self._turns.answered(claim.host)
        with self._store.transaction():
            if gone.status == "deleted":
                self._store.wipe(claim.did)
            self._queue.gone(claim, gone.status, str(gone))
            self._store.tell_account(claim.did, gone.status)
        return _Settled(gone.status)

    def _unchanged(self, claim: Claim, identity: Identity) -> _Settled:
        self._turns.answered(claim.host)
        with self._store.transaction():
            self._queue.settled(claim, "synced", claim.filter, **_columns(identity))
            self._store.tell_account(claim.did, "active")
        return _Settled("unchanged")

    def _fetched(self, claim: Claim, fetched: Fetched) -> _Settled:
        self._turns.answered(claim.host)
        try:
            key = fetched.identity.signing_key() if self._settings.verify_signatures else None
            with (
                fetched.path.open("rb") as file,
                repository.read(
                    file,
                    claim.did,
                    key,
                    now=times.now(),
                    caps=Caps(file_bytes=self._settings.max_bytes),
                    at_least_rev=claim.rev,
                ) as repo,
            ):
                return _Settled(self._keep(claim, fetched.identity, repo))
        except InvalidRepositoryError as error:
            return self._failed(claim, "generic", str(error))

    def _keep(self, claim: Claim, identity: Identity, repo: Repository) -> str:
        """Commit records, blocks, events, counts and the queue's row together; gives a note."""
        commit, chosen_by = repo.commit, self._wanted.fingerprint
        columns = {**_columns(identity), "rev": commit.rev, "data": cid_text(commit.data)}
        same = commit.rev == claim.rev and columns["data"] == claim.data
        if commit.rev and commit.rev == claim.rev and not same:
            raise InvalidRepositoryError(f"its rev {commit.rev} is already stored, but its records differ")
        note = "unchanged"
        try:
            with self._store.transaction():
                if not (same and claim.filter == chosen_by):
                    explicit, ephemeral = claim.explicit, self._settings.ephemeral
                    changes = keep(
                        self._store,
                        claim.did,
                        repo,
                        self._wanted,
                        explicit=explicit,
                        ephemeral=ephemeral,
                        stop=self._pass.stop,
                    )
                    note = ", ".join(f"{count} {action}d" for action, count in sorted(changes.items())) or "no change"
                    columns["invalid_paths"] = repo.invalid_paths.count
                self._queue.settled(claim, "synced", chosen_by, **columns)
                self._store.tell_account(claim.did, "active")
        except Unwanted:
            with self._store.transaction():
                self._store.wipe(claim.did, commit.rev)
                self._queue.settled(claim, "discarded", chosen_by, **columns)
            return "discarded"
        if repo.invalid_paths.count:
            self._pass.warn(
                f"{claim.did}: records left out because their path is invalid: {repo.invalid_paths.count}, "
                f"the first is {repo.invalid_paths.first[0]}"
            )
        return note

    # Beginning and end.

    def _empty_spool(self) -> None:
        """Remove what a pass left behind that was killed."""
        self._spool.mkdir(parents=True, exist_ok=True)
        for path in self._spool.iterdir():
            path.unlink()

    def _conclude(self) -> None:
        """Return if nothing is left to do, else raise why this pass does not do it."""
        if self._why_directory and self._directory_faults >= MAX_DIRECTORY_FAULTS:
            raise Transient(f"did:plc cannot be resolved: {self._why_directory}")
        left, first = self._queue.waiting()
        self._pass.backlog = left
        if not left:
            return
        words = [f"{left} repositories are waiting" if left > 1 else "one repository is waiting"]
        if resting := self._turns.resting:
            words.append(f"servers skipped for now: {resting}")
        if first > time.time():
            words.append(f"the next retry is at {times.show(times.of_unix(first))}")
        raise Transient("; ".join(words))


def _columns(identity: Identity) -> dict[str, object]:
    """What a document says, as columns; a key that cannot be read has none."""
    try:
        key = str(identity.signing_key())
    except InvalidRepositoryError:
        key = ""
    return {
        "pds": identity.pds or "",
        "handle": identity.handle or "",
        "signing_key": key,
        "host": identity.host,
    }
