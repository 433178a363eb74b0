"""The harvest: where it begins and ends, when its cursor moves, what it stores."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HARVEST_ALL, MORE, Clock, Site, stored_by, well_mannered
from tests.upstreams.books import Book, generated_books
from tests.upstreams.oai import FakeOai
from tests.upstreams.oai_records import DAYS

BOOKS = generated_books(120, seed=2)
PAGE_SIZE = 25
NOW = "2026-10-05T12:00:00Z"


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def lists(oai: FakeOai, since: int = 0) -> list[dict[str, str]]:
    """The arguments of the list requests after the request number `since`."""
    return [seen.params for seen in oai.history if seen.verb == "ListRecords" and seen.seq > since]


def test_a_complete_harvest_stores_every_record_and_tombstone_of_the_server(site: Site, oai: FakeOai) -> None:
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert any(deleted for _, deleted in site.stamps().values())
    assert site.stamps() == stored_by(oai)


def test_the_cursor_is_the_first_response_date_less_the_overlap(site: Site, oai: FakeOai, clock: Clock) -> None:
    oai.fault("shift", verb="ListRecords", count=None, change=lambda server: clock.move(hours=5))
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert site.cursor() == "2026-10-04T12:00:00Z"  # and not a day before 2026-10-06T13:00:00Z, when the list ended


def test_the_cursor_stays_until_the_list_is_complete(site: Site, oai: FakeOai, clock: Clock) -> None:
    for stored in (25, 50, 75, 100):
        assert site.run("harvest", "--from", "2000-01-01", "--limit", "20").code == MORE
        assert len(site.stamps()) == stored
        assert site.cursor() == ""
        clock.move(hours=1)
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "21").code == DRAINED
    assert site.cursor() == "2026-10-04T12:00:00Z"
    assert len(lists(oai)) == 5


def test_an_interrupted_harvest_goes_on_by_its_token_also_in_a_pass_without_bounds(site: Site, oai: FakeOai) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "50").code == MORE
    before = len(oai.history)
    assert site.run("harvest").code == DRAINED
    tokens = [params["resumptionToken"].rpartition("/")[2] for params in lists(oai, since=before)]
    assert tokens == ["50", "75", "100"]
    assert [seen.verb for seen in oai.history[before:]] == ["ListRecords"] * 3
    assert site.stamps() == stored_by(oai)


def test_a_window_longer_than_all_of_time_reaches_back_to_its_beginning(tmp_path: Path, oai: FakeOai) -> None:
    site = Site(tmp_path, oai, window_days=10**9, window_items=10**6)
    assert site.run("harvest").code == DRAINED
    assert lists(oai)[0]["from"] == "0001-01-01T00:00:00Z"
    assert site.stamps() == stored_by(oai)


def test_until_is_fixed_when_the_harvest_begins(site: Site, oai: FakeOai, clock: Clock) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "25").code == MORE
    clock.move(hours=1)
    oai.put(replace(BOOKS[0], identifier="oai:directory.doabooks.org:20.500.12854/9", datestamp=clock.now))
    assert site.run("harvest").code == DRAINED
    assert lists(oai)[0]["until"] == NOW
    assert all(f"/{NOW}/" in params["resumptionToken"] for params in lists(oai)[1:])
    assert "oai:directory.doabooks.org:20.500.12854/9" not in site.stamps()
    assert site.run("harvest").code == DRAINED
    assert site.stamps() == stored_by(oai)


def test_a_nightly_harvest_looks_back_to_the_cursor_and_at_least_over_the_rolling_window(
    site: Site, oai: FakeOai, clock: Clock
) -> None:
    assert site.run("harvest").code == DRAINED  # the first one has no cursor
    clock.move(hours=1)
    assert site.run("harvest").code == DRAINED  # cursor 2026-10-04T12, three days back is further
    clock.move(days=9)
    assert site.run("harvest").code == DRAINED  # nine days later the cursor is further
    assert [params["from"] for params in lists(oai)] == [
        "2026-10-02T12:00:00Z",
        "2026-10-02T13:00:00Z",
        "2026-10-04T13:00:00Z",
    ]
    assert [params["until"] for params in lists(oai)] == [
        "2026-10-05T12:00:00Z",
        "2026-10-05T13:00:00Z",
        "2026-10-14T13:00:00Z",
    ]


def test_nothing_new_is_a_success_that_moves_the_cursor(site: Site, oai: FakeOai) -> None:
    assert site.run("harvest").code == DRAINED
    assert site.stamps() == {}
    assert site.cursor() == "2026-10-04T12:00:00Z"


def test_bounds_of_an_operator_move_the_cursor_only_if_they_leave_no_gap(site: Site, clock: Clock) -> None:
    assert site.run("harvest", "--until", "2026-10-01").code == DRAINED
    assert site.cursor() == ""  # an end leaves everything after it
    assert site.run("harvest", "--from", "2026-01-01").code == DRAINED
    assert site.cursor() == "2026-10-04T12:00:00Z"
    clock.move(days=10)
    assert site.run("harvest", "--from", "2026-10-10").code == DRAINED
    assert site.cursor() == "2026-10-04T12:00:00Z"  # 2026-10-05 to 2026-10-09 were not looked at
    assert site.run("harvest", "--from", "2026-01-01", "--until", "2026-10-15T12:00:00Z").code == DRAINED
    assert site.cursor() == "2026-10-04T12:00:00Z"
    assert site.run("harvest", "--from", "2026-10-03").code == DRAINED
    assert site.cursor() == "2026-10-14T12:00:00Z"


def test_bounds_of_an_operator_are_inclusive_days(site: Site, oai: FakeOai) -> None:
    days = sorted(book.datestamp.date() for book in BOOKS)
    first, last = days[30].isoformat(), days[60].isoformat()
    assert site.run("harvest", "--from", first, "--until", last).code == DRAINED
    expected = {i for i, (stamp, _) in stored_by(oai).items() if first <= stamp[:10] <= last}
    assert site.stamps().keys() == expected
    assert len(expected) >= 30
    assert (lists(oai)[0]["from"], lists(oai)[0]["until"]) == (f"{first}T00:00:00Z", f"{last}T23:59:59Z")


def test_other_bounds_replace_an_interrupted_harvest(site: Site, oai: FakeOai) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "25").code == MORE
    assert site.run("harvest", "--from", "2026-01-01", "--limit", "1000").code == DRAINED
    assert lists(oai)[-1].get("from", "").startswith("2026-01-01") or len(lists(oai)) > 2
    assert site.cursor() == "2026-10-04T12:00:00Z"
    before = len(oai.history)
    assert site.run("harvest").code == DRAINED
    assert "resumptionToken" not in lists(oai, since=before)[0]


@pytest.mark.parametrize("given", [("--from", "yesterday"), ("--until", "2026-13-01"), ("--from", "2026-1-1")])
def test_a_date_nobody_can_read_is_told_and_nothing_is_listed(site: Site, oai: FakeOai, given: tuple[str, str]) -> None:
    done = site.run("harvest", *given)
    assert done.code not in (0, 3, 4)
    assert given[1] in done.err
    assert "Traceback" not in done.err
    assert lists(oai) == []


def test_the_bound_on_records_ends_the_pass_after_the_page_that_reaches_it(site: Site, oai: FakeOai) -> None:
    done = site.run("harvest", "--from", "2000-01-01", "--limit", "26")
    assert done.code == MORE
    assert "bound reached: 26 items" in done.err
    assert len(site.stamps()) == 50
    assert len(lists(oai)) == 2


def test_a_long_window_is_halved_until_no_part_lists_too_much(site: Site, oai: FakeOai) -> None:
    site.set(window_items=30)
    assert site.run(*HARVEST_ALL).code == DRAINED
    assert site.stamps() == stored_by(oai)
    tokens = [params["resumptionToken"] for params in lists(oai) if "resumptionToken" in params]
    assert all(int(token.rpartition("/")[2]) <= 30 for token in tokens)
    windows = [params for params in lists(oai) if "from" in params]
    assert len(windows) > 5


def test_a_second_with_more_records_than_a_window_may_list_is_read_whole(tmp_path: Path, clock: Clock) -> None:
    """Bulk imports give thousands of records one datestamp: there is nothing left to halve."""
    books = [replace(book, datestamp=at("2025-05-05T05:05:05")) for book in BOOKS]
    with FakeOai(books, page_size=PAGE_SIZE, clock=clock) as oai:
        site = Site(tmp_path, oai, window_items=30)
        assert site.run(*HARVEST_ALL).code == DRAINED
        assert site.stamps() == stored_by(oai)
        assert len(oai.history) < 80


def test_a_deletion_becomes_a_tombstone_without_metadata_and_can_be_taken_back(
    site: Site, oai: FakeOai, clock: Clock
) -> None:
    book = next(book for book in BOOKS if not book.deleted)
    site.run(*HARVEST_ALL)
    original = {row["identifier"]: row for row in site.canonical()}[book.identifier]
    assert original["title"]
    clock.move(hours=1)
    oai.delete(book.identifier)
    site.run("harvest")
    tombstone = {row["identifier"]: row for row in site.canonical()}[book.identifier]
    assert tombstone["deleted"] == 1
    assert not any(tombstone[name] for name in ("title", "description", "publisher", "doi", "year", "licence", "pages"))
    assert {tombstone[name] for name in ("creators", "subjects", "links", "isbns")} == {"[]"}
    clock.move(hours=1)
    oai.put(replace(book, datestamp=clock.now))
    site.run("harvest")
    restored = {row["identifier"]: row for row in site.canonical()}[book.identifier]
    assert {**restored, "datestamp": ""} == {**original, "datestamp": ""}
    assert site.stamps() == stored_by(oai)


def test_a_record_keeps_its_number_and_its_first_sight_through_deletion_and_return(
    site: Site, oai: FakeOai, clock: Clock
) -> None:
    def own() -> list[tuple[int, str]]:
        with site.db() as db:
            return [tuple(row) for row in db.execute("SELECT id, first_seen FROM records ORDER BY identifier")]

    book = next(book for book in BOOKS if not book.deleted)
    site.run(*HARVEST_ALL)
    before = own()
    clock.move(hours=1)
    oai.delete(book.identifier)
    site.run("harvest")
    clock.move(hours=1)
    oai.put(replace(book, datestamp=clock.now))
    site.run("harvest")
    assert own() == before


def test_an_older_datestamp_never_overwrites_a_newer_one(site: Site, oai: FakeOai, clock: Clock) -> None:
    book = next(book for book in BOOKS if not book.deleted)
    site.run(*HARVEST_ALL)
    clock.move(hours=1)
    renamed = str(book.metadata_xml).replace("title>", "title>Newer ", 1)
    oai.put(replace(book, metadata_xml=renamed, datestamp=clock.now))
    site.run("harvest")
    newer = site.canonical()
    oai.put(replace(book, datestamp=book.datestamp))  # a replica that lags behind
    assert site.run("harvest", "--from", "2000-01-01", "--until", "2026-10-01").code == DRAINED
    assert site.canonical() == newer


def test_a_server_that_counts_in_days_is_asked_in_days(tmp_path: Path, clock: Clock) -> None:
    with FakeOai(BOOKS, page_size=PAGE_SIZE, clock=clock, granularity=DAYS) as oai:
        site = Site(tmp_path, oai, window_items=40)
        assert site.run(*HARVEST_ALL).code == DRAINED
        assert site.stamps() == stored_by(oai)
        assert all(len(params["from"]) == 10 for params in lists(oai) if "from" in params)
        assert site.cursor() == "2026-10-04T12:00:00Z"
        clock.move(days=1)
        oai.touch(BOOKS[3].identifier)
        assert site.run("harvest").code == DRAINED
        assert lists(oai)[-1]["from"] == "2026-10-03"
        assert site.stamps() == stored_by(oai)
        well_mannered(oai)


def test_a_set_with_a_blank_in_its_name_has_a_cursor_like_any_other(tmp_path: Path, clock: Clock) -> None:
    books = [replace(book, sets=("open books",)) if n % 2 else book for n, book in enumerate(BOOKS)]
    with FakeOai(books, page_size=25, clock=clock) as oai:
        site = Site(tmp_path, oai, set="open books")
        assert site.run("harvest", "--from", "2000-01-01", "--limit", "20").code == MORE
        assert site.run("harvest").code == DRAINED
        assert len(site.stamps()) == len(books) // 2
        assert site.cursor() == "2026-10-04T12:00:00Z"
        clock.move(days=30)
        assert site.run("harvest").code == DRAINED
        assert lists(oai)[-1]["from"] == "2026-10-04T12:00:00Z"
        assert site.cursor() == "2026-11-03T12:00:00Z"


def test_only_the_set_that_is_asked_for_is_harvested(tmp_path: Path, clock: Clock) -> None:
    with FakeOai(BOOKS, clock=clock) as oai:
        site = Site(tmp_path, oai, set="com_20.500.12854_7")
        assert site.run(*HARVEST_ALL).code == DRAINED
        chapters: list[Book] = [book for book in BOOKS if "com_20.500.12854_7" in book.sets]
        assert site.stamps().keys() == {book.identifier for book in chapters}
        assert chapters
