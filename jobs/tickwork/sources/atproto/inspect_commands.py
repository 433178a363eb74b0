"""The commands of `tickwork atproto` that show what is stored."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterable
from typing import Annotated, Literal

import typer

from tickwork.contract import times
from tickwork.contract.outcomes import OperatorError
from tickwork.deployment import Deployment
from tickwork.options import AsJson
from tickwork.sources.atproto import events as feed
from tickwork.sources.atproto.repo import cbor, dag_json
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.sessions import reading, settings_of
from tickwork.sources.atproto.store import GONE
from tickwork.upstream.hosts import HostKey
from tickwork.upstream.shards import Shard

Did = Annotated[str, typer.Argument(help="An account, as its DID.")]
FOLLOW_SECONDS = 0.5
EVENTS_AT_ONCE = 1000
_TIMES = ("next_retry", "added", "tried", "synced", "changed", "at")
_FLAGS = ("tracked", "explicit", "live", "active")
_LISTS = ("plc", "allow")
_INTERNAL = ("id", "asked")
_Status = Literal[
    "pending",
    "synced",
    "error",
    "parked",
    "discarded",
    "deactivated",
    "takendown",
    "suspended",
    "deleted",
    "tombstoned",
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (events, repos, repo, records, stats):
        app.command()(command)


def events(
    context: typer.Context,
    since: Annotated[int, typer.Option(min=0, help="Start after this event number; 0 starts at the oldest.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Keep printing new events until stopped.")] = False,
    form: Annotated[Literal["jsonl"], typer.Option("--format", help="Output format.")] = "jsonl",
    with_records: Annotated[
        bool, typer.Option("--with-records", help="Include the record of each create or update.")
    ] = False,
) -> None:
    """Write the events after a number, in order and without a gap, one JSON object a line."""
    with reading(context.obj) as store:
        connection = store.connection
        while True:
            rows = feed.since(connection, since, EVENTS_AT_ONCE)
            for row in rows:
                event = _plain(row)
                if with_records and row["cid"]:
                    event |= _record(connection, row["cid"])
                _print(event)
                since = row["seq"]
            sys.stdout.flush()
            if not rows:
                if not follow:
                    return
                time.sleep(FOLLOW_SECONDS)


def repos(
    context: typer.Context,
    status: Annotated[_Status | None, typer.Option(help="Only repositories in this state.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Include repositories that the filter leaves out.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the repositories: account, state, rev, server, and what is the matter with them."""
    with reading(context.obj) as store:
        rows = store.connection.execute(
            "SELECT * FROM repos WHERE status = coalesce(?, status) AND (tracked OR ? OR ? IS NOT NULL) ORDER BY did",
            (status, every, status),
        )
        for row in rows:
            if as_json:
                _print(_plain(row))
            else:
                rev, host = row["rev"] or "-", row["host"] or "-"
                print(f"{row['did']}  {row['status']:11}  {rev:13}  {host}  {row['last_error']}")


def repo(context: typer.Context, did: Did, as_json: AsJson = False) -> None:
    """Show all that is known of one repository."""
    with reading(context.obj) as store:
        row = store.connection.execute("SELECT * FROM repos WHERE did = ?", (did,)).fetchone()
        if row is None:
            raise OperatorError(f"{did} is not known; add it: tickwork atproto add {did}")
        shown = _plain(row)
        counts = store.connection.execute("SELECT collection, records FROM counts WHERE did = ? ORDER BY 1", (did,))
        shown["records"] = {count["collection"]: count["records"] for count in counts}
    if as_json:
        _print(shown)
        return
    for name, value in shown.items():
        if isinstance(value, dict):
            for collection, count in value.items():
                print(f"  {count:8}  {collection}")
        elif value not in ("", None, []):
            value = " ".join(value) if isinstance(value, list) else value
            print(f"{name:14} {value}")


def records(
    context: typer.Context,
    did: Did,
    collection: Annotated[str, typer.Option(help="Only records of this collection.")] = "",
) -> None:
    """Write the records of a repository, one JSON object a line: path, CID, and the record."""
    with reading(context.obj) as store:
        if not store.connection.execute("SELECT 1 FROM repos WHERE did = ?", (did,)).fetchone():
            raise OperatorError(f"{did} is not known; add it: tickwork atproto add {did}")
        rows = store.connection.execute(
            "SELECT collection, rkey, records.cid, data FROM records LEFT JOIN blocks ON blocks.cid = records.cid"
            " WHERE did = ? AND (collection = ? OR ? = '') ORDER BY collection, rkey",
            (did, collection, collection),
        )
        for row in rows:
            uri = f"at://{did}/{row['collection']}/{row['rkey']}"
            _print({"uri": uri, "cid": row["cid"]} | _value("value", row["data"], uri))


def stats(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the figures: repositories by state and fault, records, blocks, events, and where discovery is."""
    deployment: Deployment = context.obj
    part = Shard.parse(settings_of(deployment).shard)
    with reading(deployment, begin="") as store:
        figures = _figures(store.connection, part)
    if as_json:
        _print(figures)
        return
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{name:12} " + (", ".join(f"{count} {key}" for key, count in value.items()) or "none"))
        elif isinstance(value, list):
            for listed in value:
                print(
                    f"{name:12} {listed['name']}: {listed['repositories']} so far, "
                    + (listed["completed"] or "not complete yet")
                )
        else:
            print(f"{name:12} {value}")


def _figures(connection: sqlite3.Connection, part: Shard) -> dict[str, object]:
    def pairs(query: str) -> dict[str, int]:
        return {row[0]: row[1] for row in connection.execute(query)}

    def one(query: str) -> int:
        return int(connection.execute(query).fetchone()[0] or 0)

    states = pairs("SELECT status, count(*) FROM repos GROUP BY status")
    hosts = pairs("SELECT host, count(*) FROM repos WHERE next_retry IS NOT NULL GROUP BY host")
    return {
        "pending": states.get("pending", 0),
        "synced": states.get("synced", 0),
        "error": pairs("SELECT error_kind, count(*) FROM repos WHERE status = 'error' GROUP BY error_kind"),
        "gone": {status: states[status] for status in GONE if status in states},
        "parked": states.get("parked", 0),
        "discarded": states.get("discarded", 0),
        "elsewhere": sum(count for host, count in hosts.items() if not part.owns(HostKey(host))),
        "records": one("SELECT sum(records) FROM counts"),
        "blocks": one("SELECT count(*) FROM blocks"),
        "events": one("SELECT count(*) FROM events"),
        "last_event": feed.newest(connection),
        "collections": pairs("SELECT collection, sum(records) FROM counts GROUP BY collection ORDER BY 2 DESC"),
        "lists": [
            _plain(row)
            for row in connection.execute(
                "SELECT rtrim(origin || ' ' || collection) AS name, * FROM lists ORDER BY origin, collection"
            )
        ],
    }


def _plain(row: sqlite3.Row) -> dict[str, object]:
    """A row as JSON has it: times as text, flags as such, nothing of the queue's inner workings."""
    plain: dict[str, object] = {}
    for name in row.keys():  # noqa: SIM118 - a Row iterates over its values
        value = row[name]
        if name in _INTERNAL:
            continue
        if value is not None and name in (*_TIMES, "begun", "completed"):
            value = times.show(times.of_unix(value), "milliseconds")
        elif value is not None and name in _FLAGS:
            value = bool(value)
        elif name in _LISTS:
            value = json.loads(value) if value else []
        plain[name] = value
    return plain


def _record(connection: sqlite3.Connection, cid: str) -> dict[str, object]:
    row = connection.execute("SELECT data FROM blocks WHERE cid = ?", (cid,)).fetchone()
    return _value("record", row["data"], cid) if row else {"record": None}


def _value(name: str, data: bytes, what: str) -> dict[str, object]:
    """A record under `name`; one that is no strict DAG-CBOR, as an owner may store it, as its bytes and the reason."""
    try:
        return {name: dag_json.to_json(cbor.decode(data, what))}
    except InvalidRepositoryError as error:
        return {name: dag_json.to_json(data), "invalid": str(error)}


def _print(value: Iterable[object] | dict[str, object]) -> None:
    print(json.dumps(value, ensure_ascii=False))
