"""The backfill: ask for every record that is active upstream and not stored here, one at a time, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tickwork.contract.outcomes import Halt, Held, Transient
from tickwork.contract.runner import Pass
from tickwork.contract.units import Unit
from tickwork.sources.doab import worklist
from tickwork.sources.doab.circuit_breaker import CircuitBreaker
from tickwork.sources.doab.errors import BadAnswer, OaiError
from tickwork.sources.doab.identifier_lists import IdentifierList
from tickwork.sources.doab.oai import OaiClient
from tickwork.sources.doab.response import Record
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore
from tickwork.sources.doab.worklist import Item, State, Worklist

MAX_FAULTS_IN_A_ROW = 3
"""So many faults of different records in a row are the server's trouble, not the records'."""
SOURCE = "source of the worklist {name}"


def prepare(
    store: DoabStore, name: str, snapshot: IdentifierList, settings: DoabSettings, warn: Callable[[str], None]
) -> Worklist:
    """Make the worklist `name` out of `snapshot`, unless it was made of the same one already; commits.

    Raises Halt for a list that cannot be the repository's: empty, or with malformed identifiers.
    """
    todo = Worklist(store, name)
    made_of = SOURCE.format(name=name)
    if store.fact(made_of) == snapshot.digest:
        with store.transaction():
            todo.settle_present()
        return todo
    malformed = malformed_in(snapshot, settings)
    if malformed:
        warn(f"malformed identifiers left for review: {len(malformed)}, the first is {malformed[0]!r}")
    missing = worklist.plan(snapshot.identifiers, store.live(), settings.pattern())
    with store.transaction():
        todo.fill(missing, malformed)
        store.remember(made_of, snapshot.digest)
    return todo


def malformed_in(snapshot: IdentifierList, settings: DoabSettings) -> list[str]:
    """The identifiers that do not match the pattern. Raises Halt when they are too many, or all."""
    pattern = settings.pattern()
    identifiers = snapshot.identifiers
    malformed = sorted(identifier for identifier in identifiers if not pattern.fullmatch(identifier))
    if not identifiers:
        raise Halt("the list of identifiers is empty. Check the snapshot, or base_url and set")
    if len(malformed) > settings.malformed_share * len(identifiers):
        raise Halt(
            f"{len(malformed)} of {len(identifiers)} identifiers are malformed (limit {settings.malformed_share:.0%}), "
            f"the first is {malformed[0]!r}. Check the list, or identifier_pattern in the settings"
        )
    return malformed


def backfill(
    store: DoabStore, oai: OaiClient, settings: DoabSettings, todo: Worklist, breaker: CircuitBreaker, one_pass: Pass
) -> Iterator[Unit]:
    """Fetch what the worklist has; one unit is one record asked for.

    Faults of one record put it off and never block the others; several in a row end the pass. Raises Held, Transient,
    Halt; Transient also when all that is left waits for a later retry.
    """
    breaker.check()
    one_pass.backlog = todo.backlog()
    faults = 0
    for item in todo.items():
        if store.is_live(item.identifier):
            with store.transaction():
                todo.settle(item, "present")
            one_pass.backlog -= 1
            yield Unit(items=0)
            continue
        state, why, size = _ask(store, oai, todo, item, settings)
        if state == "retry":
            faults += 1
        else:
            # The faults before an answer were those records' own; a row of them that ends the pass is an outage.
            breaker.saw(*["fault"] * faults, state)
            faults = 0
            one_pass.backlog -= 1
        yield Unit(size=size, note=f"{item.identifier} {state}", progress=state != "retry")
        if faults >= MAX_FAULTS_IN_A_ROW:
            raise Transient(f"{faults} records in a row failed, the last with: {why}")
    if left := todo.backlog():
        raise Transient(f"records waiting for a retry: {left}, the first at {todo.next_due()[:19]}Z")
    breaker.drained()
    if reviews := len(todo.reviews()):
        one_pass.warn(f"drained; records that need a human: {reviews}. See: tickwork doab stats")


def _ask(
    store: DoabStore, oai: OaiClient, todo: Worklist, item: Item, settings: DoabSettings
) -> tuple[State, str, int]:
    """Ask for one record and commit what became of it: its state, why, and the size of the answer in bytes."""
    record: Record | None = None
    state: State
    size, why = 0, ""
    # Before a record is given up the server must answer something else: an outage is no record's fault.
    on_fault: State = "review" if item.attempts + 1 >= settings.max_attempts and _is_up(oai) else "retry"
    try:
        record, size = oai.record(item.identifier)
    except OaiError as error:
        state, why = ("gone", "") if error.code == "idDoesNotExist" else ("review", str(error))
    except Transient as fault:
        # Unreadable, 5xx, network: this record's trouble or the server's, told apart by whether others follow.
        state, why = on_fault, str(fault)
    except (Held, BadAnswer) as end:
        # The pass ends, but not for the sake of this record alone: the next one begins with another.
        if isinstance(end, BadAnswer) or end.answered:
            with store.transaction():
                todo.settle(item, "review" if isinstance(end, BadAnswer) else on_fault, str(end), soon=True)
        raise
    else:
        state, why = _judge(record, item.identifier)
    with store.transaction():
        if record is not None and state in ("ok", "gone"):
            store.save([record])
        todo.settle(item, state, why)
    return state, why, size


def _is_up(oai: OaiClient) -> bool:
    try:
        oai.identify()
    except OaiError:
        return True
    except Transient:
        return False
    return True


def _judge(record: Record, identifier: str) -> tuple[State, str]:
    if record.identifier != identifier:
        return "review", f"the server answered with {record.identifier}"
    if record.deleted:
        return "gone", ""
    if record.metadata is None:
        return "review", "it is neither deleted nor has metadata"
    return "ok", ""
