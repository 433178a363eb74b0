"""What the databases of the sources share: opening and migrating, one kind of transaction, remembered facts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from tickwork.contract import database
from tickwork.store.migrations import migrate


class Store:
    """The database of one source, which has a table `facts`. Open it with `open`, close it by leaving the block."""

    name: ClassVar[str]
    schema: ClassVar[str]
    """The module with its migrations."""
    version: ClassVar[int]
    """How many migrations there are."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path, *more: Any, read_only: bool = False) -> Iterator[Self]:  # noqa: ANN401 - what __init__ takes
        """Open the database at `path`, making or migrating it unless `read_only`. Raises OperatorError."""
        connection = database.connect(path, read_only=read_only)
        try:
            if not read_only:
                migrate(connection, cls.schema, cls.version)
            yield cls(connection, *more)
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction: data and progress commit together or not at all."""
        with database.transaction(self.connection, self.name):
            yield

    def fact(self, name: str) -> str:
        """A remembered fact such as a cursor, or an empty string."""
        row = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row["value"] if row else ""

    def remember(self, name: str, value: str) -> None:
        """Remember a fact, inside a transaction."""
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
