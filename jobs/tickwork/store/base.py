"""What the databases of the sources share: opening and migrating, one kind of transaction, remembered facts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from tickwork.contract import database
from tickwork.contract.outcomes import OperatorError
from tickwork.store.migrations import migrate


class Store:
    """The database of one source. Open it with `open` or `reading`, close it by leaving the block.

    A table `facts` comes with it: what a source remembers by name, such as how far it got.
    """

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

    @classmethod
    @contextmanager
    def reading(cls, path: Path, *more: Any, begin: str = "") -> Iterator[Self]:  # noqa: ANN401 - as `open`
        """Open the database at `path` to look at it; where there is none yet it is an empty one.

        With `begin`, the command that stores something first, there must be one. Raises OperatorError, also where it
        cannot be read.
        """
        try:
            made = _schema_of(path)
            if not made and begin:
                raise OperatorError(f"nothing is stored yet; run: {begin}")
            if made and made < cls.version:
                with cls.open(path, *more):
                    pass  # it is of an earlier version, and migrated by being opened
            with cls.open(path if made else Path(":memory:"), *more, read_only=made > 0) as store:
                yield store
        except sqlite3.DatabaseError as error:
            raise OperatorError(f"cannot read {path}: {error}. Restore it from a copy") from error

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


def _schema_of(path: Path) -> int:
    """The version of the schema of a database; 0 where there is none, or whoever was making it was killed."""
    if not path.exists():
        return 0
    with closing(database.connect(path, read_only=True)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
