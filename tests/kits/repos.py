"""What the tests of the repository backfill share: a deployment against the fake network, and a judge of its store.

The judge reads the database with SQL of its own: it knows the tables, and nothing of the code that writes them.
"""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer.main

from tests.upstreams.pds import Network
from tickwork.cli import main

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


_parameters = cache(typer.main.get_params_from_function)


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


class Archive:
    """A folder with a deployment whose commands run in this process, or (`start`) as one of their own."""

    def __init__(self, home: Path, network: Network | None = None, config: str = "", quick: str = QUICK) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.state = home / "state"
        self.config = home / "tickwork.toml"
        self.network = network
        self.configure(config, quick)

    def configure(self, config: str, quick: str = QUICK) -> None:
        """Write the settings: the quick ones, and more of the table [atproto] after them."""
        directories = f"plc = {json.dumps(self.network.plc_urls)}\n" if self.network else ""
        self.config.write_text(f'allow_private = ["127.0.0.0/8"]\n{quick}{directories}{config}')

    @property
    def options(self) -> list[str]:
        return ["--config", str(self.config), "--state", str(self.state)]

    def run(self, *arguments: str) -> Said:
        """Run `tickwork atproto ...` in this process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            # These take longer than most passes: the list of authorities, which nobody here needs, and the signatures
            # of all commands, which are the same each time.
            patch.object(ssl.SSLContext, "load_verify_locations"),
            patch.object(typer.main, "get_params_from_function", _parameters),
            pytest.raises(SystemExit) as end,
        ):
            main([*self.options, "atproto", *arguments])
        code = end.value.code
        return Said(code if isinstance(code, int) else int(bool(code)), out.getvalue(), err.getvalue())

    def good(self, *arguments: str) -> str:
        """Run a command that must succeed; gives its output."""
        said = self.run(*arguments)
        assert said.code == 0, said
        return said.out

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `tickwork atproto ...` as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tickwork", *self.options, "atproto", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def backfill(self, *arguments: str) -> Said:
        """One pass that ends in order, drained or not."""
        said = self.run("backfill", *arguments)
        assert said.code in (0, 3), said
        return said

    def drain(self, passes: int = 60) -> None:
        """Pass after pass, until one says that nothing is left."""
        for _ in range(passes):
            said = self.backfill()
            if said.code == 0:
                return
        raise AssertionError(f"not drained after {passes} passes: {said}")

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
