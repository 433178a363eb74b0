"""What the tests of the runner share: a job, works that end as they are told, and a small store."""

from __future__ import annotations

from collections.abc import Iterator

from tickwork.contract import database
from tickwork.contract.jobs import Job
from tickwork.contract.ledger import Ledger, PassRow
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, Work
from tickwork.contract.units import Unit

JOB = Job(name="nightly", locks=("a",), drains=True)
ITEMS = 20


def last(paths: Paths) -> PassRow:
    with Ledger(paths.database("ledger"), read_only=True) as ledger:
        found = ledger.recent("nightly", 1)
    assert found
    return found[0]


def units(count: int) -> Work:
    def work(one_pass: Pass) -> Iterator[Unit]:
        for _ in range(count):
            yield Unit()

    return work


def ending_with(end: Exception, after: int = 1) -> Work:
    def work(one_pass: Pass) -> Iterator[Unit]:
        yield from units(after)(one_pass)
        raise end

    return work


class Store:
    """A worklist and what came of it, in one database: what a source's store is, in small."""

    def __init__(self, paths: Paths) -> None:
        self.connection = database.connect(paths.database("store"))
        self.connection.execute("CREATE TABLE IF NOT EXISTS results (item INTEGER PRIMARY KEY, value TEXT)")
        self.connection.execute("CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY, next INTEGER)")
        self.connection.execute("INSERT OR IGNORE INTO progress VALUES (1, 0)")

    def work(self, one_pass: Pass) -> Iterator[Unit]:
        while (item := self.connection.execute("SELECT next FROM progress").fetchone()[0]) < ITEMS:
            one_pass.backlog = ITEMS - item - 1
            with database.transaction(self.connection, "store") as connection:
                connection.execute("INSERT INTO results VALUES (?, ?)", (item, f"value {item}"))
                connection.execute("UPDATE progress SET next = ?", (item + 1,))
            yield Unit()

    def canonical(self) -> list[tuple[int, str]]:
        return [tuple(row) for row in self.connection.execute("SELECT item, value FROM results ORDER BY item")]
