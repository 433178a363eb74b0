"""The events: what each says, that their numbers have no gap, what pruning leaves, and a store of events alone."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from typing import Any

import pytest

from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tests.upstreams.pds_accounts import FakeAccount
from tickwork.sources.atproto import events as feed
from tickwork.sources.atproto.store import AtprotoStore

RECORDS = {f"app.bsky.feed.post/{n}": {"text": f"number {n}"} for n in range(4)}
EPHEMERAL = "ephemeral = true\n"


@pytest.fixture
def account(network: Network) -> FakeAccount:
    return network.add(0, records=RECORDS)


def shown(archive: Archive, since: int = 0, *more: str) -> list[dict[str, Any]]:
    """What `events` writes."""
    return [json.loads(line) for line in archive.good("events", "--since", str(since), *more).splitlines()]


def age(archive: Archive, hours: float, until: int = 1_000_000) -> None:
    """Make events older, those with numbers up to `until`."""
    archive.write("UPDATE events SET at = at - ? WHERE seq <= ?", hours * 3600, until)


def kinds(events: list[dict[str, Any]]) -> Counter[str]:
    return Counter(event["action"] or event["kind"] for event in events)


# --- what they say -----------------------------------------------------------------------------------


def test_a_backfill_creates_and_changes_and_deletes(archive: Archive, network: Network, account: FakeAccount) -> None:
    did = account.did
    archive.sync(did)
    first, truth = account.rev, account.truth()
    created, told = shown(archive)[:-1], shown(archive)[-1]
    for event, path in zip(created, sorted(RECORDS), strict=True):
        assert (event["kind"], event["did"], event["rev"], event["live"]) == ("commit", did, first, False)
        assert (f"{event['collection']}/{event['rkey']}", event["action"]) == (path, "create")
        assert event["cid"] == truth[path]
        assert event["active"] is event["status"] is None
    assert (told["kind"], told["active"], told["status"], told["cid"]) == ("account", True, None, None)

    network.edit(did, {"app.bsky.feed.post/1": {}, "app.bsky.feed.post/1a": {}}, ["app.bsky.feed.post/2"])
    archive.sync(did)
    later = shown(archive, since=told["seq"])
    truth = account.truth()
    assert [(event["rkey"], event["action"], event["cid"], event["rev"]) for event in later] == [
        ("1", "update", truth["app.bsky.feed.post/1"], account.rev),
        ("1a", "create", truth["app.bsky.feed.post/1a"], account.rev),
        ("2", "delete", None, account.rev),
    ]
    network.set_status(did, "suspended")
    archive.sync(did)
    (gone,) = shown(archive, since=later[-1]["seq"])
    assert (gone["kind"], gone["active"], gone["status"]) == ("account", False, "suspended")
    assert [event["seq"] for event in shown(archive)] == list(range(1, 10))


def test_records_come_along_if_that_is_asked_for(archive: Archive, network: Network, account: FakeAccount) -> None:
    archive.sync(account.did)
    network.delete(account.did, "app.bsky.feed.post/0")
    archive.sync(account.did)
    events = shown(archive, 0, "--with-records")
    assert [event["record"] for event in events[:4]] == list(RECORDS.values())
    assert all("record" not in event for event in events[4:])


def test_a_number_is_given_once_and_none_is_left_out_whatever_fails_in_between(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    other = network.add(0, records=RECORDS).did
    archive.sync(account.did)
    network.put(account.did, "app.bsky.feed.post/new", {})
    network.fault("missing-record", did=account.did, times=2)
    archive.sync(account.did, other)
    archive.judge(network.truths())
    assert [event["seq"] for event in shown(archive)] == list(range(1, 12))


# --- pruning -----------------------------------------------------------------------------------------


def test_old_events_are_pruned_with_the_blocks_to_which_nothing_else_refers(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    network.edit(account.did, {"app.bsky.feed.post/1": {}}, ["app.bsky.feed.post/2"])
    archive.sync(account.did)
    assert len(archive.rows("SELECT * FROM blocks")) == 5
    age(archive, 167)
    archive.backfill()
    assert len(archive.events()) == 7
    age(archive, 2)
    archive.backfill()
    assert archive.events() == []
    archive.judge(network.truths(), replayed=False)
    assert len(archive.rows("SELECT * FROM blocks")) == 3


def test_numbers_go_on_after_pruning_and_who_follows_is_told_of_what_he_missed(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    age(archive, 200, until=3)
    archive.backfill()
    assert [event["seq"] for event in shown(archive)] == [4, 5]
    assert [event["seq"] for event in shown(archive, since=3)] == [4, 5]
    said = archive.run("events", "--since", "1")
    assert (said.code, said.out) == (2, "")
    assert "the events from 2 to 3 were pruned; read the records again, then continue after 3" in said.err
    age(archive, 200)
    archive.backfill()
    said = archive.run("events", "--since", "4")
    assert "the events from 5 to 5 were pruned; read the records again, then continue after 5" in said.err
    assert shown(archive) == shown(archive, since=5) == []
    network.put(account.did, "app.bsky.feed.post/new", {})
    archive.sync(account.did)
    assert [event["seq"] for event in shown(archive, since=5)] == [6]


def test_one_young_event_keeps_those_after_it_so_that_no_gap_opens(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    # The clock was set back in between: what came later looks older.
    archive.write("UPDATE events SET at = at - 1000000 WHERE seq != 2")
    archive.backfill()
    assert [event["seq"] for event in archive.events()] == [2, 3, 4, 5]
    archive.judge(network.truths(), replayed=False)


def test_a_number_that_was_never_given_is_refused(archive: Archive, account: FakeAccount) -> None:
    archive.sync(account.did)
    said = archive.run("events", "--since", "99")
    assert said.code == 2
    assert "there is no event 99: the last is 5. Is this another database?" in said.err


def test_pruning_in_many_steps_prunes_as_much(
    archive: Archive, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tickwork.sources.atproto import events

    monkeypatch.setattr(events, "_AT_ONCE", 2)
    archive.sync(account.did)
    age(archive, 200, until=4)
    archive.backfill()
    assert [event["seq"] for event in archive.events()] == [5]


# --- events alone ------------------------------------------------------------------------------------


def test_an_ephemeral_store_has_events_and_their_blocks_and_no_records(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.configure(EPHEMERAL)
    archive.sync(account.did)
    for table in ("records", "counts", "texts"):
        assert archive.rows(f"SELECT * FROM {table}") == []
    assert kinds(archive.events()) == {"create": 4, "account": 1}
    assert {row["refs"] for row in archive.rows("SELECT refs FROM blocks")} == {1}
    archive.judge({account.did: {}}, replayed=False)
    assert shown(archive, 0, "--with-records")[0]["record"] == {"text": "number 0"}


def test_in_an_ephemeral_store_every_change_tells_the_whole_repository_and_no_change_nothing(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.configure(EPHEMERAL)
    archive.sync(account.did)
    archive.sync(account.did)
    assert kinds(archive.events()) == {"create": 4, "account": 1}
    network.edit(account.did, {"app.bsky.feed.post/1": {}}, ["app.bsky.feed.post/2"])
    archive.sync(account.did)
    assert kinds(archive.events()[5:]) == {"create": 3}
    network.set_status(account.did, "deleted")
    archive.sync(account.did)
    assert [event["status"] for event in archive.events()[8:]] == ["deleted"]
    archive.judge({}, replayed=False)


def test_events_of_an_ephemeral_store_are_pruned_after_an_hour_and_all_blocks_with_them(
    archive: Archive, account: FakeAccount
) -> None:
    archive.configure(EPHEMERAL + "event_retention_hours = 1000\n")
    archive.sync(account.did)
    age(archive, 0.9)
    archive.backfill()
    assert len(archive.events()) == 5
    age(archive, 0.2)
    archive.backfill()
    assert archive.events() == archive.rows("SELECT * FROM blocks") == []
    assert archive.repo(account.did)["status"] == "synced"


@pytest.mark.parametrize(("first", "then"), [([], ["--ephemeral"]), (["--ephemeral"], [])])
def test_events_alone_and_records_are_not_mixed_in_one_database(
    first: list[str], then: list[str], archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.good("add", account.did)
    assert archive.backfill(*first).code == 0
    asked, before = len(network.requests()), archive.events()
    archive.good("resync", account.did)
    said = archive.run("backfill", *then)
    assert said.code == 1
    assert "use another state folder for" in said.err
    assert (len(network.requests()), archive.events()) == (asked, before)


# --- following ---------------------------------------------------------------------------------------


def test_who_follows_sees_what_comes(archive: Archive, network: Network, account: FakeAccount) -> None:
    archive.sync(account.did)
    process = archive.start("events", "--since", "2", "--follow")
    lines: list[dict[str, Any]] = []
    enough = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))
            if len(lines) in (3, 4):
                enough.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert enough.wait(PATIENCE_SECONDS)
        enough.clear()
        network.put(account.did, "app.bsky.feed.post/new", {})
        archive.sync(account.did)
        assert enough.wait(PATIENCE_SECONDS)
    finally:
        process.terminate()
        process.wait()
        reader.join()
    assert [line["seq"] for line in lines] == [3, 4, 5, 6]
    assert lines == shown(archive, since=2)


def test_what_comes_between_two_looks_is_not_taken_for_pruned(
    archive: Archive, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.sync(account.did)
    last = archive.events()[-1]["seq"]
    newest = feed.newest

    def meanwhile(connection: sqlite3.Connection) -> int:
        archive.write("INSERT INTO events (kind, did, active, at) VALUES ('account', ?, 1, 0)", account.did)
        return newest(connection)

    monkeypatch.setattr(feed, "newest", meanwhile)
    with AtprotoStore.open(archive.state / "db/atproto.db", read_only=True) as store:
        assert [row["seq"] for row in feed.since(store.connection, last, 10)] == [last + 1]


def test_a_record_that_is_no_dag_cbor_is_shown_as_its_bytes_and_hides_none_after_it(
    archive: Archive, account: FakeAccount
) -> None:
    archive.sync(account.did)
    cid = archive.stored(account.did)["app.bsky.feed.post/1"]
    archive.write("UPDATE blocks SET data = ? WHERE cid = ?", b"\xfb\x40\x35\x80\0\0\0\0\0", cid)  # a float
    records = [json.loads(line) for line in archive.good("records", account.did).splitlines()]
    (odd,) = (record for record in records if record["cid"] == cid)
    assert len(records) == len(RECORDS)
    assert odd["value"] == {"$bytes": "+0A1gAAAAAAA"}
    assert "not canonical DAG-CBOR" in odd["invalid"]
    (event,) = (event for event in shown(archive, 0, "--with-records") if event["cid"] == cid)
    assert event["record"] == odd["value"]
    assert "not canonical DAG-CBOR" in event["invalid"]
