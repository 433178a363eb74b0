"""Discovery: every list is gone through to its end, whatever interrupts it, and only what it says counts."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kits.deployment import Said
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.sources.atproto import discover as discovering
from tickwork.sources.atproto.queue import Queue
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore
from tickwork.upstream.shards import Shard

RECORDS = {"app.bsky.feed.post/a": {"text": "a"}}


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(hosts=2, accounts_a_host=5, records=3, plc_mirrors=1, at_once=2, plc_at_once=4, page_size=3) as made:
        yield made
        assert made.violations() == []


@pytest.fixture
def archive(tmp_path: Path, network: Network) -> Archive:
    return Archive(tmp_path, network, f'relays = ["{network.relay_url}"]\n')


def hosts(network: Network, more: str = "") -> str:
    return f"hosts = {[host.url for host in network.hosts]}\n{more}"


def discover(archive: Archive, *arguments: str) -> Said:
    said = archive.run("discover", *arguments)
    assert said.code in (0, 3), said
    return said


def found(archive: Archive) -> set[str]:
    """The accounts that are known."""
    with contextlib.suppress(Exception):
        return {row["did"] for row in archive.rows("SELECT did FROM repos")}
    return set()


def due(archive: Archive) -> set[str]:
    return {row["did"] for row in archive.rows("SELECT did FROM repos WHERE next_retry <= ?", time.time())}


def told(archive: Archive, did: str) -> list[str]:
    return [event["status"] or "active" for event in archive.events(did) if event["kind"] == "account"]


def pages(network: Network, method: str = "listRepos") -> list[str]:
    """The requests for pages of a list, in order."""
    return [seen.path for seen in network.requests(method=method)]


# --- going through a list ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["relay", "hosts", "--relay", "--host"])
def test_every_account_of_a_list_is_found_and_fetched(way: str, archive: Archive, network: Network) -> None:
    options: list[str] = []
    if way == "hosts":
        archive.configure(hosts(network))
    elif way != "relay":
        archive.configure("")
        urls = [network.relay_url] if way == "--relay" else [host.url for host in network.hosts]
        options = [word for url in urls for word in (way, url)]
    assert discover(archive, *options).code == 0
    assert found(archive) == due(archive) == set(network.accounts)
    # What a server lists of itself need not be looked for; that it is there is seen from the document all the same.
    homes = {row["host"] for row in archive.rows("SELECT host FROM repos")}
    assert homes == ({host.url.removeprefix("http://") for host in network.hosts} if "host" in way else {""})
    archive.drain()
    archive.judge(network.truths())
    assert all("limit=1000" in page for page in pages(network))


def test_a_bounded_pass_goes_on_where_the_last_one_ended(archive: Archive, network: Network) -> None:
    codes = [discover(archive, "--limit", "3").code for _ in range(4)]
    assert codes == [3, 3, 3, 0]
    assert found(archive) == set(network.accounts)
    assert len(set(pages(network))) == len(pages(network)) == 4
    (row,) = archive.rows("SELECT * FROM lists")
    assert (row["origin"], row["collection"]) == (network.relay_url, "")
    assert (row["pages"], row["repositories"], row["cursor"]) == (4, 10, "")


def test_a_pass_that_was_killed_costs_one_page(archive: Archive, network: Network) -> None:
    discover(archive, "--limit", "3")
    network.fault("silence", method="listRepos")
    process = archive.start("discover")
    until(lambda: len(pages(network)) == 2)
    process.kill()
    process.communicate()
    assert len(found(archive)) == 3
    assert discover(archive).code == 0
    assert pages(network)[1] == pages(network)[2]
    assert len(pages(network)) == 5
    assert found(archive) == set(network.accounts)


def test_a_stop_ends_discovery_within_seconds_while_a_list_hangs(archive: Archive, network: Network) -> None:
    network.fault("hang", method="listRepos", times=None)
    process = archive.start("discover")
    until(lambda: pages(network))
    stopped = time.monotonic()
    process.terminate()
    assert process.wait() == 3
    assert time.monotonic() - stopped < PATIENCE_SECONDS


def test_a_list_that_was_gone_through_is_begun_anew_after_a_while_only(archive: Archive, network: Network) -> None:
    again = f'relays = ["{network.relay_url}"]\n'
    archive.configure(again, "[atproto]\nlist_interval_seconds = 0\nlist_again_seconds = 3600\n")
    discover(archive)
    asked = len(pages(network))
    assert discover(archive).code == 0
    assert len(pages(network)) == asked
    archive.write("UPDATE lists SET completed = completed - 3599")
    archive.write("UPDATE lists SET completed = completed - 10")
    new = network.add(1).did
    discover(archive)
    assert len(pages(network)) == 2 * asked
    assert new in found(archive)


def test_an_old_cursor_is_dropped_and_the_list_begun_anew(archive: Archive, network: Network) -> None:
    discover(archive, "--limit", "3")
    network.fault("InvalidRequest", method="listRepos")
    assert discover(archive).code == 3
    assert found(archive) < set(network.accounts)
    assert discover(archive).code == 0
    assert "cursor" not in pages(network)[2]
    assert found(archive) == set(network.accounts)


# --- how much waits ----------------------------------------------------------------------------------


def test_discovery_pauses_from_the_high_water_mark_to_the_low_one(archive: Archive, network: Network) -> None:
    archive.configure(f'relays = ["{network.relay_url}"]\nhigh_water = 5\nlow_water = 2\n')
    said = discover(archive)
    assert said.code == 3
    assert "discovery is paused: 6 repositories are waiting to be fetched; it resumes at 2" in said.err
    asked = len(pages(network))
    for left in (5, 4, 3):
        archive.backfill("--limit", "1")
        said = discover(archive)
        assert f"{left} repositories are waiting" in said.err
    assert len(pages(network)) == asked
    archive.backfill("--limit", "1")
    assert discover(archive).code == 0
    assert found(archive) == set(network.accounts)
    archive.drain()
    archive.judge(network.truths())


# --- what has changed --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["relay", "hosts"])
def test_the_store_stays_fresh_by_discovery_alone(way: str, archive: Archive, network: Network) -> None:
    if way == "hosts":
        archive.configure(hosts(network))
    discover(archive)
    archive.drain()
    for _ in range(3):
        changed = set(network.churn(3))
        before = {did: archive.events(did) for did in network.accounts}
        discover(archive)
        assert due(archive) == changed
        archive.drain()
        archive.judge(network.truths())
        assert {did for did in network.accounts if archive.events(did) != before[did]} <= changed
    asked = len(network.requests(method="document"))
    discover(archive)
    archive.drain()
    assert len(network.requests(method="document")) == asked


def test_a_status_that_changed_is_an_event_once_and_has_the_server_asked(archive: Archive, network: Network) -> None:
    discover(archive)
    archive.drain()
    did = next(iter(network.accounts))
    network.set_status(did, "takendown")
    for _ in range(2):
        discover(archive)
        assert told(archive, did) == ["active", "takendown"]
        archive.drain()
    assert archive.repo(did)["status"] == "takendown"
    network.set_status(did, "active")
    network.put(did, "app.bsky.feed.post/new", {})
    discover(archive)
    assert due(archive) == {did}
    archive.drain()
    assert told(archive, did) == ["active", "takendown", "active"]
    archive.judge(network.truths())


def test_nothing_is_concluded_from_what_a_list_does_not_have(archive: Archive, network: Network) -> None:
    archive.configure(hosts(network))
    discover(archive)
    archive.drain()
    before, stored = archive.events(), network.truths()
    gone, moved = list(network.accounts)[:2]
    network.set_status(gone, "deleted")  # no list has it from now on
    network.move(moved, 1, forgotten=True)
    network.hosts[1].seats.remove(moved)
    discover(archive)
    archive.drain()
    assert archive.events() == before
    assert archive.statuses() == {"synced": 10}
    archive.judge(stored)


def test_what_a_server_says_of_others_accounts_deletes_nothing(archive: Archive, network: Network) -> None:
    archive.configure(hosts(network))
    discover(archive)
    archive.drain()
    network.fault("list-foreign", host=1, times=None)
    for _ in range(2):
        discover(archive)
        archive.drain()
    archive.judge(network.truths())
    assert archive.statuses() == {"synced": 10}
    assert all(told(archive, did) == ["active"] for did in network.accounts)


def test_a_rev_of_the_future_in_a_list_does_not_hide_what_comes_after_it(archive: Archive, network: Network) -> None:
    discover(archive)
    archive.drain()
    did = next(iter(network.accounts))
    archive.write("UPDATE repos SET listed_rev = '3zzzzzzzzzzzz' WHERE did = ?", did)
    network.put(did, "app.bsky.feed.post/new", {})
    discover(archive)
    archive.drain()
    archive.judge(network.truths())


# --- lists by collection -----------------------------------------------------------------------------


def test_with_a_filter_that_names_collections_only_their_accounts_are_found(archive: Archive, network: Network) -> None:
    post = network.add(0, records=RECORDS).did
    like = network.add(1, records={"app.bsky.feed.like/a": {}}).did
    wanted = {did for did, truth in network.truths().items() if any("feed.post/" in path for path in truth)}
    filtered = '[atproto.filter]\nmode = "filter"\ncollections = ["app.bsky.feed.post"]\n'
    archive.configure(f'relays = ["{network.relay_url}"]\n{filtered}')
    discover(archive)
    assert found(archive) == wanted
    assert post in wanted
    assert like not in wanted
    assert all("collection=app.bsky.feed.post" in page for page in pages(network, "listReposByCollection"))
    # The list of all repositories tells which of the known ones have changed.
    archive.drain()
    network.put(post, "app.bsky.feed.post/new", {})
    network.put(like, "app.bsky.feed.like/new", {})
    discover(archive)
    assert due(archive) == {post}
    assert found(archive) == wanted
    archive.drain()
    assert len(archive.stored(post)) == 2


# --- odd lists ---------------------------------------------------------------------------------------


def test_odd_entries_cost_themselves_alone(archive: Archive, network: Network) -> None:
    network.fault("list-junk", method="listRepos", times=None)
    said = discover(archive)
    assert said.code == 0
    assert f"{network.relay_url}: skipped entries that are not accounts: 7" in said.err
    assert found(archive) == set(network.accounts)


@pytest.mark.parametrize("kind", ["list-twice", "list-empty-page"])
def test_what_is_odd_and_harmless_changes_nothing(kind: str, archive: Archive, network: Network) -> None:
    network.fault(kind, method="listRepos", times=None if kind == "list-twice" else 2)
    assert discover(archive).code == 0
    assert found(archive) == set(network.accounts)


FAULTS: dict[str, dict[str, Any]] = {
    "list-loop": {},
    "list-odd-cursor": {},
    "html": {},
    "empty": {},
    "500": {},
    "404": {},
    "reset": {},
    "truncate": {},
    "redirect-private": {},
    "redirect-loop": {},
    "429-reset": {"after": 60},
    "flood": {},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_list_that_cannot_be_read_keeps_no_other_from_being_read(
    kind: str, archive: Archive, network: Network
) -> None:
    archive.configure(hosts(network), "[atproto]\nlist_interval_seconds = 0\nlist_again_seconds = 0\n")
    network.fault(kind, host=0, method="listRepos", times=None, **FAULTS[kind])
    said = discover(archive)
    assert said.code == 3
    assert f"the list of {network.hosts[0].url} cannot be read: " in said.err
    assert "1 of 2 lists could not be read" in said.err
    others = {did for did, account in network.accounts.items() if account.host == "pds-1"}
    assert others <= found(archive)
    network.clear_faults()
    if kind != "429-reset":
        assert discover(archive).code == 0
        assert found(archive) == set(network.accounts)


def test_a_list_without_end_is_not_gone_round_for_ever(archive: Archive, network: Network) -> None:
    network.fault("list-loop", method="listRepos", times=None)
    assert discover(archive).code == 3
    assert len(pages(network)) == 2
    network.clear_faults()
    assert discover(archive).code == 0
    assert found(archive) == set(network.accounts)


# --- lists beside each other -------------------------------------------------------------------------


def test_lists_take_turns_page_by_page(archive: Archive, network: Network) -> None:
    archive.configure(f'relays = ["{network.relay_url}"]\n{hosts(network)}')
    assert discover(archive).code == 0
    asked = [seen.host for seen in network.requests(method="listRepos")]
    assert asked[:6] == ["relay", "pds-0", "pds-1"] * 2


def test_a_list_whose_cursor_fits_no_address_costs_no_other_anything(
    archive: Archive, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.configure(f'relays = ["{network.relay_url}"]\n{hosts(network)}')
    monkeypatch.setattr(discovering, "MAX_CURSOR", 0)  # as short as it may be: those of the fake are
    said = discover(archive)
    assert said.code == 3
    assert re.search(r"sent a cursor of \d+ characters", said.err)
    monkeypatch.undo()
    assert discover(archive).code == 0
    assert found(archive) == set(network.accounts)


def test_lists_that_disagree_are_heard_once(archive: Archive, network: Network) -> None:
    discover(archive)
    archive.drain()
    did = next(iter(network.accounts))
    home = network.accounts[did].host
    one, other = (discovering.List(f"https://{name}.example", "", True, "") for name in ("one", "other"))

    def says(where: discovering.List, status: str) -> None:
        entry = {"did": did, "rev": archive.repo(did)["rev"], "active": status == "active", "status": status}
        settings = AtprotoSettings()
        with AtprotoStore.open(archive.state / "db/atproto.db") as store, store.transaction():
            queue = Queue(store, settings, Shard())
            discovering._note(store, queue, where, [msgspec.Raw(msgspec.json.encode(entry))], frozenset())
        archive.drain()

    asked = [len(network.requests(home))]
    for _ in range(4):
        says(one, "active")
        says(other, "takendown")  # it lags behind, or has it wrong
        asked.append(len(network.requests(home)))
    assert told(archive, did) == ["active", "takendown", "active"]
    assert asked[1] == asked[0] + 1
    assert asked[-1] == asked[1]
    # What becomes true is heard from the other one, and that the lagging one has come right is no news.
    network.set_status(did, "takendown")
    says(one, "takendown")
    says(other, "takendown")
    assert told(archive, did) == ["active", "takendown", "active", "takendown"]
    network.set_status(did, "active")
    says(other, "active")
    assert told(archive, did)[-1] == "active"


def test_of_an_account_that_nothing_was_told_of_no_end_is_told(archive: Archive, network: Network) -> None:
    did = next(iter(network.accounts))
    archive.sync(did)
    for _ in range(2):
        archive.good("remove", did)
        discover(archive)
    assert told(archive, did) == ["active", "removed"]
