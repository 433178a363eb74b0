"""What an operator may get wrong, and a machine refuse: one line, never a traceback, and nothing sent."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

from tests.kits.doab import DRAINED, HALTED, HARVEST_ALL, MORE, Said, Site
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(30, seed=5)


def one_line(done: Said) -> str:
    assert done.code in (1, 2), done
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("tickwork: ")
    return line


@pytest.mark.parametrize("content", [b"this is no database at all " * 300, b"SQLite format 3\0" + b"\xff" * 8192])
@pytest.mark.parametrize("command", [("stats",), ("stats", "--json"), ("export",), ("diff",), ("export", "to a file")])
def test_a_store_that_is_garbage_is_told_in_one_line(
    site: Site, tmp_path: Path, command: tuple[str, ...], content: bytes
) -> None:
    assert site.run("discover").code == DRAINED
    path = site.state / "db" / "doab.db"
    for beside in path.parent.glob("doab.db-*"):
        beside.unlink()
    path.write_bytes(content)
    if command[-1] == "to a file":
        command = ("export", "--output", str(tmp_path / "out"))
    assert "doab.db" in one_line(site.run(*command))
    assert path.read_bytes() == content
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "address",
    ["http://h:99999/", "http://[::1/", "ftp://h.example/", "h.example/oai", "http://", "", "http://u:p@h.example/"],
)
@pytest.mark.parametrize("command", ["harvest", "discover", "backfill"])
def test_an_address_that_is_none_is_told_in_one_line(site: Site, oai: FakeOai, address: str, command: str) -> None:
    assert "base_url" in one_line(site.run(command, "--base-url", address))
    assert not oai.history
    assert not (site.state / "jobs").exists(), "and the job is not the worse for it"


@pytest.mark.parametrize("settings", [{"interval_seconds": -1.0}, {"jitter": -0.5}])
def test_a_negative_rate_in_the_settings_is_told_in_one_line(
    site: Site, oai: FakeOai, settings: dict[str, float]
) -> None:
    site.set(**settings)
    for command in ("harvest", "backfill", "discover"):
        assert f"`{next(iter(settings))}`: expected `float` >= 0.0" in one_line(site.run(command))
    assert not oai.history


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_rate_that_is_no_number_is_told_in_one_line(site: Site, oai: FakeOai, number: str) -> None:
    site.config.write_text(site.config.read_text().replace("interval_seconds = 0.0", f"interval_seconds = {number}"))
    assert "`interval_seconds`: expected `float`" in one_line(site.run("harvest"))
    assert not oai.history


def test_an_export_that_cannot_be_written_leaves_nothing_behind(site: Site, tmp_path: Path) -> None:
    assert site.run(*HARVEST_ALL).code == DRAINED
    folder = tmp_path / "folder"
    folder.mkdir()
    before = sorted(tmp_path.iterdir())
    assert "missing" in one_line(site.run("export", "--output", str(tmp_path / "missing" / "out.jsonl")))
    assert "is a folder" in one_line(site.run("export", "--output", str(folder)))
    assert "Is a directory" in one_line(_with_folder_in_the_way(site, tmp_path))
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out.partial"])
    assert not list(folder.iterdir())


def _with_folder_in_the_way(site: Site, tmp_path: Path) -> Said:
    (tmp_path / "out.partial").mkdir()
    return site.run("export", "--output", str(tmp_path / "out"))


def test_an_export_onto_a_full_disk_leaves_the_one_before(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: IO[str]) -> int:
        file.write("half a li")
        raise OSError(28, "No space left on device")

    site.run(*HARVEST_ALL)
    out = tmp_path / "out.jsonl"
    assert site.run("export", "--output", str(out)).code == 0
    before = out.read_bytes()
    assert before
    monkeypatch.setattr("tickwork.sources.doab.export.write_jsonl", full)
    assert "No space left" in one_line(site.run("export", "--output", str(out)))
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.glob("out*")] == ["out.jsonl"]


@pytest.mark.parametrize(
    "given",
    [("--from", "yesterday"), ("--until", "2026-13-01"), ("--from", "2026-02-01", "--until", "2026-01-01")],
)
def test_dates_nobody_can_read_send_nothing(site: Site, oai: FakeOai, given: tuple[str, ...]) -> None:
    assert given[0] in one_line(site.run("harvest", *given))
    assert not oai.history


def test_a_snapshot_folder_that_cannot_be_written_is_told_and_kept_for_the_next_pass(site: Site, oai: FakeOai) -> None:
    site.state.mkdir()
    (site.state / "snapshots").write_text("in the way")
    done = site.run("discover")
    assert done.code not in (DRAINED, MORE, HALTED)
    assert "cannot write the snapshot" in done.err
    assert "Traceback" not in done.err
    asked = len(oai.history)
    (site.state / "snapshots").unlink()
    assert site.run("discover").code == DRAINED
    assert len(oai.history) == asked, "what was listed is not listed again"
    assert site.snapshot().exists()


@pytest.mark.parametrize("command", ["reconcile", "diff"])
def test_a_snapshot_that_cannot_be_read_is_told(site: Site, command: str) -> None:
    site.run("discover")
    site.snapshot("deleted").unlink()
    site.snapshot("deleted").mkdir()
    done = site.run(command)
    assert done.code not in (DRAINED, MORE, HALTED)
    assert "doab.deleted" in done.err
    assert "Traceback" not in done.err
