"""The backfill: what it asks for, in which order, what becomes of each record, when it is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HALTED, HARVEST_ALL, MORE, Site, active_in, stored_by
from tests.kits.patience import until
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(40, seed=8)
PAGE_SIZE = 10
ACTIVE = active_in(BOOKS)
FAULTY = {
    "500": "answered 500",
    "html": "an HTML page",
    "truncate": "failed",
    "wrong-record": "the server answered with",
}


@pytest.fixture
def ids(tmp_path: Path) -> str:
    """A bare list of all that is active."""
    path = tmp_path / "ids"
    path.write_text("".join(f"{identifier}\n" for identifier in sorted(ACTIVE)))
    return str(path)


def asked(oai: FakeOai) -> list[str]:
    """The identifiers asked for one by one, in order."""
    return [seen.params["identifier"] for seen in oai.history if seen.verb == "GetRecord"]


def test_a_backfill_discovers_and_fetches_newest_first_until_drained(site: Site, oai: FakeOai) -> None:
    codes = site.passes("backfill", "--limit", "12")
    assert len(codes) >= 3
    assert asked(oai) == ACTIVE
    assert site.stamps() == {i: s for i, s in stored_by(oai).items() if not s[1]}
    assert set(site.worklist().values()) == {"ok"}


def test_done_is_written_only_when_drained(site: Site) -> None:
    while site.run("backfill", "--limit", "12").code == MORE:
        assert not site.marker("doab-backfill", ".done")
    assert site.marker("doab-backfill", ".done")


def test_after_done_nobody_is_asked(site: Site, oai: FakeOai) -> None:
    site.passes("backfill")
    before = len(oai.history)
    assert site.run("backfill").code == DRAINED
    assert len(oai.history) == before


def test_the_bounds_of_a_pass_are_kept(site: Site, oai: FakeOai, ids: str) -> None:
    done = site.run("backfill", "--ids-file", ids, "--limit", "7")
    assert done.code == MORE
    assert asked(oai) == ACTIVE[:7]
    assert f"backlog={len(ACTIVE) - 7}" in done.err


def test_records_that_are_stored_are_never_asked_for(site: Site, oai: FakeOai, ids: str) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "10").code == MORE
    stored = site.live()
    assert stored
    assert site.run("backfill", "--ids-file", ids, "--limit", "5").code == MORE
    assert site.run("harvest", "--limit", "10").code == MORE  # a harvest in between is quicker
    harvested = site.live() - stored
    assert site.run("backfill", "--ids-file", ids).code == DRAINED
    assert not stored & set(asked(oai))
    assert not (harvested & set(asked(oai)[5:]))
    assert "present" in site.worklist().values()
    assert max(oai.history.asked_for().values()) == 1
    assert site.live() == set(ACTIVE)


def test_a_given_list_needs_no_discovery_and_gives_the_same_worklist_everywhere(
    site: Site, oai: FakeOai, tmp_path: Path
) -> None:
    site.run("discover")
    other = Site(tmp_path / "other", oai)
    before = len(oai.history)
    given = ("--use-active-file", str(site.snapshot()), "--use-deleted-file", str(site.snapshot("deleted")))
    first, second = (each.run("backfill", *given, "--dry-run").out for each in (site, other))
    assert first == second == "".join(f"{identifier}\n" for identifier in ACTIVE)
    assert len(oai.history) == before
    assert other.passes("backfill", *given, "--limit", "25")[-1] == DRAINED
    assert {seen.verb for seen in oai.history[before:]} == {"GetRecord"}
    assert asked(oai) == ACTIVE
    assert list(other.worklist()) == ACTIVE


def test_a_given_list_is_neither_needed_nor_replaced_by_our_own_snapshot(site: Site, oai: FakeOai, ids: str) -> None:
    assert site.run("backfill", "--ids-file", ids, "--limit", "3").code == MORE
    assert not site.snapshot().exists()
    assert "ListIdentifiers" not in {seen.verb for seen in oai.history}


def test_a_dry_run_writes_nothing_and_asks_nobody(site: Site, oai: FakeOai, ids: str, tmp_path: Path) -> None:
    dry = ("backfill", "--ids-file", ids, "--dry-run")
    assert site.run(*dry).out.splitlines() == ACTIVE
    assert not site.state.exists()
    site.run("backfill", "--ids-file", ids, "--limit", "4")
    before, requests = site.fingerprint(), len(oai.history)
    assert site.run(*dry).out.splitlines() == ACTIVE[4:]
    assert site.run("backfill", "--dry-run").code == 0  # and no snapshot of our own
    assert site.fingerprint() == before
    assert len(oai.history) == requests


@pytest.mark.slow
def test_a_dry_run_writes_nothing_beside_a_killed_pass_either(site: Site, oai: FakeOai, ids: str) -> None:
    """The database then has a write-ahead log, which a careless reader would clear away."""
    oai.fault("slow", verb="GetRecord", nth=5, seconds=300, count=None)
    process = site.start("backfill", "--ids-file", ids)
    until(lambda: len(asked(oai)) == 5)
    process.kill()
    process.communicate()
    assert (site.state / "db" / "doab.db-wal").stat().st_size
    before = site.fingerprint()
    assert site.run("backfill", "--ids-file", ids, "--dry-run").out.splitlines() == ACTIVE[4:]
    assert site.fingerprint() == before


def test_a_record_that_is_gone_is_settled_and_stored_as_far_as_it_is_known(site: Site, oai: FakeOai, ids: str) -> None:
    oai.remove(ACTIVE[0])
    oai.delete(ACTIVE[1])
    assert site.run("backfill", "--ids-file", ids).code == DRAINED
    assert list(site.worklist().items())[:3] == [(ACTIVE[0], "gone"), (ACTIVE[1], "gone"), (ACTIVE[2], "ok")]
    assert ACTIVE[0] not in site.stamps()
    assert site.stamps()[ACTIVE[1]] == ("2026-10-05T12:00:00Z", True)


@pytest.mark.parametrize(
    "kind", ["500", *(pytest.param(kind, marks=pytest.mark.slow) for kind in FAULTY if kind != "500")]
)
def test_one_poisonous_record_never_blocks_the_queue_and_ends_in_review(
    kind: str, site: Site, oai: FakeOai, ids: str
) -> None:
    site.set(review_share=0.2)
    oai.fault(kind, verb="GetRecord", identifier=ACTIVE[0], count=None)
    first = site.run("backfill", "--ids-file", ids)
    assert site.live() == set(ACTIVE[1:]), "all the others came in the first pass"
    while first.code == MORE:
        assert "records waiting for a retry: 1," in first.err
        assert site.run("backfill", "--ids-file", ids).code == MORE  # and not before its time
        site.ripen()
        first = site.run("backfill", "--ids-file", ids)
        assert oai.history.asked_for()[ACTIVE[0]] <= 15
    assert first.code == DRAINED
    assert site.worklist()[ACTIVE[0]] == "review"
    assert "records that need a human: 1." in first.err
    stats = site.run("stats").out
    assert ACTIVE[0] in stats
    assert FAULTY[kind] in stats
    asked_in_all = oai.history.asked_for()[ACTIVE[0]]
    assert asked_in_all == {"500": 5, "html": 5, "truncate": 15, "wrong-record": 1}[kind]


def test_a_record_that_recovers_is_fetched_after_all(site: Site, oai: FakeOai, ids: str) -> None:
    oai.fault("500", verb="GetRecord", identifier=ACTIVE[3], count=2)
    assert site.run("backfill", "--ids-file", ids).code == MORE
    for expected in (MORE, DRAINED):
        site.ripen()
        assert site.run("backfill", "--ids-file", ids).code == expected
    assert site.live() == set(ACTIVE)


def test_three_poisonous_records_in_a_row_end_one_pass_and_not_the_backfill(site: Site, oai: FakeOai, ids: str) -> None:
    for identifier in ACTIVE[:3]:
        oai.fault("500", verb="GetRecord", identifier=identifier, count=None)
    done = site.run("backfill", "--ids-file", ids)
    assert done.code == MORE
    assert "3 records in a row failed" in done.err
    assert site.run("backfill", "--ids-file", ids).code == MORE
    assert site.live() == set(ACTIVE[3:])


@pytest.mark.parametrize(
    "kind", ["500", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("html", "empty", "reset"))]
)
def test_an_outage_of_everything_never_halts_and_costs_no_record(kind: str, site: Site, oai: FakeOai, ids: str) -> None:
    """A dozen passes of an outage find a short worklist: nothing may be given up for the server's trouble."""
    short = Path(ids)
    short.write_text("".join(f"{identifier}\n" for identifier in ACTIVE[:4]))
    oai.fault(kind, count=None)
    for _ in range(12):
        assert site.run("backfill", "--ids-file", ids).code == MORE
        site.ripen()
    assert not site.marker("doab-backfill")
    assert "review" not in site.worklist().values()
    assert len(oai.history) <= 12 * 3 * (3 + 3), "three records a pass, each and the server itself tried three times"
    oai.switches.replace()
    assert site.passes("backfill", "--ids-file", ids)[-1] == DRAINED
    assert site.live() == set(ACTIVE[:4])


@pytest.mark.parametrize(
    "fields",
    [
        {"after": 60},
        pytest.param({"after": 60, "via": "date"}, marks=pytest.mark.slow),
        pytest.param({"via": "none"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("kind", "verb"), [("429", "GetRecord"), ("503", "GetRecord"), ("429", "ListIdentifiers")])
def test_being_told_to_wait_ends_the_pass_with_a_hold(
    kind: str, verb: str, fields: dict[str, object], site: Site, oai: FakeOai
) -> None:
    oai.fault(kind, verb=verb, nth=2, **fields)
    assert site.run("backfill").code == MORE
    assert site.holds() == [f"127.0.0.1:{oai.port}"]
    before = len(oai.history)
    for command in (("backfill",), ("harvest",), ("discover", "--refresh-ids")):
        assert "on hold until" in site.run(*command).err
    assert len(oai.history) == before
    assert not site.marker("doab-backfill")
    for seen in oai.history:
        seen.hold_until = None  # lifted by hand
    site.lift_holds()
    assert site.passes("backfill")[-1] == DRAINED
    assert site.live() == set(ACTIVE)


@pytest.mark.slow
def test_two_passes_of_one_lock_are_never_at_once(site: Site, oai: FakeOai, ids: str) -> None:
    oai.fault("slow", verb="GetRecord", count=None, seconds=0.5)
    first = site.start("backfill", "--ids-file", ids)
    until(lambda: asked(oai))
    for command in (("backfill", "--ids-file", ids), HARVEST_ALL, ("discover",)):
        second = site.run(*command)
        assert second.code == 75
        assert f"another run is active: doab-backfill (pid {first.pid}, since " in second.err
    first.terminate()
    first.communicate()
    assert first.returncode == MORE
    assert {seen.verb for seen in oai.history} == {"GetRecord"}


def test_a_restored_record_that_was_a_tombstone_is_fetched_again(site: Site, oai: FakeOai, ids: str) -> None:
    oai.delete(ACTIVE[0])
    site.run(*HARVEST_ALL)
    assert site.stamps()[ACTIVE[0]][1]
    oai.clock.move(hours=1)  # type: ignore[attr-defined]
    book = next(book for book in BOOKS if book.identifier == ACTIVE[0])
    oai.put(replace(book, datestamp=oai.clock()))
    assert site.run("backfill", "--ids-file", ids).code == DRAINED
    assert asked(oai) == [ACTIVE[0]]
    assert site.stamps() == stored_by(oai)


def test_lists_that_contradict_each_other_are_refused(site: Site, oai: FakeOai, ids: str, tmp_path: Path) -> None:
    deleted = tmp_path / "deleted"
    deleted.write_text(f"{ACTIVE[0]}\n")
    for options, told in (
        (("--use-active-file", ids, "--use-deleted-file", str(deleted)), "both active and deleted"),
        (("--use-active-file", ids, "--ids-file", ids), "not both"),
        (("--use-deleted-file", str(deleted)), "needs --use-active-file"),
        (("--ids-file", str(tmp_path / "none")), "cannot read"),
    ):
        done = site.run("backfill", *options)
        assert done.code not in (DRAINED, MORE, HALTED)
        assert told in done.err
    assert not oai.history
