"""What the tests of the repository backfill share: a deployment against the fake network, and a judge of its store.

The judge reads the database with SQL of its own: it knows the tables, and nothing of the code that writes them.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kits.deployment import Deployment, Said
from tests.kits.patience import until
from tests.upstreams.pds import Network

# No pauses: the fake judges what matters, and its servers are on this machine.
QUICK = """
[atproto]
plc_interval_seconds = 0
host_interval_seconds = 0
list_interval_seconds = 0
retry_seconds = 0.05
retry_cap_seconds = 0.2
list_again_seconds = 0
"""


class Archive(Deployment):
    """A deployment whose commands are those of `tickwork atproto`."""

    def __init__(self, home: Path, network: Network | None = None, config: str = "", quick: str = QUICK) -> None:
        super().__init__(home)
        self.network = network
        self.configure(config, quick)

    def configure(self, config: str, quick: str = QUICK) -> None:
        """Write the settings: the quick ones, and more of the table [atproto] after them."""
        directories = f"plc = {json.dumps(self.network.plc_urls)}\n" if self.network else ""
        self.config.write_text(f'allow_private = ["127.0.0.0/8"]\n{quick}{directories}{config}')

    def command(self, *arguments: str) -> list[str]:
        """The arguments of the console command."""
        return super().command("atproto", *arguments)

    def backfill(self, *arguments: str) -> Said:
        """One pass that ends in order, drained or not."""
        said = self.run("backfill", *arguments)
        assert said.code in (0, 3), said
        return said

    def drain(self) -> None:
        """Pass after pass, for as long as something is due later, until one says that nothing is left."""
        until(lambda: self.backfill().code == 0, self.statuses)

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a query."""
        connection = sqlite3.connect(f"file:{self.state / 'db' / 'atproto.db'}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        with contextlib.closing(connection):
            return [dict(row) for row in connection.execute(sql, values)]

    def write(self, sql: str, *values: object) -> None:
        """Change the database behind the back of the commands."""
        with contextlib.closing(sqlite3.connect(self.state / "db" / "atproto.db")) as connection, connection:
            connection.execute(sql, values)

    def pass_time(self) -> None:
        """Make everything due that is planned for later."""
        self.write("UPDATE repos SET next_retry = 1 WHERE next_retry IS NOT NULL")

    def sync(self, *dids: str) -> None:
        """Add accounts, and fetch all that is due."""
        self.good("add", *dids)
        self.drain()

    def repo(self, did: str) -> dict[str, Any]:
        """The row of a repository."""
        (row,) = self.rows("SELECT * FROM repos WHERE did = ?", did)
        return row

    def statuses(self) -> Counter[str]:
        """How many repositories are in each state."""
        return Counter(row["status"] for row in self.rows("SELECT status FROM repos"))

    def stored(self, did: str) -> dict[str, str]:
        """CIDs of the stored records of a repository, by path."""
        rows = self.rows("SELECT collection || '/' || rkey AS path, cid FROM records WHERE did = ?", did)
        return {row["path"]: row["cid"] for row in rows}

    def events(self, did: str = "") -> list[dict[str, Any]]:
        """All events, or those of one repository, in order."""
        return self.rows("SELECT * FROM events WHERE did = ? OR ? = '' ORDER BY seq", did, did)

    def judge(self, truths: Mapping[str, Mapping[str, str]] | None = None, *, replayed: bool = True) -> None:
        """Fail unless the store is sound in itself, and (with `truths`) has just what those say.

        Sound: records, events, blocks, references and counts agree with each other, recounted from nothing.
        `replayed` is for a store whose events were never pruned: they lead to the records.
        """
        records = {
            (row["did"], row["collection"], row["rkey"]): row["cid"] for row in self.rows("SELECT * FROM records")
        }
        events = self.events()
        references = Counter(records.values()) + Counter(row["cid"] for row in events if row["cid"])
        assert {row["cid"]: row["refs"] for row in self.rows("SELECT cid, refs FROM blocks")} == dict(references)
        counted = Counter((did, collection) for did, collection, _ in records)
        assert {(r["did"], r["collection"]): r["records"] for r in self.rows("SELECT * FROM counts")} == dict(counted)
        if events:
            numbers = [row["seq"] for row in events]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "the numbers have a gap"
        if replayed:
            assert replay(events) == records
        if truths is not None:
            stored: dict[str, dict[str, str]] = {did: {} for did in truths}
            for (did, collection, key), cid in records.items():
                stored[did][f"{collection}/{key}"] = cid
            assert stored == {did: dict(truth) for did, truth in truths.items()}


def replay(events: list[dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    """The records to which events lead; fails for one that cannot be applied to what was there before it."""
    records: dict[tuple[str, str, str], str] = {}
    told: dict[str, str] = {}
    for event in events:
        if event["kind"] == "account":
            status = event["status"] or "active"
            assert told.get(event["did"]) != status, f"told twice: {event}"
            assert bool(event["active"]) == (status == "active"), event
            told[event["did"]] = status
            continue
        place = (event["did"], event["collection"], event["rkey"])
        match event["action"]:
            case "create":
                assert place not in records, f"created twice: {event}"
                records[place] = event["cid"]
            case "update":
                assert records[place] != event["cid"], f"an update that changes nothing: {event}"
                records[place] = event["cid"]
            case "delete":
                assert event["cid"] is None
                del records[place]
    return records
