"""The index alone, the lists alone: all else is shared; what cannot be made is an error and in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.publish import (
    DRAINED,
    FAILED,
    GENERATION,
    MORE,
    Shelf,
    agrees,
    brute_force,
    changed,
    lists,
    small_units,
    some,
)
from tickwork.generation.matrix import Matrix


def same_files(shelf: Shelf, one: str, other: str) -> set[str]:
    folders = [shelf.generations.folder / name for name in (one, other)]
    return {file for file in GENERATION if (folders[0] / file).stat().st_ino == (folders[1] / file).stat().st_ino}


def test_the_index_alone_is_made_anew_and_all_else_is_shared(shelf: Shelf) -> None:
    shelf.set(top_k=9)  # what is published keeps the lists it has
    before = shelf.current()
    fresh = shelf.publish("--factory", "IVF6,Flat", "--nprobe", "3", only="index")
    assert same_files(shelf, before.name, fresh.name) == {"doab.db", "ids.npy", "similar.db", "vectors.npy"}
    meta = fresh.meta.index
    assert (meta.factory, meta.nlist, meta.nprobe, meta.index_type) == ("IVF6,Flat", 6, 3, "IndexIVFFlat")
    assert (fresh.meta.top_k, fresh.meta.watermark, fresh.meta.model) == (4, before.meta.watermark, before.meta.model)
    agrees(shelf, fresh)


def test_a_number_of_lists_is_an_inverted_file_of_so_many(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add(some(60))
    assert shelf.publish().meta.index.factory == "Flat"
    fresh = shelf.publish("--nlist", "5", only="index")
    assert (fresh.meta.index.factory, fresh.meta.index.nlist) == ("IVF5,SQfp16", 5)
    agrees(shelf, fresh)


@pytest.mark.parametrize("options", [(), ("--full",)])
def test_the_lists_alone_are_made_longer_and_all_else_is_shared(shelf: Shelf, options: tuple[str, ...]) -> None:
    before = shelf.current()
    fresh = shelf.publish("--top-k", "7", *options, only="similar")
    assert same_files(shelf, before.name, fresh.name) == {"doab.db", "ids.npy", "index.faiss", "vectors.npy"}
    assert fresh.meta.top_k == 7
    assert fresh.meta.index == before.meta.index
    assert lists(fresh) == brute_force(Matrix.load(fresh.folder), 7)


def test_the_index_alone_keeps_lists_of_a_length_of_their_own(shelf: Shelf) -> None:
    shelf.publish("--top-k", "7", only="similar")
    assert shelf.publish(only="index").meta.top_k == 7


@pytest.mark.parametrize("only", ["index", "similar"])
def test_a_part_can_be_made_in_passes_of_one_unit(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    small_units(monkeypatch)
    codes = []
    while shelf.generations.building.exists() or not codes:
        codes.append(shelf.run("publish", "doab", "--only", only, "--seconds", "0").code)
        assert len(codes) < 50
    assert set(codes[:-1]) == {MORE}
    assert len(codes) > 3
    agrees(shelf, shelf.current())
    assert not shelf.leftovers()


@pytest.mark.parametrize("only", ["index", "similar"])
def test_a_part_of_nothing_is_a_clear_error_and_in_nobodys_way(tmp_path: Path, only: str) -> None:
    shelf = Shelf(tmp_path)
    shelf.add(some(20))
    assert shelf.run("publish", "doab", "--only", only).code == FAILED
    assert "nothing of doab is published yet" in shelf.reason()
    agrees(shelf, shelf.publish())


@pytest.mark.parametrize("only", ["index", "similar"])
def test_a_part_under_way_is_finished_by_the_next_publication(shelf: Shelf, only: str) -> None:
    changed(shelf)
    assert shelf.run("publish", "doab", "--only", only, "--seconds", "0").code == MORE
    shelf.set(keep_generations=5)
    agrees(shelf, shelf.publish())
    assert len(shelf.generations.names()) == 3


def test_a_part_is_not_begun_while_a_publication_is_under_way(shelf: Shelf) -> None:
    changed(shelf)
    shelf.run("publish", "doab", "--seconds", "0")
    assert shelf.run("publish", "doab", "--only", "index").code == FAILED
    assert "a campaign to publish doab is under way; finish it first: tickwork publish doab" in shelf.reason()
    agrees(shelf, shelf.publish())


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("Nonsense", "'Nonsense' is not an index that FAISS knows: could not parse index string Nonsense"),
        ("IVF1000,Flat", "'IVF1000,Flat' cannot be trained on 60 vectors"),
        ("IVF4,PQ3", "PQ3"),
    ],
)
def test_an_index_that_cannot_be_made_is_a_clear_error_and_in_nobodys_way(shelf: Shelf, factory: str, why: str) -> None:
    before = shelf.current().name
    said = shelf.run("publish", "doab", "--only", "index", "--factory", factory)
    assert said.code == FAILED
    assert why in shelf.reason()
    assert "Traceback" not in said.err
    assert shelf.current().name == before
    assert not shelf.leftovers()
    changed(shelf)
    agrees(shelf, shelf.publish())


def test_settings_with_an_index_that_nobody_knows_are_mended_by_mending_the_settings(shelf: Shelf) -> None:
    changed(shelf)
    shelf.set(factory="Nonsense")
    assert shelf.run("publish", "doab").code == FAILED
    shelf.set(factory="Flat")
    agrees(shelf, shelf.publish())


def test_too_few_vectors_for_the_index_of_the_settings_are_published_with_a_flat_one(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, factory="IVF32,Flat", nprobe=32)
    shelf.add(some(20))
    said = shelf.run("publish", "doab")
    assert said.code == DRAINED
    assert "'IVF32,Flat' cannot be trained on 20 vectors" in said.err
    assert shelf.current().meta.index.factory == "Flat"
    agrees(shelf, shelf.current())
    shelf.add(some(40, 1))
    assert shelf.publish().meta.index.factory == "IVF32,Flat"
    agrees(shelf, shelf.current())


@pytest.mark.parametrize("only", [(), ("--only", "index"), ("--only", "similar")])
def test_a_gpu_that_is_not_there_is_a_clear_error_and_changes_nothing(shelf: Shelf, only: tuple[str, ...]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    changed(shelf)
    before = shelf.current().name
    assert shelf.run("publish", "doab", *only, "--gpu").code == FAILED
    assert "--gpu: no usable GPU" in shelf.reason()
    assert shelf.generations.names() == [before]
    assert not shelf.leftovers()
    agrees(shelf, shelf.publish("--cpu"))
