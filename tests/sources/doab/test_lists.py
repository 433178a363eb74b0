"""Whose list it is: given files and our own, other servers, sets and prefixes, and what a deletion may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HALTED, HARVEST_ALL, MORE, Clock, Site, active_in, stored_by, well_mannered
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(120, seed=2)
PAGE_SIZE = 25
ACTIVE = active_in(BOOKS)
SET = "com_20.500.12854_7"
OF_THE_SET = [book for book in BOOKS if SET in book.sets]


@pytest.fixture
def other(clock: Clock) -> Iterator[FakeOai]:
    """Another repository, that has only the second half."""
    with FakeOai(BOOKS[60:], page_size=PAGE_SIZE, clock=clock) as server:
        yield server
        well_mannered(server)


def own_worklist(site: Site) -> list[tuple[object, ...]]:
    with site.db() as db:
        return [tuple(row) for row in db.execute("SELECT * FROM worklist WHERE list = 'own' ORDER BY position")]


def cursors(site: Site) -> dict[str, str]:
    """The cursors by server, prefix and set, with a blank between them."""
    with site.db() as db:
        rows = db.execute("SELECT name, value FROM facts WHERE name LIKE 'harvest cursor of %'").fetchall()
    return {" ".join(json.loads(name.removeprefix("harvest cursor of "))): value for name, value in rows}


# Given lists and our own


def test_a_list_given_by_hand_neither_ends_the_job_nor_touches_our_own_list(site: Site, tmp_path: Path) -> None:
    assert site.run("backfill", "--limit", "15").code == MORE
    before = own_worklist(site)
    assert {row[3] for row in before} == {"ok", "todo"}
    ids = tmp_path / "ids"
    ids.write_text(f"{ACTIVE[-1]}\n{ACTIVE[-2]}\n")
    assert site.run("backfill", "--ids-file", str(ids)).code == DRAINED
    assert {ACTIVE[-1], ACTIVE[-2]} <= site.live()
    assert not site.marker("doab-backfill", ".done")
    assert own_worklist(site) == before
    assert site.passes("backfill", "--limit", "30")[-1] == DRAINED
    assert site.live() == set(ACTIVE)
    assert site.marker("doab-backfill", ".done")


def test_a_whole_snapshot_of_another_machine_ends_the_job_when_it_is_drained(
    site: Site, oai: FakeOai, tmp_path: Path
) -> None:
    site.run("discover")
    machine = Site(tmp_path / "other machine", oai)
    given = ("--use-active-file", str(site.snapshot()), "--use-deleted-file", str(site.snapshot("deleted")))
    assert machine.run("backfill", *given, "--limit", "10").code == MORE
    assert not machine.marker("doab-backfill", ".done")
    assert machine.run("backfill", *given).code == DRAINED
    assert machine.marker("doab-backfill", ".done")
    assert machine.live() == set(ACTIVE)


# Another set, prefix or server


def test_an_interrupted_harvest_is_not_continued_for_another_set(site: Site, oai: FakeOai) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "25").code == MORE
    site.set(set=SET)
    before = len(oai.history)
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "1000").code == DRAINED
    asked = [seen.params for seen in oai.history[before:] if seen.verb == "ListRecords"]
    assert asked[0]["set"] == SET
    expected = {book.identifier for book in OF_THE_SET}
    assert expected
    assert expected <= site.stamps().keys()


@pytest.mark.parametrize(("begun", "then"), [("", SET), (SET, "")])
def test_an_interrupted_harvest_without_bounds_is_not_continued_for_another_set(
    site: Site, oai: FakeOai, begun: str, then: str
) -> None:
    site.set(window_days=10000, set=begun, window_items=4)
    assert site.run("harvest", "--limit", "3").code == MORE
    site.set(set=then)
    before = len(oai.history)
    assert site.passes("harvest", "--limit", "50")[-1] == DRAINED
    first = next(seen.params for seen in oai.history[before:] if seen.verb == "ListRecords")
    assert "resumptionToken" not in first
    assert first.get("set", "") == then
    assert {book.identifier for book in (OF_THE_SET if then else BOOKS)} <= site.stamps().keys()
    assert cursors(site).keys() == {f"{oai.base_url} oai_dc {then}"}


def test_an_interrupted_harvest_is_not_continued_for_another_prefix(site: Site, oai: FakeOai) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "25").code == MORE
    site.set(prefix="xoai")
    before = len(oai.history)
    assert site.run("harvest").code == HALTED
    assert "cannotDisseminateFormat" in site.marker("doab-harvest")
    (listing,) = [seen.params for seen in oai.history[before:] if seen.verb == "ListRecords"]
    assert listing["metadataPrefix"] == "xoai"
    site.set(prefix="oai_dc")
    site.run("rearm", "doab-harvest", "--why", "the prefix was mine")
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert site.stamps() == stored_by(oai)


def test_each_server_prefix_and_set_has_a_cursor_of_its_own(
    site: Site, oai: FakeOai, other: FakeOai, clock: Clock
) -> None:
    assert site.run(*HARVEST_ALL).code == DRAINED
    clock.move(days=5)
    site.set(set=SET)
    assert site.run(*HARVEST_ALL).code == DRAINED
    site.set(set="", base_url=other.base_url)
    assert site.run("harvest", "--until", "2020-05-01").code == DRAINED
    assert cursors(site) == {
        f"{oai.base_url} oai_dc ": "2026-10-04T12:00:00Z",
        f"{oai.base_url} oai_dc {SET}": "2026-10-09T12:00:00Z",
    }


@pytest.mark.parametrize("changed", ["server", "set"])
def test_a_snapshot_of_something_else_is_crawled_anew(site: Site, oai: FakeOai, other: FakeOai, changed: str) -> None:
    assert site.run("discover").code == DRAINED
    first = site.snapshot().read_text()
    site.set(**({"base_url": other.base_url} if changed == "server" else {"set": SET}))
    wanted = BOOKS[60:] if changed == "server" else OF_THE_SET
    asked = other if changed == "server" else oai
    before = len(asked.history)
    assert site.run("discover").code == DRAINED
    assert "ListIdentifiers" in {seen.verb for seen in asked.history[before:]}
    assert site.snapshot().read_text() != first
    assert set(active_in(wanted)) == {line.split("\t")[0] for line in site.snapshot().read_text().splitlines()[1:]}


def test_the_backfill_asks_a_new_server_only_for_its_own_records(site: Site, oai: FakeOai, other: FakeOai) -> None:
    assert site.run("backfill", "--limit", "12").code == MORE
    stored = site.live()
    site.set(base_url=other.base_url)
    before = len(oai.history)
    assert site.passes("backfill")[-1] == DRAINED
    assert len(oai.history) == before
    asked = set(other.history.asked_for())
    assert asked == set(active_in(BOOKS[60:])) - stored


def test_a_dry_run_does_not_show_the_list_of_another_server(site: Site, other: FakeOai) -> None:
    assert site.run("discover").code == DRAINED
    assert len(site.run("backfill", "--dry-run").out.splitlines()) == len(ACTIVE)
    site.set(base_url=other.base_url)
    done = site.run("backfill", "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert "snapshot" in done.err
    assert not other.history


def test_reconciling_and_comparing_refuse_the_snapshot_of_another_server_by_its_name(
    site: Site, oai: FakeOai, other: FakeOai
) -> None:
    site.run(*HARVEST_ALL)
    site.run("discover")
    stored = site.canonical()
    site.set(base_url=other.base_url)
    for command in ("reconcile", "diff"):
        done = site.run(command)
        assert done.code not in (DRAINED, MORE, HALTED)
        assert f"is of {oai.base_url}?metadataPrefix=oai_dc&set=" in done.err
        assert "Traceback" not in done.err
    assert site.canonical() == stored
    assert not other.history


# Deletions that a harvest hears of


@pytest.mark.parametrize("page_size", [100, 5])
def test_a_list_in_which_everything_is_suddenly_deleted_halts_and_takes_nothing_away(
    page_size: int, tmp_path: Path, clock: Clock
) -> None:
    with FakeOai(BOOKS, page_size=page_size, clock=clock) as oai:
        site = Site(tmp_path, oai)
        assert site.run(*HARVEST_ALL).code == DRAINED
        before = site.canonical()
        clock.move(hours=1)
        for identifier in ACTIVE:
            oai.delete(identifier)
        assert site.passes("harvest", "--limit", "30")[-1] == HALTED
        told = site.marker("doab-harvest")
        assert f"of {len(ACTIVE)} records that they are deleted (limit 10%)" in told
        assert "--allow-deletes" in told
        assert site.canonical() == before, "no record lost its metadata"
        assert site.run("rearm", "doab-harvest", "--why", "it is true").code == 0
        assert site.run("harvest", "--allow-deletes", str(len(ACTIVE))).code == DRAINED
        assert site.live() == set()
        assert site.stamps() == stored_by(oai)
        well_mannered(oai)


def test_a_mass_deletion_that_the_server_took_back_is_forgotten_after_a_rearm(
    site: Site, oai: FakeOai, clock: Clock
) -> None:
    assert site.run(*HARVEST_ALL).code == DRAINED
    live = [book for book in BOOKS if not book.deleted]
    clock.move(hours=1)
    for book in live:
        oai.delete(book.identifier)
    assert site.run("harvest").code == HALTED
    for book in live:
        oai.put(book)
    assert site.run("rearm", "doab-harvest", "--why", "they mended it").code == 0
    assert site.run("harvest").code == DRAINED
    assert site.stamps() == stored_by(oai)


@pytest.mark.parametrize(("deletions", "code"), [(10, DRAINED), (11, HALTED)])
def test_a_few_deletions_are_fine_in_a_small_store(deletions: int, code: int, tmp_path: Path, clock: Clock) -> None:
    with FakeOai([book for book in BOOKS if not book.deleted][:20], page_size=4, clock=clock) as oai:
        site = Site(tmp_path, oai)
        site.run(*HARVEST_ALL)
        live = sorted(site.live())
        clock.move(hours=1)
        for identifier in live[:deletions]:
            oai.delete(identifier)
        assert site.passes("harvest", "--limit", "4")[-1] == code
        assert len(site.live()) == (20 - deletions if code == DRAINED else 20)
        figures = json.loads(site.run("stats", "--json").out)
        assert figures["live"] == len(site.live())
