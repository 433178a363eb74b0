"""What is wished for while a repository is fetched: its removal wins, and no wish to have it fetched is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tests.upstreams.pds_accounts import FakeAccount

RECORDS = {f"app.bsky.feed.post/{n}": {"text": f"number {n}"} for n in range(5)}


@pytest.fixture
def archive(tmp_path: Path, network: Network) -> Archive:
    hosts = [host.url for host in network.hosts]
    return Archive(tmp_path, network, f"hosts = {hosts}\n")


Meanwhile = Callable[..., None]


@pytest.fixture
def meanwhile(archive: Archive, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meanwhile]:
    """Has commands run while the account's document or repository is asked for: no answer comes before their end."""
    done: list[tuple[str, ...]] = []

    def arrange(*commands: tuple[str, ...], at: str = "document_bytes") -> None:
        answer = getattr(account, at)

        def held() -> object:
            monkeypatch.setattr(account, at, answer)
            for command in commands:
                archive.good(*command)
            done.extend(commands)
            return answer()

        monkeypatch.setattr(account, at, held)

    yield arrange
    assert done, "nothing was asked for"


# --- removal -----------------------------------------------------------------------------------------


def test_a_removal_during_the_first_backfill_wins(archive: Archive, account: FakeAccount, meanwhile: Meanwhile) -> None:
    archive.good("add", account.did)
    meanwhile(("remove", account.did), at="revision")
    assert archive.backfill().code == 0
    assert archive.rows("SELECT * FROM repos") == []
    archive.judge({})
    assert [event for event in archive.events() if event["kind"] == "commit"] == []


@pytest.mark.parametrize("found", ["changed", "unchanged", "gone", "deleted", "faulty"])
def test_a_removal_during_a_later_backfill_wins_whatever_that_finds(
    found: str, archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    archive.sync(account.did)
    if found == "changed":
        network.put(account.did, "app.bsky.feed.post/new", {})
    elif found == "faulty":
        network.fault("500", did=account.did, method="getLatestCommit", times=None)
    elif found != "unchanged":
        network.set_status(account.did, {"gone": "suspended"}.get(found, found))
    archive.good("add", account.did)
    meanwhile(("remove", account.did))
    assert archive.backfill().code == 0
    assert archive.rows("SELECT * FROM repos") == []
    archive.judge({})
    assert [event["action"] for event in archive.events() if event["kind"] == "commit"] == ["create"] * 5 + [
        "delete"
    ] * 5
    assert archive.rows("SELECT * FROM texts") == archive.rows("SELECT * FROM counts") == []


def test_an_account_removed_and_added_again_during_its_backfill_is_fetched_once_more(
    archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    archive.sync(account.did)
    archive.good("resync", account.did)
    meanwhile(("remove", account.did), ("add", account.did))
    archive.backfill()
    archive.drain()
    archive.judge(network.truths())
    assert archive.repo(account.did)["status"] == "synced"
    assert len(network.requests(method="getRepo")) == 3


def test_what_is_removed_takes_only_its_own_blocks_along(archive: Archive, network: Network) -> None:
    first, second = (network.add(0, records=RECORDS).did for _ in range(2))
    archive.sync(first, second)
    archive.good("remove", first)
    archive.judge({second: network.truth(second)})
    assert archive.good("records", second).count("number") == 5


def test_what_was_removed_may_be_added_again(archive: Archive, network: Network, account: FakeAccount) -> None:
    archive.sync(account.did)
    archive.good("remove", account.did)
    archive.judge({account.did: {}})
    archive.sync(account.did)
    archive.judge(network.truths())


def test_of_several_to_remove_none_is_if_one_is_not_known(archive: Archive, account: FakeAccount) -> None:
    archive.sync(account.did)
    unknown = "did:plc:" + "b" * 24
    said = archive.run("remove", account.did, unknown)
    assert said.code == 2
    assert f"{unknown} is not known" in said.err
    archive.judge({account.did: account.truth()})


# --- wishes ------------------------------------------------------------------------------------------


def test_a_resync_during_the_backfill_has_the_repository_downloaded_once_more(
    archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    archive.good("add", account.did)
    meanwhile(("resync", account.did), at="revision")
    archive.backfill()
    archive.drain()
    assert len(network.requests(method="getRepo")) == 2
    assert archive.repo(account.did)["next_retry"] is None
    archive.judge(network.truths())


@pytest.mark.parametrize("found", ["unchanged", "changed"])
def test_an_account_added_during_its_backfill_is_looked_at_once_more(
    found: str, archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    archive.sync(account.did)
    if found == "changed":
        network.put(account.did, "app.bsky.feed.post/new", {})
    archive.good("add", account.did)
    asked = len(network.requests(method="getLatestCommit"))
    meanwhile(("add", account.did))
    archive.backfill()
    archive.drain()
    assert len(network.requests(method="getLatestCommit")) == asked + 2
    assert archive.repo(account.did)["next_retry"] is None
    archive.judge(network.truths())


def test_a_change_discovered_while_the_repository_is_stored_is_not_lost(
    archive: Archive, network: Network, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tickwork.sources.atproto import backfill

    archive.good("add", account.did)
    archive.good("discover")
    read = backfill.repository.read

    def meanwhile(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(backfill.repository, "read", read)
        network.put(account.did, "app.bsky.feed.post/new", {})
        archive.good("discover")
        return read(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(backfill.repository, "read", meanwhile)
    archive.backfill()
    archive.drain()
    archive.judge(network.truths())
    assert len(archive.stored(account.did)) == 6


@pytest.mark.parametrize("most", [1, 2])
def test_a_wish_during_the_last_attempt_keeps_the_repository_from_being_parked(
    most: int, archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    archive.configure(f"max_attempts = {most}\n")
    archive.sync(account.did)
    network.fault("missing-record", did=account.did, times=None)
    archive.good("resync", account.did)
    for _ in range(most - 1):
        archive.backfill()
        archive.pass_time()
    assert archive.repo(account.did)["attempts"] == most - 1
    meanwhile(("resync", account.did))
    archive.backfill()
    row = archive.repo(account.did)
    assert (row["status"], row["attempts"]) == ("error", 1)
    network.clear_faults()
    archive.pass_time()
    archive.drain()
    archive.judge(network.truths())


def test_a_wish_while_an_account_is_found_gone_has_it_looked_at_again_at_once(
    archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    archive.sync(account.did)
    network.set_status(account.did, "deactivated")
    archive.good("resync", account.did)
    meanwhile(("add", account.did))
    archive.backfill("--limit", "1")
    assert archive.repo(account.did)["status"] == "deactivated"
    network.set_status(account.did, "active")
    archive.backfill()
    archive.judge(network.truths())
    assert archive.repo(account.did)["status"] == "synced"


def test_a_repository_added_by_name_while_it_is_discarded_is_kept(
    archive: Archive, network: Network, account: FakeAccount, meanwhile: Meanwhile
) -> None:
    network.put(account.did, "com.example.note/a", {})
    config = archive.config.read_text() + '[atproto.filter]\nmode = "filter"\nsignals = ["com.example.*"]\n'
    archive.config.write_text(config)
    archive.good("discover")
    archive.drain()
    archive.judge(network.truths())
    network.delete(account.did, "com.example.note/a")
    archive.good("discover")
    meanwhile(("add", account.did))
    archive.backfill()
    archive.drain()
    archive.judge(network.truths())
    row = archive.repo(account.did)
    assert (row["status"], row["tracked"]) == ("synced", 1)
