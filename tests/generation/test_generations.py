"""Generations: listed, verified, named in order, pruned; a damaged one infects nothing."""

from __future__ import annotations

import datetime as dt
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.kits.publish import DRAINED, FAILED, GENERATION, Shelf, agrees, brute_force, lists, some
from tickwork.contract.outcomes import OperatorError
from tickwork.generation import generations as generations_module
from tickwork.generation.generations import Generations
from tickwork.generation.matrix import Matrix


@pytest.fixture
def shelf(published_twice: Shelf, tmp_path: Path) -> Shelf:
    return published_twice.clone(tmp_path / "shelf")


# Listing and verifying.


def test_generations_are_listed_oldest_first_and_the_current_one_is_marked(shelf: Shelf) -> None:
    older, newer = shelf.generations.names()
    said = shelf.run("generations", "doab")
    assert said.code == DRAINED
    assert [line[:25] for line in said.out.splitlines()] == [f"  {older}", f"* {newer}"]
    rows = shelf.run("generations", "doab", "--json").json()
    assert [(row["name"], row["current"], row["total"], row["problem"]) for row in rows] == [
        (older, False, 60, ""),
        (newer, True, 60, ""),
    ]


def test_nothing_published_is_no_fault(tmp_path: Path) -> None:
    said = Shelf(tmp_path).run("generations", "verify", "doab")
    assert (said.code, said.out) == (DRAINED, "nothing of doab is published yet\n")


def test_verifying_whole_generations_says_so(shelf: Shelf) -> None:
    said = shelf.run("generations", "verify", "doab")
    assert said.code == DRAINED
    assert said.out.count("verified") == 2


# Damage.


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def missing(path: Path) -> None:
    path.unlink()


DAMAGES = pytest.mark.parametrize("damage", [flipped, truncated, missing])
FILES = pytest.mark.parametrize("file", GENERATION)


@FILES
@DAMAGES
def test_a_damaged_file_is_named_and_its_generation_is_never_switched_to(
    shelf: Shelf, file: str, damage: Callable[[Path], None]
) -> None:
    older, newer = shelf.generations.names()
    damage(shelf.generations.folder / older / file)
    said = shelf.run("generations", "verify", "doab")
    if (file, damage) == ("meta.json", missing):  # it is no generation any more
        assert older not in said.out
    else:
        assert said.code == FAILED
        assert file in next(line for line in said.out.splitlines() if older in line)
    for name in (older, "previous"):
        refused = shelf.run("generations", "roll-back", "doab", name)
        assert refused.code == 2
        assert len(refused.err.splitlines()) == 1
    assert shelf.current().name == newer
    assert not shelf.halted()


@FILES
@DAMAGES
def test_a_damaged_generation_infects_nothing_of_the_next(
    shelf: Shelf, file: str, damage: Callable[[Path], None]
) -> None:
    base = shelf.generations.current_name()
    damage(shelf.generations.folder / base / file)
    shelf.change({3: some(1, 6)[0], 7: some(1, 7)[0]})
    shelf.delete([11])
    said = shelf.run("publish", "doab")
    assert said.code == DRAINED
    assert re.search("warning: rebuilding ", said.err)
    fresh = shelf.current()
    assert fresh.name != base
    agrees(shelf, fresh)
    assert lists(fresh) == brute_force(Matrix.load(fresh.folder), 4)


def test_a_wrong_watermark_in_a_damaged_description_skips_no_change(shelf: Shelf) -> None:
    current = shelf.current()
    shelf.change({3: some(1, 6)[0]})
    with shelf.books() as books:
        newest = books.execute("SELECT max(seq) FROM records_changes").fetchone()[0]
    meta, was = current.folder / "meta.json", current.meta.watermark.documents
    text = meta.read_text()
    meta.write_text(text.replace(f'"documents": {was}', f'"documents": {newest}'))
    assert meta.read_text() != text
    agrees(shelf, shelf.publish())


@pytest.mark.parametrize("only", ["index", "similar"])
def test_a_damaged_file_is_not_shared_with_a_new_generation(shelf: Shelf, only: str) -> None:
    current = shelf.current()
    flipped(current.folder / "vectors.npy")
    said = shelf.run("publish", "doab", "--only", only)
    assert said.code == FAILED
    assert "vectors.npy has changed since it was written" in shelf.reason()
    assert shelf.generations.current_name() == current.name
    shelf.publish("--full")  # nothing is left that would be in its way
    assert not shelf.leftovers()


def test_a_damaged_index_is_mended_by_making_the_index_anew(shelf: Shelf) -> None:
    flipped(shelf.current().folder / "index.faiss")
    agrees(shelf, shelf.publish(only="index"))


def test_damaged_lists_are_mended_by_finding_them_anew(shelf: Shelf) -> None:
    flipped(shelf.current().folder / "similar.db")
    fresh = shelf.publish(only="similar")
    assert lists(fresh) == brute_force(Matrix.load(fresh.folder), 4)


# Names and pruning.


def test_names_are_in_the_order_of_publishing_within_a_second_and_when_the_clock_goes_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tickwork.publish import verify as check

    monkeypatch.setattr(check.times, "now", lambda: dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    shelf.set(keep_generations=10)
    order = shelf.generations.names()
    for _ in range(4):
        order.append(shelf.publish("--full").name)
    assert shelf.generations.names() == order
    assert shelf.current().meta.built_at.startswith("2020-01-01")


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_generations_are_kept_as_the_settings_say(shelf: Shelf, keep: int) -> None:
    shelf.set(keep_generations=keep)
    names = shelf.generations.names() + [shelf.publish("--full").name for _ in range(3)]
    assert shelf.generations.names() == names[-keep:]


def test_pruning_by_hand_keeps_the_current_one_even_if_it_is_the_oldest(shelf: Shelf) -> None:
    shelf.set(keep_generations=10)
    shelf.publish("--full")
    oldest, second, newest = shelf.generations.names()
    shelf.generations.switch(oldest)
    said = shelf.run("generations", "prune", "doab", "--keep", "2")
    assert said.out.splitlines()[0] == f"removed {second}"
    assert shelf.generations.names() == [oldest, newest]
    shelf.run("generations", "prune", "doab", "--keep", "1")
    assert shelf.generations.names() == [oldest]


def test_after_a_roll_back_the_one_rolled_back_to_is_kept_before_the_one_taken_back(shelf: Shelf) -> None:
    older, taken_back = shelf.generations.names()
    shelf.run("generations", "roll-back", "doab", "previous")
    shelf.run("rearm", "doab-publish", "--why", "mended")
    fresh = shelf.publish()
    assert shelf.generations.names() == [older, fresh.name]
    assert taken_back not in shelf.generations.names()


def test_pruning_by_hand_touches_neither_what_is_being_built_nor_what_is_about_to_be_current(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.change({3: some(1, 6)[0]})
    pruned = []
    switch = Generations.switch

    def meanwhile(found: Generations, name: str) -> None:
        pruned.extend(found.prune(1))
        switch(found, name)

    while not (shelf.generations.building / "similar.db").exists():
        shelf.run("publish", "doab", "--seconds", "0")
    assert shelf.run("generations", "prune", "doab", "--keep", "1").code == DRAINED
    with monkeypatch.context() as patch:
        patch.setattr(Generations, "switch", meanwhile)
        agrees(shelf, shelf.publish())
    assert shelf.current().name not in pruned


def test_who_reads_a_generation_goes_on_reading_when_it_is_replaced_and_pruned(shelf: Shelf) -> None:
    from tickwork.generation.index import read_index

    before = shelf.current()
    matrix = Matrix.load(before.folder)
    mapped, index = np.array(matrix.vectors), read_index(before.folder, before.meta.index)
    with closing(sqlite3.connect(f"file:{before.database}?mode=ro", uri=True)) as items:
        items.execute("SELECT count(*) FROM items").fetchone()
        shelf.change({identifier: some(1, identifier)[0] for identifier in range(1, 60)})
        shelf.set(keep_generations=1)
        shelf.publish("--full")
        assert not before.folder.exists()
        assert items.execute("SELECT title FROM items WHERE id = 3").fetchone() == ("b3v0",)
    assert np.array_equal(matrix.vectors, mapped)
    vector = mapped[5:6].astype(np.float32)
    assert index.search(vector, 1)[1][0, 0] == matrix.ids[5]


def test_a_removal_that_was_killed_is_finished_and_its_rest_is_no_generation(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = shelf.generations.names()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generations_module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            shelf.generations.remove(shelf.generations.folder / older)
    assert shelf.generations.names() == [newer]
    with pytest.raises(OperatorError):
        shelf.generations.open(older)
    shelf.publish("--full")
    assert not (shelf.generations.folder / older).exists()
