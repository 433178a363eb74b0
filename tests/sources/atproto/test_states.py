"""What becomes of a repository: accounts that are gone and come back, errors, what parks and what wakes one."""

from __future__ import annotations

import time

import pytest

from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tests.upstreams.pds_accounts import FakeAccount

DAYS = 86_400.0
NOBODY = "did:plc:" + "a" * 24


def told(archive: Archive, did: str) -> list[str]:
    """What the events say of an account, in order."""
    return [event["status"] or "active" for event in archive.events(did) if event["kind"] == "account"]


def waits(archive: Archive, did: str) -> float:
    """Seconds from its last try to its next."""
    row = archive.repo(did)
    return float(row["next_retry"] - row["tried"])


def patient(retry: float = 100, cap: float = 1000, attempts: int = 16) -> str:
    return f"retry_seconds = {retry}\nretry_cap_seconds = {cap}\nmax_attempts = {attempts}\n"


PLAIN = (
    "[atproto]\nplc_interval_seconds = 0\nhost_interval_seconds = 0\n"
    "list_interval_seconds = 0\nlist_again_seconds = 0\n"
)


# --- accounts that are gone --------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["deactivated", "takendown", "suspended", "tombstoned"])
def test_the_records_of_an_account_that_is_gone_are_kept_and_it_is_never_called_synced(
    status: str, archive: Archive, network: Network, account: FakeAccount
) -> None:
    did, truth = account.did, account.truth()
    archive.sync(did)
    network.set_status(did, status)
    archive.good("resync", did)
    assert archive.backfill().code == 0
    row = archive.repo(did)
    assert (row["status"], row["attempts"], row["error_kind"]) == (status, 0, "")
    assert did in row["last_error"]
    assert 6.3 * DAYS <= waits(archive, did) <= 7.7 * DAYS
    archive.judge({did: truth})
    # Looked at again in days, when it is still gone; neither an error nor an event comes of that.
    asked = len(network.requests())
    archive.backfill()
    assert len(network.requests()) == asked
    archive.pass_time()
    archive.drain()
    assert len(network.requests()) > asked
    assert archive.repo(did)["status"] == status
    assert told(archive, did) == ["active", status]
    network.set_status(did, "active")
    network.put(did, "app.bsky.feed.post/new", {})
    archive.pass_time()
    archive.drain()
    assert archive.repo(did)["status"] == "synced"
    archive.judge(network.truths())
    assert told(archive, did) == ["active", status, "active"]


def test_an_account_that_is_gone_before_it_was_ever_stored_is_so_too(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    network.set_status(account.did, "takendown")
    archive.sync(account.did)
    assert archive.statuses() == {"takendown": 1}
    assert told(archive, account.did) == ["takendown"]
    archive.judge({account.did: {}})


def test_an_account_is_asked_for_by_its_document_alone_when_that_is_tombstoned(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    network.set_status(account.did, "tombstoned")
    archive.sync(account.did)
    assert [seen.host for seen in network.requests()] == ["plc"]
    assert "127.0.0.1" in archive.repo(account.did)["last_error"]


def test_a_deleted_repository_is_emptied_with_delete_events_and_may_come_back_with_a_lower_rev(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    did = account.did
    network.put(did, "app.bsky.feed.post/later", {})
    archive.sync(did)
    rev = archive.repo(did)["rev"]
    network.set_status(did, "deleted")
    archive.good("resync", did)
    archive.drain()
    row = archive.repo(did)
    assert (row["status"], row["rev"], row["data"]) == ("deleted", "", "")
    archive.judge({did: {}})
    assert archive.rows("SELECT * FROM counts") == archive.rows("SELECT * FROM texts") == []
    assert sum(event["action"] == "delete" for event in archive.events(did)) == 6

    reborn = network.add(0, did=did, records={"app.bsky.feed.like/only": {}})
    assert reborn.rev < rev
    archive.pass_time()
    archive.drain()
    assert archive.repo(did)["rev"] == reborn.rev
    archive.judge(network.truths())
    assert told(archive, did) == ["active", "deleted", "active"]


def test_a_fault_while_a_gone_account_is_looked_at_is_met_once_and_not_in_a_loop(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.configure(patient(), PLAIN)
    archive.sync(account.did)
    network.set_status(account.did, "deactivated")
    archive.good("resync", account.did)
    archive.drain()
    network.fault("500", host=0, times=None)
    archive.pass_time()
    asked = len(network.requests(0))
    # Nothing waits for it: what could be said of it is said.
    assert archive.backfill().code == 0
    assert archive.backfill().code == 0
    assert len(network.requests(0)) == asked + 1
    assert 90 <= waits(archive, account.did) <= 110
    shown = archive.repo(account.did)
    assert (shown["status"], shown["attempts"]) == ("deactivated", 1)
    assert "500" in shown["last_error"]
    network.clear_faults()
    archive.pass_time()
    archive.drain()
    assert archive.repo(account.did)["status"] == "deactivated"
    assert told(archive, account.did) == ["active", "deactivated"]


def test_what_happens_to_an_account_is_told_once_for_each_change(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    did = account.did
    archive.sync(did)
    statuses = ["suspended", "deactivated", "active", "deleted", "takendown", "active", "tombstoned", "active"]
    for status in statuses:
        network.set_status(did, status)
        for _ in range(2):
            archive.good("resync", did)
            archive.drain()
    assert told(archive, did) == ["active", *statuses]
    archive.judge(network.truths())


# --- errors ------------------------------------------------------------------------------------------


def test_an_account_of_which_the_directory_knows_nothing_is_an_error(archive: Archive, network: Network) -> None:
    archive.good("add", NOBODY)
    assert archive.backfill().code == 3
    row = archive.repo(NOBODY)
    assert (row["status"], row["error_kind"], row["attempts"]) == ("error", "generic", 1)
    assert row["last_error"] == f"{network.plc_url.removeprefix('http://')} does not know {NOBODY}"
    assert archive.events() == []


def test_an_error_that_follows_another_waits_twice_as_long_up_to_the_cap(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.configure(patient(), PLAIN)
    network.fault("500", did=account.did, times=None)
    archive.good("add", account.did)
    for attempts, least in enumerate((100, 200, 400, 800, 1000, 1000), 1):
        archive.backfill()
        row = archive.repo(account.did)
        assert (row["status"], row["error_kind"], row["attempts"]) == ("error", "transport", attempts)
        assert "answered 500" in row["last_error"]
        assert 0.9 * least <= waits(archive, account.did) <= 1.1 * least
        archive.pass_time()
    network.clear_faults()
    archive.drain()
    row = archive.repo(account.did)
    assert (row["status"], row["attempts"], row["last_error"], row["next_retry"]) == ("synced", 0, "", None)


def parked(archive: Archive, network: Network, account: FakeAccount, attempts: int = 3) -> None:
    """Have a fault met until the account is parked; the fault stays."""
    hosts = [host.url for host in network.hosts]
    archive.configure(f"hosts = {hosts}\n{patient(attempts=attempts)}", PLAIN)
    archive.good("add", account.did)
    network.fault("missing-record", did=account.did, times=None)
    for _ in range(attempts):
        assert archive.statuses().keys() <= {"pending", "error"}
        archive.backfill()
        archive.pass_time()


def test_after_its_last_attempt_a_repository_is_parked_and_nobody_is_asked(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    parked(archive, network, account)
    row = archive.repo(account.did)
    assert (row["status"], row["attempts"], row["next_retry"]) == ("parked", 3, None)
    assert "is missing" in row["last_error"]
    asked = len(network.requests())
    assert archive.backfill().code == 0
    assert len(network.requests()) == asked


@pytest.mark.parametrize("wish", ["resync", "add", "discover"])
def test_a_parked_repository_wakes_when_somebody_asks_or_it_has_changed(
    wish: str, archive: Archive, network: Network, account: FakeAccount
) -> None:
    parked(archive, network, account)
    if wish == "discover":
        network.put(account.did, "app.bsky.feed.post/new", {})
    archive.good(wish, *([] if wish == "discover" else [account.did]))
    assert archive.statuses() == {"pending": 1}
    # The attempts begin anew.
    assert archive.backfill().code == 3
    assert archive.repo(account.did)["attempts"] == 1
    network.clear_faults()
    archive.pass_time()
    archive.drain()
    archive.judge(network.truths())


def test_a_list_that_says_nothing_new_wakes_nobody(archive: Archive, network: Network, account: FakeAccount) -> None:
    parked(archive, network, account)
    archive.good("discover")
    archive.good("add", account.did)
    for _ in range(3):
        archive.backfill()
        archive.pass_time()
    assert archive.statuses() == {"parked": 1}
    archive.good("discover")
    assert archive.statuses() == {"parked": 1}


# --- what has not changed ----------------------------------------------------------------------------


def test_a_repository_whose_rev_is_the_one_that_is_stored_is_not_downloaded(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    before = archive.events()
    asked = len(network.requests())
    archive.sync(account.did)
    assert [seen.method for seen in network.requests()[asked:]] == ["document", "getLatestCommit"]
    assert archive.events() == before
    assert archive.repo(account.did)["synced"] > time.time() - 60


def test_a_resync_of_an_unchanged_repository_downloads_it_and_makes_no_events(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    before = archive.events()
    asked = len(network.requests())
    archive.good("resync", account.did)
    archive.drain()
    assert [seen.method for seen in network.requests()[asked:]] == ["document", "getRepo"]
    assert archive.events() == before
    archive.judge(network.truths())


def test_a_server_that_cannot_tell_its_newest_rev_is_asked_for_the_repository(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    network.fault("MethodNotImplemented", method="getLatestCommit", did=account.did, times=None)
    network.put(account.did, "app.bsky.feed.post/new", {})
    archive.sync(account.did)
    archive.judge(network.truths())
    assert network.requests()[-1].method == "getRepo"


def test_a_commit_that_changes_no_record_moves_the_rev_and_makes_no_events(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    before, rev = archive.events(), account.rev
    account.commit_again()
    archive.sync(account.did)
    assert archive.repo(account.did)["rev"] == account.rev > rev
    assert archive.events() == before


def test_a_document_full_of_anything_costs_its_own_account_alone(
    archive: Archive, network: Network, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = network.add(0, records={})
    # JSON has halves of surrogate pairs, which no file and no database has, and a terminal obeys an escape.
    monkeypatch.setattr(account, "_method", lambda: ("odd \ud800 \x1b[2J", "\ud800"))
    archive.good("add", account.did, other.did)
    for _ in range(3):
        archive.pass_time()
        assert archive.backfill().code == 3
    shown = archive.repo(account.did)
    assert (shown["status"], shown["attempts"]) == ("error", 3)
    assert "unknown key type" in shown["last_error"]
    assert shown["last_error"].isprintable()
    assert archive.repo(other.did)["status"] == "synced"


def test_an_account_that_is_gone_stays_so_however_often_its_server_fails(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.configure(patient(attempts=2), PLAIN)
    network.set_status(account.did, "takendown")
    archive.sync(account.did)
    network.fault("500", host=0, times=None)
    for wait in (100, 7 * DAYS, 100):
        archive.pass_time()
        assert archive.backfill().code == 0
        assert archive.repo(account.did)["status"] == "takendown"
        assert 0.9 * wait <= waits(archive, account.did) <= 1.1 * wait
    assert told(archive, account.did) == ["takendown"]
