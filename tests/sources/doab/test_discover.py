"""Discovery: one crawl of all identifiers that survives ticks, tokens and changes, into files that can be trusted."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HALTED, MORE, Clock, Site, stored_by
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai
from tests.upstreams.oai_records import DAYS
from tickwork.contract.outcomes import OperatorError
from tickwork.sources.doab import identifier_lists as snapshots

BOOKS = generated_books(120, seed=6)
PAGE_SIZE = 25


def listed(site: Site, which: str) -> dict[str, str]:
    """Identifiers and datestamps of our own snapshot, read without our code."""
    _, *lines = site.snapshot(which).read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def expected(oai: FakeOai, *, deleted: bool) -> dict[str, str]:
    return {i: stamp for i, (stamp, is_deleted) in stored_by(oai).items() if is_deleted == deleted}


def test_a_crawl_lists_what_is_active_and_what_is_deleted(site: Site, oai: FakeOai) -> None:
    assert site.run("discover").code == DRAINED
    assert listed(site, "active") == expected(oai, deleted=False)
    assert listed(site, "deleted") == expected(oai, deleted=True)
    assert listed(site, "deleted")
    numbers = [int(identifier.rpartition("/")[2]) for identifier in listed(site, "active")]
    assert numbers == sorted(numbers)
    assert {seen.verb for seen in oai.history} == {"Identify", "ListIdentifiers"}


def test_a_file_says_how_many_lines_it_has_and_their_digest(site: Site, oai: FakeOai) -> None:
    site.run("discover")
    for which in ("active", "deleted"):
        head, _, body = site.snapshot(which).read_bytes().partition(b"\n")
        assert f"count={len(body.splitlines())} " in head.decode()
        assert head.decode().endswith(f"sha256={hashlib.sha256(body).hexdigest()}")
        assert f"source={oai.base_url}?metadataPrefix=oai_dc&set= crawled=2026-10-05T12:00:00Z" in head.decode()


def test_the_same_crawl_gives_the_same_bytes_however_it_was_cut_up(site: Site, oai: FakeOai, tmp_path: Path) -> None:
    site.run("discover")
    other = Site(tmp_path / "other", oai, window_items=30)
    assert other.passes("discover", "--limit", "7")[-1] == DRAINED
    for which in ("active", "deleted"):
        assert other.snapshot(which).read_bytes() == site.snapshot(which).read_bytes()


def test_a_crawl_gets_on_although_every_token_expires_between_ticks(site: Site, oai: FakeOai) -> None:
    done, codes, before = set(), [], 0
    while not codes or codes[-1] == MORE:
        # The first token of a pass is always one of the pass before.
        oai.switches.replace()
        oai.fault("expire-token", verb="ListIdentifiers", count=1)
        codes.append(site.run("discover", "--limit", "26").code)
        with site.db() as db:
            finished = set(db.execute("SELECT first, last FROM windows WHERE done").fetchall())
        assert {tuple(row) for row in done} <= {tuple(row) for row in finished} or codes[-1] == DRAINED
        done = finished
        assert len(oai.history) - before <= 20
        before = len(oai.history)
        assert len(codes) < 40, "no progress"
    assert codes[-1] == DRAINED
    assert len(codes) > 3
    assert listed(site, "active") == expected(oai, deleted=False)
    assert listed(site, "deleted") == expected(oai, deleted=True)


def test_changes_during_the_crawl_land_through_the_closing_window(site: Site, oai: FakeOai, clock: Clock) -> None:
    live = [book for book in BOOKS if not book.deleted]
    gone = next(book for book in BOOKS if book.deleted)
    assert site.run("discover", "--limit", "75").code == MORE
    clock.move(minutes=10)
    oai.delete(live[0].identifier)  # listed already
    oai.delete(live[-1].identifier)  # not listed yet: the list shrinks
    oai.put(replace(live[0], identifier="oai:directory.doabooks.org:20.500.12854/5", datestamp=clock.now))
    oai.put(replace(live[1], identifier=gone.identifier, datestamp=clock.now))
    assert site.run("discover").code == DRAINED
    assert listed(site, "active") == expected(oai, deleted=False)
    assert listed(site, "deleted") == expected(oai, deleted=True)
    assert "oai:directory.doabooks.org:20.500.12854/5" in listed(site, "active")


def test_a_list_that_shrinks_halts_with_figures_and_leaves_the_files(site: Site, oai: FakeOai) -> None:
    site.run("discover")
    before = {which: site.snapshot(which).read_bytes() for which in ("active", "deleted")}
    for book in [book for book in BOOKS if not book.deleted][:10]:
        oai.remove(book.identifier)
    done = site.run("discover", "--refresh-ids")
    count = len(expected(oai, deleted=False))
    assert done.code == HALTED
    assert f"found {count} active records where {count + 10} were active" in site.marker("doab-discover")
    assert {which: site.snapshot(which).read_bytes() for which in ("active", "deleted")} == before
    suspect = site.snapshot("active.suspect").read_text().splitlines()
    assert len(suspect) == count + 1
    # A human looked, and it is true.
    for which in ("active", "deleted"):
        site.snapshot(f"{which}.suspect").rename(site.snapshot(which))
    site.run("rearm", "doab-discover", "--why", "it is true")
    assert site.run("discover", "--refresh-ids").code == DRAINED


def test_a_little_fewer_is_no_alarm(site: Site, oai: FakeOai) -> None:
    site.run("discover")
    for book in [book for book in BOOKS if not book.deleted][:3]:
        oai.remove(book.identifier)
    assert site.run("discover", "--refresh-ids").code == DRAINED
    assert listed(site, "active") == expected(oai, deleted=False)


def test_a_server_without_any_active_record_halts_the_first_crawl(tmp_path: Path, clock: Clock) -> None:
    with FakeOai([book for book in BOOKS if book.deleted], clock=clock) as oai:
        site = Site(tmp_path, oai)
        assert site.run("discover").code == HALTED
        assert "no active record" in site.marker("doab-discover")
        assert not site.snapshot().exists()


def test_a_fresh_snapshot_is_not_crawled_again_unless_asked(site: Site, oai: FakeOai) -> None:
    site.run("discover")
    asked = len(oai.history)
    assert site.run("discover").code == DRAINED
    assert len(oai.history) == asked
    assert site.run("discover", "--refresh-ids").code == DRAINED
    assert len(oai.history) > asked


def test_an_old_snapshot_is_crawled_again(tmp_path: Path) -> None:
    clock = Clock(dt.datetime.now(dt.UTC) - dt.timedelta(days=31))
    books = [replace(book, datestamp=clock.now - dt.timedelta(days=n)) for n, book in enumerate(BOOKS)]
    with FakeOai(books, clock=clock) as oai:
        site = Site(tmp_path, oai, snapshot_days=30)
        site.run("discover")
        clock.move(days=2)
        asked = len(oai.history)
        site.run("discover")
        assert len(oai.history) > asked
        asked = len(oai.history)
        site.run("discover")
        assert len(oai.history) == asked


def test_an_interrupted_refresh_goes_on_without_being_asked_again(site: Site, oai: FakeOai) -> None:
    site.run("discover")
    assert site.run("discover", "--refresh-ids", "--limit", "25").code == MORE
    asked = len(oai.history)
    assert site.run("discover").code == DRAINED
    assert [seen.verb for seen in oai.history[asked:]] == ["ListIdentifiers"] * 4


def test_a_server_that_counts_in_days_is_crawled_too(tmp_path: Path, clock: Clock) -> None:
    with FakeOai(BOOKS, page_size=PAGE_SIZE, clock=clock, granularity=DAYS) as oai:
        site = Site(tmp_path, oai, window_items=50)
        assert site.run("discover").code == DRAINED
        assert listed(site, "active") == expected(oai, deleted=False)


# --- the files ---------------------------------------------------------------------------------------


def test_a_snapshot_that_was_cut_off_is_refused_wherever_it_was_cut(site: Site, tmp_path: Path) -> None:
    site.run("discover")
    whole = site.snapshot().read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(23, 200), *range(200, len(whole), 97), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(OperatorError):
            snapshots.read(cut)


def test_a_snapshot_with_a_changed_byte_is_refused(site: Site, tmp_path: Path) -> None:
    site.run("discover")
    whole = site.snapshot().read_bytes()
    changed = tmp_path / "changed"
    for place in range(len("# tickwork identifiers v1 "), len(whole), 89):
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if whole[place : place + 1] in b"source=" or place < whole.index(b" count="):
            continue  # what the head says of itself is not covered by the digest
        with pytest.raises(OperatorError):
            snapshots.read(changed)


def test_a_snapshot_that_was_cut_off_stops_every_command_that_reads_it(
    site: Site, oai: FakeOai, tmp_path: Path
) -> None:
    site.run("discover")
    asked = len(oai.history)
    cut = tmp_path / "cut.active"
    cut.write_bytes(site.snapshot().read_bytes()[:-30])
    for command in (("backfill", "--use-active-file", str(cut)), ("backfill", "--ids-file", str(cut), "--dry-run")):
        done = site.run(*command)
        assert done.code not in (DRAINED, MORE)
        assert "damaged or was cut off" in done.err
    both = ("--use-active-file", str(cut), "--use-deleted-file", str(site.snapshot("deleted")))
    for command in ("diff", "reconcile"):
        assert "damaged or was cut off" in site.run(command, *both).err
    assert len(oai.history) == asked


def test_a_bare_list_is_read_with_comments_empty_lines_and_other_line_ends(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_bytes(b"# mine\r\n\r\noai:x:2\r\n  oai:x:1  \noai:x:2\n")
    assert list(snapshots.read(bare).identifiers) == ["oai:x:2", "oai:x:1"]
