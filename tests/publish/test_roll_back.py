"""What is current: the pointer leads to a generation or is an error, and a roll-back stays until somebody says else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kits.publish import DRAINED, HALTED, Shelf, agrees, by_words, some
from tickwork.generation.generations import Generations


@pytest.fixture
def shelf(published_twice: Shelf, tmp_path: Path) -> Shelf:
    return published_twice.clone(tmp_path / "shelf")


# The pointer.


@pytest.mark.parametrize(
    "target", ["20200101T000000Z-000000", "/etc", "..", "../..", ".", "building", "current", "a\nb", "doab.db", "-rf"]
)
def test_a_pointer_to_no_generation_is_an_error_and_publishing_mends_it(shelf: Shelf, target: str) -> None:
    pointer = shelf.generations.folder / "current"
    pointer.unlink()
    pointer.symlink_to(target)
    searched = shelf.run("search", "doab", "book", "--mode", "words")
    assert searched.code != DRAINED
    assert len(searched.err.splitlines()) == 1
    agrees(shelf, shelf.publish())


def test_rolling_back_mends_a_pointer_to_nowhere(shelf: Shelf) -> None:
    older, newer = shelf.generations.names()
    shutil.rmtree(shelf.generations.folder / newer)
    assert shelf.run("generations", "roll-back", "doab", "previous").code == DRAINED
    assert shelf.current().name == older


@pytest.mark.parametrize("name", ["current", "building", "..", ".", "../doab", "/etc", "nonsense", "2026*"])
def test_only_a_generation_can_be_rolled_back_to(shelf: Shelf, name: str) -> None:
    before = shelf.current().name
    shutil.copytree(shelf.current().folder, shelf.generations.building)
    said = shelf.run("generations", "roll-back", "doab", name)
    assert said.code == 2
    assert "has no generation" in said.err
    assert shelf.current().name == before


def test_a_link_is_no_generation(shelf: Shelf) -> None:
    (shelf.generations.folder / "20991231T000000Z-000000").symlink_to(shelf.generations.names()[0])
    assert len(shelf.generations.names()) == 2


def test_what_is_not_ours_in_the_folder_stays(shelf: Shelf) -> None:
    (shelf.generations.folder / "notes").mkdir()
    (shelf.generations.folder / "notes" / "why").write_text("an operator's")
    shelf.publish("--full")
    shelf.run("generations", "prune", "doab", "--keep", "1")
    assert (shelf.generations.folder / "notes" / "why").exists()


def test_the_pointer_is_replaced_and_never_removed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer, seen = shelf.generations.folder / "current", []
    for name in ("unlink", "symlink_to", "replace", "rename"):
        original = getattr(Path, name)

        def watched(path: Path, *rest: object, original: Callable[..., object] = original, **more: object) -> object:
            result = original(path, *rest, **more)
            seen.append(pointer.readlink())
            return result

        monkeypatch.setattr(Path, name, watched)
    shelf.generations.switch(shelf.generations.names()[0])
    assert set(map(str, seen)) <= set(shelf.generations.names())


# Rolling back.


def test_rolling_back_makes_the_one_before_current_and_halts_the_job(shelf: Shelf) -> None:
    older, newer = shelf.generations.names()
    assert by_words(shelf.current(), "b2v1") == [2]
    said = shelf.run("generations", "roll-back", "doab", "previous")
    assert said.code == DRAINED
    assert shelf.current().name == older
    assert by_words(shelf.current(), "b2v0") == [2]
    assert f"rolled back from {newer} to {older}" in shelf.halted()
    assert shelf.run("publish", "doab").code == HALTED
    assert shelf.current().name == older
    assert shelf.run("rearm", "doab-publish", "--why", "mended").code == DRAINED
    agrees(shelf, shelf.publish())


def test_one_can_roll_forward_again_by_name(shelf: Shelf) -> None:
    older, newer = shelf.generations.names()
    shelf.run("generations", "roll-back", "doab", older)
    assert shelf.run("generations", "roll-back", "doab", newer).code == DRAINED
    assert shelf.current().name == newer


def test_the_current_generation_is_not_rolled_back_to(shelf: Shelf) -> None:
    said = shelf.run("generations", "roll-back", "doab", shelf.current().name)
    assert (said.code, shelf.halted()) == (2, "")


def test_there_is_nothing_before_the_first(shelf: Shelf) -> None:
    shelf.run("generations", "prune", "doab", "--keep", "1")
    said = shelf.run("generations", "roll-back", "doab", "previous")
    assert said.code == 2
    assert "no generation before" in said.err
    assert not shelf.halted()


def test_a_kill_between_the_halt_and_the_switch_of_a_roll_back_publishes_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Generations, "switch", killed)
        shelf.run("generations", "roll-back", "doab", "previous")
    shelf.change({3: None})
    newer = shelf.generations.current_name()
    assert shelf.run("publish", "doab").code == HALTED
    assert shelf.current().name == newer
    assert shelf.run("generations", "roll-back", "doab", "previous").code == DRAINED


def test_a_campaign_under_way_does_not_undo_a_roll_back(shelf: Shelf) -> None:
    older, newer = shelf.generations.names()
    shelf.change({3: some(1, 6)[0]})
    while not (shelf.generations.building / "similar.db").exists():
        assert shelf.run("publish", "doab", "--seconds", "0").code == 3
    shelf.run("generations", "roll-back", "doab", "previous")
    shelf.run("rearm", "doab-publish", "--why", "mended")
    said = shelf.run("publish", "doab")
    assert said.code == DRAINED
    assert f"it started from generation {newer}, but {older} is current" in said.err
    agrees(shelf, shelf.current())


def test_a_pass_that_ends_while_it_is_rolled_back_switches_to_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = shelf.generations.names()
    shelf.change({3: some(1, 6)[0]})
    fresh_name = Generations.fresh_name

    def meanwhile(found: Generations, meta: Path) -> str:
        shelf.generations.switch(older)
        return fresh_name(found, meta)

    with monkeypatch.context() as patch:
        patch.setattr(Generations, "fresh_name", meanwhile)
        assert shelf.run("publish", "doab").code == 3
    assert f"{older} became current meanwhile" in shelf.reason()
    assert shelf.current().name == older
    assert shelf.generations.names() == [older, newer]
    agrees(shelf, shelf.publish())
