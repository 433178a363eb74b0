"""What every store has, whatever its own tables are."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tickwork.contract.outcomes import OperatorError
from tickwork.store.base import Store

SCHEMA = """
from sqlite_utils import Database, Migrations

migrations = Migrations("toys")


@migrations()
def m001_toys(db: Database) -> None:
    db.execute("CREATE TABLE toys (name TEXT PRIMARY KEY)")
    db.execute("INSERT INTO facts VALUES ('made', 'by the first migration')")
"""
SECOND = """

@migrations()
def m002_colours(db: Database) -> None:
    db.execute("ALTER TABLE toys ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> type[Store]:
    """A store whose schema says nothing of facts."""
    module = f"toys_{request.node.name.split('[')[0][:60]}"
    (tmp_path / f"{module}.py").write_text(SCHEMA)
    (tmp_path / f"{module}_later.py").write_text(SCHEMA + SECOND)
    monkeypatch.syspath_prepend(tmp_path)
    return type("Toys", (Store,), {"name": "toys", "schema": module, "version": 1})


def test_a_store_remembers_facts_though_its_schema_has_no_table_for_them(toys: type[Store], tmp_path: Path) -> None:
    with toys.open(tmp_path / "toys.db") as store:
        assert store.fact("cursor") == ""
        assert store.fact("made") == "by the first migration"
        for value in ("one", "two"):
            with store.transaction():
                store.remember("cursor", value)
    with toys.open(tmp_path / "toys.db") as store:
        assert store.fact("cursor") == "two"


def test_a_fact_is_forgotten_with_the_transaction_that_fails(toys: type[Store], tmp_path: Path) -> None:
    with toys.open(tmp_path / "toys.db") as store:
        with pytest.raises(RuntimeError), store.transaction():  # noqa: PT012
            store.remember("cursor", "one")
            raise RuntimeError
        assert store.fact("cursor") == ""


def test_a_store_of_which_nothing_is_there_is_an_empty_one_to_whoever_looks(toys: type[Store], tmp_path: Path) -> None:
    path = tmp_path / "toys.db"
    with toys.reading(path) as store:
        assert store.connection.execute("SELECT count(*) FROM toys").fetchone()[0] == 0
    assert not path.exists()
    with pytest.raises(OperatorError, match=r"^nothing is stored yet; run: tickwork toys make$"):
        toys.reading(path, begin="tickwork toys make").__enter__()


def test_whoever_looks_cannot_write(toys: type[Store], tmp_path: Path) -> None:
    path = tmp_path / "toys.db"
    with toys.open(path):
        pass
    with pytest.raises(OperatorError, match="readonly"), toys.reading(path, begin="x") as store:
        store.connection.execute("INSERT INTO toys VALUES ('bear')")


def test_a_store_of_an_earlier_version_is_migrated_before_it_is_looked_at(toys: type[Store], tmp_path: Path) -> None:
    path = tmp_path / "toys.db"
    with toys.open(path) as store, store.transaction():
        store.connection.execute("INSERT INTO toys VALUES ('bear')")
    later = type("Toys", (Store,), {"name": "toys", "schema": f"{toys.schema}_later", "version": 2})
    with later.reading(path) as store:
        assert [tuple(row) for row in store.connection.execute("SELECT * FROM toys")] == [("bear", "red")]


def test_facts_of_before_are_kept(toys: type[Store], tmp_path: Path) -> None:
    path = tmp_path / "toys.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        connection.execute("INSERT INTO facts VALUES ('cursor', 'then')")
    connection.close()
    with toys.open(path) as store:
        assert store.fact("cursor") == "then"
