"""Reconciling, comparing, exporting, counting: all of it offline."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HALTED, HARVEST_ALL, Site, active_in, stored_by
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(60, seed=8)
ACTIVE = active_in(BOOKS)
LISTS = ("creators", "editors", "contributors", "subjects", "links", "isbns", "isbns_rejected", "series")


@pytest.fixture
def site(oai: FakeOai, tmp_path: Path) -> Site:
    """All is harvested, and the snapshot is of the same hour."""
    site = Site(tmp_path / "site", oai)
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert site.run("discover").code == DRAINED
    return site


class Files:
    """A snapshot written by hand: bare lists, with datestamps where given."""

    def __init__(self, folder: Path, active: list[str], deleted: list[str]) -> None:
        self.active, self.deleted = folder / "a", folder / "d"
        self.active.write_text("".join(f"{line}\n" for line in active))
        self.deleted.write_text("".join(f"{line}\n" for line in deleted))
        self.options = ("--use-active-file", str(self.active), "--use-deleted-file", str(self.deleted))


def differences(site: Site, *options: str) -> dict[str, int]:
    figures: dict[str, int] = json.loads(site.run("diff", "--json", *options).out)
    return figures


def test_nothing_differs_right_after_a_harvest(site: Site, oai: FakeOai) -> None:
    before = len(oai.history)
    assert differences(site) == {"missing": 0, "stale": 0, "orphan": 0}
    stored = site.canonical()
    assert site.run("reconcile").code == DRAINED
    assert site.canonical() == stored
    assert len(oai.history) == before


def test_what_differs_is_missing_stale_or_orphan(site: Site, tmp_path: Path) -> None:
    files = Files(tmp_path, [*ACTIVE[:-3], "oai:directory.doabooks.org:20.500.12854/1"], ACTIVE[-3:-1])
    assert differences(site, *files.options) == {"missing": 1, "stale": 2, "orphan": 1}
    assert site.run("diff", *files.options, "--output", str(tmp_path / "lists")).code == 0
    assert (tmp_path / "lists" / "missing").read_text() == "oai:directory.doabooks.org:20.500.12854/1\n"
    assert (tmp_path / "lists" / "stale").read_text().splitlines() == sorted(ACTIVE[-3:-1])
    assert (tmp_path / "lists" / "orphan").read_text() == f"{ACTIVE[-1]}\n"


def test_without_a_store_everything_is_missing(site: Site, tmp_path: Path) -> None:
    files = Files(tmp_path, ACTIVE, [])
    other = Site(tmp_path / "other", site.oai)
    assert differences(other, *files.options) == {"missing": len(ACTIVE), "stale": 0, "orphan": 0}
    assert not other.state.exists()


def test_a_deletion_upstream_becomes_a_tombstone_of_its_datestamp(site: Site, oai: FakeOai) -> None:
    oai.clock.move(hours=1)  # type: ignore[attr-defined]
    for identifier in ACTIVE[:2]:
        oai.delete(identifier)
    assert site.run("discover", "--refresh-ids").code == DRAINED
    assert site.run("reconcile").code == DRAINED
    assert site.stamps() == stored_by(oai)
    assert {row["title"] for row in site.canonical() if row["identifier"] in ACTIVE[:2]} == {""}


def test_a_record_restored_since_the_snapshot_is_not_stale(site: Site, oai: FakeOai) -> None:
    book = next(book for book in BOOKS if book.identifier == ACTIVE[0])
    oai.clock.move(hours=1)  # type: ignore[attr-defined]
    oai.delete(book.identifier)
    assert site.run("discover", "--refresh-ids").code == DRAINED
    oai.clock.move(hours=1)  # type: ignore[attr-defined]
    oai.put(replace(book, datestamp=oai.clock()))
    assert site.run("harvest").code == DRAINED
    assert differences(site)["stale"] == 0
    assert site.run("reconcile").code == DRAINED
    assert book.identifier in site.live()


@pytest.mark.parametrize(("offset", "stale"), [(-1, 0), (0, 1), (1, 1)])
def test_the_datestamps_decide_what_is_stale(offset: int, stale: int, site: Site, tmp_path: Path) -> None:
    stamp = site.stamps()[ACTIVE[0]][0]
    other = f"{int(stamp[:4]) + offset}{stamp[4:]}"
    files = Files(tmp_path, ACTIVE[1:], [f"{ACTIVE[0]}\t{other}"])
    assert differences(site, *files.options)["stale"] == stale
    assert site.run("reconcile", *files.options).code == DRAINED
    assert (ACTIVE[0] not in site.live()) == bool(stale)


def test_a_mass_deletion_halts_with_figures_until_a_human_allows_it(site: Site, oai: FakeOai, tmp_path: Path) -> None:
    gone = ACTIVE[: len(ACTIVE) // 2]
    files = Files(tmp_path, [i for i in ACTIVE if i not in gone], gone)
    before = site.canonical()
    assert site.run("reconcile", *files.options).code == HALTED
    told = site.marker("doab-reconcile")
    assert f"{len(gone)} of {len(ACTIVE)} records would go (limit 10%)" in told
    assert f"--allow-deletes {len(gone)}" in told
    assert site.canonical() == before
    site.run("rearm", "doab-reconcile", "--why", "right")
    assert site.run("reconcile", *files.options, "--allow-deletes", str(len(gone) - 1)).code == HALTED
    site.run("rearm", "doab-reconcile", "--why", "right")
    assert site.run("reconcile", *files.options, "--allow-deletes", str(len(gone))).code == DRAINED
    assert site.live() == set(ACTIVE) - set(gone)


def test_files_that_contradict_each_other_are_refused(site: Site, tmp_path: Path) -> None:
    files = Files(tmp_path, ACTIVE, ACTIVE[:1])
    for command in ("reconcile", "diff"):
        done = site.run(command, *files.options)
        assert done.code not in (DRAINED, HALTED)
        assert f"identifiers both active and deleted: 1, the first is {ACTIVE[0]}" in done.err
    assert site.live() == set(ACTIVE)


def test_half_a_snapshot_is_refused(site: Site, tmp_path: Path) -> None:
    files = Files(tmp_path, ACTIVE, [])
    assert "give both" in site.run("reconcile", *files.options[:2]).err
    assert "give both" in site.run("diff", *files.options[2:]).err


def test_a_reconciliation_stopped_after_every_unit_ends_the_same(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwork.sources.doab.reconcile.BATCH", 2)
    files = Files(tmp_path, ACTIVE[5:], ACTIVE[:5])
    while site.by_units(1, "reconcile", *files.options).code != DRAINED:
        pass
    assert site.live() == set(ACTIVE[5:])


def exported(site: Site, form: str, tmp_path: Path) -> str:
    path = tmp_path / form
    assert site.run("export", "--format", form, "--output", str(path)).code == 0
    text = path.read_bytes().decode()
    assert site.run("export", "--format", form).out == text
    return text


def test_an_export_as_json_lines_gives_back_what_is_stored(site: Site, tmp_path: Path) -> None:
    records = [json.loads(line) for line in exported(site, "jsonl", tmp_path).split("\n")[:-1]]
    stored = [row for row in site.canonical() if not row["deleted"]]
    assert len(records) == len(ACTIVE)
    for record, row in zip(records, stored, strict=True):
        row.pop("deleted")
        assert record == {name: json.loads(value) if name in LISTS else value for name, value in row.items()}


def test_an_export_as_csv_gives_back_what_is_stored(site: Site, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(site, "csv", tmp_path), newline="")))
    stored = [row for row in site.canonical() if not row["deleted"]]
    assert len(rows) == len(ACTIVE)
    for found, row in zip(rows, stored, strict=True):
        row.pop("deleted")
        for name, value in row.items():
            wanted = "; ".join(json.loads(value)) if name in LISTS else "" if value is None else str(value)
            assert found[name] == wanted


def test_an_export_of_nothing_says_what_to_do(oai: FakeOai, tmp_path: Path) -> None:
    done = Site(tmp_path / "empty", oai).run("export")
    assert done.code == 2
    assert "nothing is stored yet; run: tickwork doab harvest" in done.err


def test_the_figures_count_records_and_the_worklist(site: Site, tmp_path: Path) -> None:
    figures = json.loads(site.run("stats", "--json").out)
    assert figures == {"live": len(ACTIVE), "deleted": len(BOOKS) - len(ACTIVE), "worklist": {}, "review": []}
    ids = tmp_path / "ids"
    ids.write_text(f"{ACTIVE[0]}\noai:directory.doabooks.org:20.500.12854/4\n")
    assert site.run("backfill", "--ids-file", str(ids)).code == DRAINED
    assert json.loads(site.run("stats", "--json").out)["worklist"] == {"gone": 1}
    assert f"records   {len(ACTIVE)} live, {len(BOOKS) - len(ACTIVE)} deleted" in site.run("stats").out
