"""The control endpoints, by which other processes read the judgement and pull the switches."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from tests.upstreams.books import BOOK_SETS, Book
from tests.upstreams.faults import Fault, Switches
from tests.upstreams.oai_history import Recorder
from tests.upstreams.oai_wire import CONTROL, Answer, Request


class Controlled(Protocol):
    """The part of the server that can be seen and changed from outside."""

    recorder: Recorder
    switches: Switches

    def put(self, book: Book) -> None:
        """Add or replace a record."""

    def delete(self, identifier: str, when: datetime | None = None) -> None:
        """Mark a record deleted."""

    def touch(self, identifier: str, when: datetime | None = None) -> None:
        """Give a record a new datestamp."""

    def remove(self, identifier: str) -> None:
        """Forget a record."""


def control(server: Controlled, request: Request) -> Answer:
    """The JSON answer to a request under `/-/`."""
    handle = _HANDLERS.get((request.method, request.path.removeprefix(CONTROL)))
    if handle is None:
        return _json(404, {"error": f"no {request.method} {request.path}"})
    try:
        return _json(200, handle(server, json.loads(request.body or b"null")))
    except (KeyError, TypeError, ValueError) as error:
        return _json(400, {"error": f"{type(error).__name__}: {error}"})


def _history(server: Controlled, _: Any) -> Any:
    return server.recorder.snapshot().to_json()


def _judgement(server: Controlled, _: Any) -> Any:
    return server.recorder.snapshot().summary()


def _set_faults(server: Controlled, switches: list[dict[str, Any]]) -> Any:
    faults = [Fault.from_json(switch) for switch in switches]
    server.switches.replace(faults)
    return {"faults": len(faults)}


def _change(server: Controlled, changes: dict[str, Any] | list[dict[str, Any]]) -> Any:
    listed = [changes] if isinstance(changes, dict) else changes
    for change in listed:
        _change_one(server, change)
    return {"changed": len(listed)}


def _change_one(server: Controlled, change: dict[str, Any]) -> None:
    action = change["action"]
    when = datetime.fromisoformat(change["when"]) if change.get("when") else None
    if action == "put":
        server.put(_book(change["book"]))
    elif action == "delete":
        server.delete(change["identifier"], when)
    elif action == "touch":
        server.touch(change["identifier"], when)
    elif action == "remove":
        server.remove(change["identifier"])
    else:
        raise ValueError(f"no action {action!r}; there are put, delete, touch and remove")


def _book(row: dict[str, Any]) -> Book:
    datestamp = datetime.fromisoformat(row["datestamp"])
    handle = row.get("handle") or row["identifier"].rpartition(":")[2]
    return Book(**{"sets": BOOK_SETS, **row, "datestamp": datestamp, "handle": handle})


def _json(status: int, value: Any) -> Answer:
    return Answer(status, json.dumps(value).encode(), "application/json")


_HANDLERS: dict[tuple[str, str], Callable[[Controlled, Any], Any]] = {
    ("GET", "history"): _history,
    ("GET", "judgement"): _judgement,
    ("POST", "faults"): _set_faults,
    ("POST", "change"): _change,
}
