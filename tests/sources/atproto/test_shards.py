"""Several machines split the servers: each server hears from one of them, and all of them together fetch everything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.hosts import owner
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.upstream.shards import Shard


@pytest.fixture
def network() -> Iterator[Network]:
    # The kernel chooses the ports, and with them the parts: until each of two has a server.
    while True:
        with Network(hosts=8, accounts_a_host=2, at_once=2, plc_at_once=4) as made:
            if names(made, 1, 2) and names(made, 2, 2):
                yield made
                assert made.violations() == []
                return


def names(network: Network, part: int, count: int) -> set[str]:
    """The servers of a part."""
    shard = Shard(part, count)
    return {host.name for host in network.hosts if shard.owns(host.url.removeprefix("http://"))}


def heard(network: Network, before: int = 0) -> set[str]:
    """The servers that were asked something."""
    return {seen.host for seen in network.requests()[before:] if seen.host.startswith("pds-")}


def test_a_pass_speaks_to_the_servers_of_its_part_alone_and_the_parts_together_have_everything(
    tmp_path: Path, network: Network
) -> None:
    parts, stored = 3, {}
    for part in range(1, parts + 1):
        archive = Archive(tmp_path / str(part), network, f'shard = "{part}/{parts}"\n')
        before = len(network.requests())
        archive.good("add", *network.accounts)
        archive.drain()
        own = names(network, part, parts)
        assert heard(network, before) == own
        truths = {did: truth if network.accounts[did].host in own else {} for did, truth in network.truths().items()}
        archive.judge(truths)
        stats = json.loads(archive.good("stats", "--json"))
        assert (stats["synced"], stats["elsewhere"]) == (2 * len(own), 16 - 2 * len(own))
        stored |= {did: truth for did, truth in truths.items() if truth}
    assert stored == {did: truth for did, truth in network.truths().items() if truth}
    asked = Counter(seen.did for seen in network.requests(method="getRepo"))
    assert asked == Counter(list(network.accounts))


def test_discovery_reads_the_lists_of_its_own_servers_and_all_relays(tmp_path: Path, network: Network) -> None:
    urls = [host.url for host in network.hosts]
    for part in (1, 2):
        archive = Archive(tmp_path / str(part), network, f'hosts = {urls}\nshard = "{part}/2"\n')
        before = len(network.requests())
        archive.good("discover")
        assert heard(network, before) == names(network, part, 2)
        archive.drain()
        assert heard(network, before) == names(network, part, 2)
    archive = Archive(tmp_path / "relay", network, f'relays = ["{network.relay_url}"]\nshard = "1/2"\n')
    archive.good("discover")
    assert len(archive.rows("SELECT * FROM repos")) == 16


def test_an_option_wins_over_the_settings(tmp_path: Path, network: Network) -> None:
    archive = Archive(tmp_path, network, 'shard = "1/2"\n')
    archive.good("add", *network.accounts)
    assert archive.backfill("--shard", "2/2").code == 0
    assert heard(network) == names(network, 2, 2)


def test_with_another_count_servers_that_change_hands_are_left_and_taken_over(tmp_path: Path, network: Network) -> None:
    archives = []
    for part in (1, 2):
        archive = Archive(tmp_path / str(part), network, f'shard = "{part}/2"\n')
        archive.good("add", *network.accounts)
        archive.drain()
        archives.append(archive)
    network.churn(40)
    third = Archive(tmp_path / "3", network)
    third.good("add", *network.accounts)
    for part, archive in enumerate([*archives, third], 1):
        archive.configure(f'shard = "{part}/3"\n')
        before = len(network.requests())
        archive.good("add", *network.accounts)
        archive.drain()
        assert heard(network, before) == names(network, part, 3)
        for did, truth in network.truths().items():
            if network.accounts[did].host in names(network, part, 3):
                assert archive.stored(did) == truth


def test_an_account_that_moves_to_a_server_of_another_part_is_left_to_that(tmp_path: Path, network: Network) -> None:
    here, there = (host.url.removeprefix("http://") for host in network.hosts[:2])
    count = next(count for count in range(2, 4096) if owner(here, count) != owner(there, count))
    did = next(did for did, account in network.accounts.items() if account.host == "pds-0")
    archive = Archive(tmp_path, network, f'shard = "{owner(here, count)}/{count}"\n')
    archive.sync(did)
    assert archive.repo(did)["status"] == "synced"
    network.move(did, 1)
    before = len(network.requests())
    archive.sync(did)
    assert heard(network, before) == set()
    assert json.loads(archive.good("stats", "--json"))["elsewhere"] == 1


@pytest.mark.parametrize("listed_by", ["relay", "server"])
def test_an_account_that_moves_to_a_server_of_another_part_is_fetched_there(
    listed_by: str, tmp_path: Path, network: Network
) -> None:
    moves = next(iter(network.accounts))
    theirs = 2 if network.accounts[moves].host in names(network, 1, 2) else 1
    to = next(iter(names(network, theirs, 2)))
    if listed_by == "relay":
        lists = f'relays = ["{network.relay_url}"]\nrecheck_days = 0\n'
    else:
        lists = f"hosts = {[host.url for host in network.hosts]}\n"
    archives = {}
    for part in (1, 2):
        archive = archives[part] = Archive(tmp_path / str(part), network, f'{lists}shard = "{part}/2"\n')
        archive.good("discover")
        archive.drain()
    network.move(moves, to)
    network.put(moves, "app.bsky.feed.post/new", {})
    for archive in archives.values():
        archive.good("discover")
        archive.drain()
    assert archives[theirs].stored(moves) == network.truth(moves)


def test_the_server_of_another_parts_account_is_not_looked_for_at_each_of_its_changes(
    tmp_path: Path, network: Network
) -> None:
    archive = Archive(tmp_path, network, f'relays = ["{network.relay_url}"]\nshard = "1/2"\n')
    archive.good("discover")
    archive.drain()
    asked = len(network.requests(method="document"))
    others = [did for did, account in network.accounts.items() if account.host in names(network, 2, 2)]
    for did in others:
        network.put(did, "app.bsky.feed.post/new", {})
    archive.good("discover")
    archive.drain()
    assert len(network.requests(method="document")) == asked
