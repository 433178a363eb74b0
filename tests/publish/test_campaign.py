"""A campaign goes on where it was left, does nothing while nothing changed, and can always be finished or given up."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.publish import (
    BUSY,
    DRAINED,
    FAILED,
    HALTED,
    MORE,
    Shelf,
    agrees,
    brute_force,
    changed,
    content,
    lists,
    small_units,
)
from tickwork.contract import database
from tickwork.generation.generations import Generations
from tickwork.generation.matrix import Matrix
from tickwork.publish import verify as check_stage

KILLED = 130
"""How click ends at an interrupt, which stands for a kill."""


# Bounded passes.


@pytest.mark.parametrize("options", [(), ("--full",)], ids=["increment", "full"])
def test_a_campaign_can_stop_after_every_unit_and_ends_as_if_it_had_not(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    small_units(monkeypatch)
    changed(shelf)
    undisturbed = content(shelf.clone(tmp_path / "undisturbed").publish(*options))
    before, codes = shelf.current().name, []
    while (shelf.generations.building.exists() or not codes) and len(codes) < 200:
        assert shelf.current().name == before
        codes.append(shelf.run("publish", "doab", "--seconds", "0", *options).code)
    assert set(codes[:-1]) == {MORE}
    assert len(codes) > (8 if not options else 20)
    assert shelf.run("publish", "doab").code == DRAINED
    assert content(shelf.current()) == undisturbed
    assert not shelf.leftovers()
    agrees(shelf, shelf.current())


def test_each_pass_takes_up_what_the_settings_were_when_it_began(shelf: Shelf) -> None:
    changed(shelf)
    shelf.run("publish", "doab", "--seconds", "0")
    shelf.set(top_k=2, factory="Flat")
    first = shelf.publish()
    assert (first.meta.top_k, first.meta.index.factory) == (4, "IVF4,SQfp16")
    shelf.change({5: None})
    second = shelf.publish()
    assert (second.meta.top_k, second.meta.index.factory) == (2, "Flat")
    assert lists(second) == brute_force(Matrix.load(second.folder), 2)


def test_full_asked_for_while_an_increment_is_under_way_begins_anew(shelf: Shelf) -> None:
    changed(shelf)
    shelf.run("publish", "doab", "--seconds", "0")
    assert "starts over: --full" in shelf.run("publish", "doab", "--full", "--seconds", "0").err
    campaign = json.loads((shelf.generations.building / "campaign.json").read_text())
    assert campaign["full"]
    said = shelf.run("publish", "doab", "--full", "--seconds", "0")
    assert "starts over" not in said.err, "one that is full already goes on"


def test_a_campaign_file_that_cannot_be_read_is_one_clear_line(shelf: Shelf) -> None:
    changed(shelf)
    shelf.run("publish", "doab", "--seconds", "0")
    (shelf.generations.building / "campaign.json").write_text('{"kind": "nonsense"}')
    assert shelf.run("publish", "doab").code == FAILED
    assert "campaign.json" in shelf.reason()


def test_a_folder_without_a_campaign_is_begun_anew(shelf: Shelf) -> None:
    changed(shelf)
    shelf.generations.building.mkdir()
    (shelf.generations.building / "campaign.json.partial").write_text("{")
    agrees(shelf, shelf.publish())


# Nothing to do.


def test_an_idle_tick_does_nothing_loads_nothing_heavy_and_is_quick(shelf: Shelf) -> None:
    before = {path: path.stat().st_mtime_ns for path in shelf.generations.folder.rglob("*")}
    script = """
import json, sys, time
from tickwork.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as end:
    heavy = [name for name in ("torch", "faiss", "numpy", "transformers", "sqlite_utils") if name in sys.modules]
    print(json.dumps([end.code, heavy, time.process_time()]))
"""
    command = [sys.executable, "-c", script, json.dumps(shelf.command("publish", "doab"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, heavy, seconds = json.loads(done.stdout)
    assert (code, heavy) == (DRAINED, [])
    assert seconds < 2
    assert {path: path.stat().st_mtime_ns for path in shelf.generations.folder.rglob("*")} == before


def test_what_is_asked_for_in_full_is_made_though_nothing_changed(shelf: Shelf) -> None:
    before = shelf.current()
    fresh = shelf.publish("--full")
    assert fresh.name != before.name
    assert content(fresh) == content(before)


def test_a_book_that_changed_in_what_is_not_published_changes_nothing_of_the_content(shelf: Shelf) -> None:
    before = content(shelf.current())
    with shelf.books() as books:
        books.execute("UPDATE records SET last_changed = 'now' WHERE id = 3")
    assert shelf.publish().name == shelf.generations.names()[-1]
    assert content(shelf.current()) == before
    assert len(shelf.generations.names()) == 1


# Locks, and what must not be published.


def test_two_campaigns_exclude_each_other(shelf: Shelf) -> None:
    changed(shelf)
    before = shelf.current().name
    lock = os.open(shelf.paths.lock("vectors"), os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for only in ((), ("--only", "index"), ("--only", "similar")):
            assert shelf.run("publish", "doab", *only).code == BUSY
    finally:
        os.close(lock)
    assert shelf.generations.names() == [before]
    assert not shelf.leftovers()
    agrees(shelf, shelf.publish())


@pytest.mark.parametrize("wrong", ["items", "full text", "vector of nobody", "index", "lists", "entries"])
def test_what_does_not_agree_with_itself_halts_and_is_not_published(shelf: Shelf, wrong: str) -> None:
    changed(shelf)
    before, building = shelf.current().name, shelf.generations.building
    while not (building / "similar.db").exists():
        shelf.run("publish", "doab", "--seconds", "0")
    statements = {
        "items": ("doab.db", "DELETE FROM items WHERE id = 1"),
        "full text": ("doab.db", "INSERT INTO items_fts (items_fts, rowid, title) VALUES ('delete', 1, 'b1v0')"),
        "vector of nobody": ("doab.db", "UPDATE items SET id = 1000 WHERE id = 1"),
        "lists": ("similar.db", "DELETE FROM lists WHERE source = 1"),
        "entries": ("similar.db", "DELETE FROM similar WHERE source = 1 AND rank = 2"),
    }
    if wrong == "index":
        other = shelf.clone(shelf.home / "other")
        other.generations.remove(other.generations.building)
        other.delete([1, 2])
        (building / "index.faiss").write_bytes((other.publish("--full").folder / "index.faiss").read_bytes())
    else:
        file, statement = statements[wrong]
        connection = database.connect(building / file)
        connection.execute(statement)
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
    assert shelf.run("publish", "doab").code == HALTED
    assert "is inconsistent and is not published" in shelf.reason()
    assert shelf.current().name == before
    shelf.generations.remove(building)
    shelf.run("rearm", "doab-publish", "--why", "mended")
    agrees(shelf, shelf.publish())


# Killed around the switch.


@pytest.mark.parametrize("moment", ["before the rename", "before the switch", "after the switch"])
def test_a_campaign_killed_around_its_switch_is_made_current_by_the_next_pass(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    changed(shelf)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    where = {
        "before the rename": (Generations, "fresh_name"),
        "before the switch": (Generations, "switch"),
        "after the switch": (Generations, "prune"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(*where, killed)
        assert shelf.run("publish", "doab").code == KILLED
    agrees(shelf, shelf.publish())
    assert not shelf.leftovers()


def test_a_generation_damaged_before_it_was_made_current_is_removed_and_made_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(shelf)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Generations, "switch", killed)
        assert shelf.run("publish", "doab").code == KILLED
    (name,) = shelf.generations.unswitched()
    with (shelf.generations.folder / name / "vectors.npy").open("ab") as file:
        file.write(b"x")
    said = shelf.run("publish", "doab")
    assert said.code == DRAINED
    assert "vectors.npy has changed since it was written" in said.err
    agrees(shelf, shelf.current())


def test_a_pass_killed_while_it_tidies_up_takes_no_second_snapshot(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(shelf)
    write_meta = check_stage.write_meta

    def then_killed(*arguments: object) -> None:
        write_meta(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(check_stage, "write_meta", then_killed)
        assert shelf.run("publish", "doab").code == KILLED
    (shelf.generations.building / "snapshot.db").unlink()
    shelf.paths.database("doab").rename(shelf.home / "away")
    with shelf.books():
        pass  # an empty one, which nobody must look at
    assert shelf.publish().meta.total == 62
    (shelf.home / "away").replace(shelf.paths.database("doab"))
    agrees(shelf, shelf.current())
