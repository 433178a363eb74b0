"""What is published is what the source held at one moment; what cannot be published says why."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.kits.publish import (
    CORPUS,
    DRAINED,
    FAILED,
    HALTED,
    MODEL,
    MORE,
    OTHER_MODEL,
    Shelf,
    agrees,
    brute_force,
    by_words,
    content,
    index_ids,
    lists,
    some,
)
from tickwork.contract import database
from tickwork.generation.matrix import Matrix
from tickwork.generation.meta import SIMILAR


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "shelf")
    shelf.add(some(30))
    return shelf


def until(shelf: Shelf, file: str) -> None:
    """Publish by units until a file of the campaign is there."""
    while not (shelf.generations.building / file).exists():
        assert shelf.run("publish", "doab", "--seconds", "0").code == MORE


# The snapshot.


def test_a_source_in_wal_with_open_readers_and_an_open_writer_is_published_as_committed(shelf: Shelf) -> None:
    path = shelf.paths.database("doab")
    with closing(database.connect(path)) as reader, closing(database.connect(path)) as writer:
        assert reader.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        shelf.change({3: some(1, 3)[0]})  # in the log, which the reader keeps from being written back
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM records WHERE id < 20")
        agrees(shelf, shelf.publish())
        writer.execute("ROLLBACK")


def test_what_changes_after_the_snapshot_is_left_for_the_next_publication(shelf: Shelf) -> None:
    until(shelf, "snapshot.db")
    with shelf.books() as books:
        newest = books.execute("SELECT max(seq) FROM records_changes").fetchone()[0]
    shelf.change({3: some(1, 3)[0]})
    shelf.delete([4, 5])
    shelf.add(some(2, 9))
    first = shelf.publish()
    assert (first.meta.total, first.meta.watermark.documents) == (30, newest)
    assert by_words(first, "b3v0") == [3], "the words are those of the snapshot"
    assert index_ids(first) == [1, 2, *range(6, 31)], "a vector of another text is not those words' vector"
    assert lists(first) == brute_force(Matrix.load(first.folder), 4)
    agrees(shelf, shelf.publish())


def test_vectors_stored_after_the_matrix_was_gathered_are_left_for_the_next_publication(shelf: Shelf) -> None:
    until(shelf, "vectors.npy")
    shelf.embed({3: some(1, 33)[0]})
    first = shelf.publish()
    assert Matrix.load(first.folder).vectors[2].tolist() != shelf.given[3].tolist()
    agrees(shelf, shelf.publish())


def test_a_book_changed_elsewhere_than_in_its_text_keeps_its_vector(shelf: Shelf) -> None:
    shelf.publish()
    with shelf.books() as books:
        books.execute("UPDATE records SET licence = 'CC BY' WHERE id = 3")
    fresh = shelf.publish()
    assert fresh.meta.vectors == 30
    with closing(sqlite3.connect(fresh.database)) as items:
        assert items.execute("SELECT licence FROM items WHERE id = 3").fetchone() == ("CC BY",)


def test_a_tombstone_that_comes_to_life_again_is_published_again(shelf: Shelf) -> None:
    shelf.delete([3])
    shelf.publish()
    with shelf.books() as books:
        books.execute("UPDATE records SET deleted = 0, title = 'b3v9' WHERE id = 3")
    shelf.words[3] = "b3v9"
    shelf.embed({3: some(1, 3)[0]})
    agrees(shelf, shelf.publish())


def test_the_published_files_can_be_read_where_nobody_may_write(shelf: Shelf) -> None:
    generation = shelf.publish()
    for path in (generation.database, generation.folder / SIMILAR):
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
            assert db.execute("PRAGMA journal_mode").fetchone()[0] in ("delete", "off")
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


# Sources that are not there, or not as they were.


def test_a_source_that_has_nothing_yet_is_said_and_no_fault(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    said = shelf.run("publish", "doab")
    assert said.code == DRAINED
    assert "doab.db does not exist yet" in said.err
    assert not shelf.generations.folder.exists()


def test_a_source_that_is_missing_after_it_was_published_is_a_clear_error(shelf: Shelf) -> None:
    before = shelf.publish().name
    shelf.paths.database("doab").rename(shelf.home / "away")
    for only in ((), ("--only", "index"), ("--only", "similar")):
        assert shelf.run("publish", "doab", *only).code == FAILED
        assert "doab.db is missing, from which doab was published: restore it" in shelf.reason()
    assert shelf.current().name == before


def test_a_source_of_before_the_feed_of_changes_waits_for_its_next_writer(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with closing(database.connect(shelf.paths.database("doab"))):
        pass
    said = shelf.run("publish", "doab")
    assert said.code == MORE
    assert "no feed of changes yet" in said.err
    shelf.add(some(5))
    agrees(shelf, shelf.publish())


def test_a_damaged_source_halts_and_the_generation_stays(shelf: Shelf) -> None:
    before = shelf.publish().name
    shelf.change({3: None})
    path = shelf.paths.database("doab")
    with path.open("r+b") as file:
        file.seek(0)
        file.write(b"x" * 4096)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    assert shelf.run("publish", "doab").code == HALTED
    assert shelf.current().name == before


def test_a_source_restored_from_an_older_copy_is_published_as_it_is(shelf: Shelf) -> None:
    older = shelf.clone(shelf.home / "older")
    shelf.change({identifier: some(1, identifier)[0] for identifier in range(1, 9)})
    shelf.add(some(3, 9))
    shelf.publish()
    for name in ("doab", "doab-vectors"):
        shelf.paths.database(name).write_bytes(older.paths.database(name).read_bytes())
    shelf.words, shelf.given, shelf.gone = older.words, older.given, older.gone
    agrees(shelf, shelf.publish())


@pytest.mark.parametrize("name", ["nobody", "", "../doab"])
def test_an_unknown_corpus_is_a_clear_error(shelf: Shelf, name: str) -> None:
    for command in ("publish", "generations"):
        said = shelf.run(command, name)
        assert said.code == 2
        assert "the corpora are: atproto, doab" in said.err


# Nothing in it.


def searched(shelf: Shelf, *options: str) -> list[int]:
    said = shelf.run("search", "doab", "book", "--json", *options)
    assert said.code == DRAINED, said
    return [hit["id"] for hit in said.json()]


@pytest.mark.parametrize("factory", ["", "IVF4,SQfp16"])
def test_an_empty_corpus_is_published_and_filled_and_emptied_again(tmp_path: Path, factory: str) -> None:
    shelf = Shelf(tmp_path, factory=factory, nprobe=4)
    shelf.add([])
    empty = shelf.publish()
    agrees(shelf, empty)
    assert (empty.meta.total, empty.meta.vectors, empty.meta.dim, empty.meta.model) == (0, 0, 0, None)
    assert searched(shelf, "--mode", "words") == []
    ids = shelf.add(some(20))
    agrees(shelf, shelf.publish())
    assert len(searched(shelf, "--mode", "words")) == 10
    shelf.delete(ids)
    agrees(shelf, shelf.publish())
    assert searched(shelf, "--mode", "words") == []


def test_books_without_vectors_are_published_and_found_by_words(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    ids = shelf.add([None, None])
    bare = shelf.publish()
    agrees(shelf, bare)
    assert (bare.meta.total, bare.meta.vectors, bare.meta.fingerprint) == (2, 0, "")
    assert searched(shelf, "--mode", "words") == ids
    said = shelf.run("search", "doab", "book", "--mode", "meaning")
    assert said.code != DRAINED
    assert "tickwork embed doab" in said.err
    shelf.embed(dict(zip(ids, some(2), strict=True)))
    agrees(shelf, shelf.publish())


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 14, 15, 16])
def test_so_few_books_have_all_others_as_similar_ones(tmp_path: Path, count: int) -> None:
    shelf = Shelf(tmp_path)  # lists of 4 are published, of 14 kept
    shelf.add(some(count))
    first = shelf.publish()
    assert lists(first) == brute_force(Matrix.load(first.folder), 4)
    shelf.add(some(1, 77))
    shelf.delete([1])
    second = shelf.publish()
    assert lists(second) == brute_force(Matrix.load(second.folder), 4)


# Models.


def test_vectors_of_two_models_are_never_published_together(shelf: Shelf) -> None:
    before = shelf.publish()
    shelf.embed({identifier: some(1, identifier)[0] for identifier in range(1, 11)}, OTHER_MODEL)
    said = shelf.run("publish", "doab")
    assert said.code == MORE
    assert "20 of pkg:nobody (55555555), 10 of pkg:other (77777777)" in shelf.reason()
    assert "tickwork embed doab" in shelf.reason()
    assert shelf.current().name == before.name
    shelf.embed({identifier: some(1, identifier)[0] for identifier in range(11, 31)}, OTHER_MODEL)
    fresh = shelf.publish()
    assert (fresh.meta.model, fresh.meta.fingerprint) == (OTHER_MODEL, OTHER_MODEL.fingerprint)
    agrees(shelf, fresh)
    assert lists(fresh) == brute_force(Matrix.load(fresh.folder), 4)


def test_a_model_of_another_dimension_takes_nothing_from_the_base(shelf: Shelf) -> None:
    shelf.set(factory="IVF4,Flat", nprobe=4)
    assert shelf.publish().meta.model == MODEL
    shelf.embed(dict(zip(range(1, 31), some(30, 3, dim=12), strict=True)), OTHER_MODEL)
    fresh = shelf.publish()
    assert fresh.meta.dim == 12
    agrees(shelf, fresh)
    assert lists(fresh) == brute_force(Matrix.load(fresh.folder), 4)


def test_an_index_of_another_model_of_the_same_dimension_is_trained_anew(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, factory="IVF4,Flat", nprobe=1)
    shelf.add(some(60))
    shelf.publish()
    shelf.embed(dict(zip(range(1, 51), some(50, 3), strict=True)), OTHER_MODEL)
    shelf.delete(range(51, 61))  # type: ignore[arg-type]
    fresh = shelf.publish()
    assert fresh.meta.index.trained_on == 50
    agrees(shelf, fresh)


# Odd texts.


ODD = ("", "\x00 nul", "Ünïcödé ſt", 'a "quoted" AND NOT (near) *', "x" * 100_000, "\u202eright to left", "😀")


@pytest.mark.parametrize("title", ODD)
def test_any_text_is_published_changed_and_taken_back(shelf: Shelf, title: str) -> None:
    def entitle(text: str) -> None:
        with shelf.books() as books:
            books.execute("UPDATE records SET title = ?, description = 'book ' || ? WHERE id = 3", (text, text))

    entitle(title)
    shelf.publish()
    entitle("plain again")
    increment = shelf.publish()
    assert by_words(increment, "again") == [3]
    assert content(increment)["items"] == content(shelf.publish("--full"))["items"]


def test_the_corpus_of_these_tests_is_the_real_one() -> None:
    assert (CORPUS.name, CORPUS.table) == ("doab", "records")
