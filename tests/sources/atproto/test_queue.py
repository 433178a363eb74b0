"""Side by side: bounds on requests at once, no server or account that holds up another, and a stop that is quick."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tests.upstreams.pds_history import most_at_once

HANGING = "read_seconds = 0.5\ntotal_seconds = 0.6\n"
PATIENT = "read_seconds = 300\ntotal_seconds = 300\nretry_seconds = 300\n"
PLAIN = (
    "[atproto]\nplc_interval_seconds = 0\nhost_interval_seconds = 0\n"
    "list_interval_seconds = 0\nlist_again_seconds = 0\n"
)


def synced(archive: Archive) -> int:
    return archive.statuses()["synced"]


def ready(path: Path, network: Network, config: str = "") -> Archive:
    """A deployment that knows all accounts of a network, which is ready to answer at once."""
    network.prepare()
    archive = Archive(path, network, config, PLAIN)
    archive.good("add", *network.accounts)
    return archive


def spooled(archive: Archive) -> list[str]:
    return [path.name for path in (archive.state / "spool" / "atproto").iterdir()]


# --- how many at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 3])
def test_never_more_requests_at_once_to_one_server_than_its_bound(bound: int, tmp_path: Path) -> None:
    with Network(hosts=2, accounts_a_host=8, at_once=bound, plc_at_once=4) as network:
        archive = ready(tmp_path, network, HANGING)
        network.fault("silence", host=0, times=3)
        archive.backfill("--per-host", str(bound), "--concurrency", "12")
        assert network.max_at_once(0) == bound
        assert network.violations() == []


def test_never_more_requests_at_once_than_the_pass_may_have(tmp_path: Path) -> None:
    with Network(hosts=6, accounts_a_host=2, at_once=2, plc_at_once=4) as network:
        archive = ready(tmp_path, network, HANGING)
        for number in range(6):
            network.fault("hang", host=number, times=2)
        archive.backfill("--concurrency", "3")
        assert most_at_once(network.requests()) == 3
        assert network.violations() == []


def test_never_more_documents_at_once_than_a_directory_is_asked_for(tmp_path: Path) -> None:
    with Network(hosts=1, accounts_a_host=9, at_once=2, plc_at_once=2) as network:
        archive = ready(tmp_path, network, HANGING + "plc_concurrency = 2\n")
        network.fault("silence", host="plc", times=2)
        archive.backfill("--concurrency", "12")
        assert network.max_at_once("plc") == 2
        assert network.violations() == []


def test_a_second_pass_beside_the_first_does_nothing(tmp_path: Path) -> None:
    with Network(hosts=1, accounts_a_host=1) as network:
        archive = ready(tmp_path, network, PATIENT)
        network.fault("hang", host=0, times=None)
        process = archive.start("backfill")
        until(lambda: network.requests(0))
        said = archive.run("backfill")
        assert said.code == 75
        assert "another run is active: atproto-backfill" in said.err
        process.terminate()
        assert process.wait() == 3
        assert len(network.requests(0)) == 1


# --- who holds up whom -------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["refused", "silence", "drip", "500"])
def test_a_dead_server_keeps_no_other_from_finishing_and_is_soon_left_alone(dead: str, tmp_path: Path) -> None:
    with Network(hosts=3, accounts_a_host=6, at_once=2, plc_at_once=4) as network:
        archive = ready(tmp_path, network, HANGING)
        if dead == "refused":
            network.refuse(0)
        else:
            network.fault(dead, host=0, times=None)
        assert archive.backfill().code == 3
        assert synced(archive) == 12
        # Three accounts in a row, each asked for twice, and one more that was under way.
        assert len(network.requests(0)) <= 8
        network.clear_faults()
        network.accept(0)
        archive.pass_time()
        archive.drain()
        archive.judge(network.truths())
        assert network.violations() == []


def test_a_small_server_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    with Network(hosts=2, accounts_a_host=0, at_once=4, plc_at_once=4) as network:
        many = [network.add(0, records={}).did for _ in range(25)]
        few = [network.add(1, records={}).did for _ in range(3)]
        archive = Archive(tmp_path, network)
        archive.good("add", *many, *few)
        assert archive.backfill("--per-host", "4", "--concurrency", "2").code == 0
        archive.good("resync", *many)
        archive.good("resync", *few)
        before = len(network.requests(method="getRepo"))
        assert archive.backfill("--per-host", "4", "--concurrency", "2").code == 0
        order = [seen.did for seen in network.requests(method="getRepo")][before:]
        assert mean(order.index(did) for did in few) < 10
        assert network.violations() == []


def test_a_poisonous_account_delays_nobody_of_its_server(tmp_path: Path) -> None:
    with Network(hosts=1, accounts_a_host=6, at_once=1, plc_at_once=4) as network:
        archive = ready(tmp_path, network)
        poisonous = next(iter(network.accounts))
        network.fault("missing-record", did=poisonous, times=None)
        for _ in range(3):
            archive.backfill("--per-host", "1")
            assert synced(archive) == 5
            archive.pass_time()
        asked = Counter(seen.did for seen in network.requests(method="getRepo"))
        assert asked == {**dict.fromkeys(network.accounts, 1), poisonous: 3}


# --- bounds and stops --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_a_pass_fetches_as_many_repositories_as_it_may_and_none_for_nothing(limit: int, tmp_path: Path) -> None:
    with Network(hosts=3, accounts_a_host=4, at_once=2, plc_at_once=4) as network:
        archive = ready(tmp_path, network)
        said = archive.backfill("--limit", str(limit))
        assert said.code == 3
        assert f"items={limit} " in said.err
        assert len(network.requests(method="getRepo")) == synced(archive) == limit
        for _ in range(12):
            archive.backfill("--limit", str(limit))
        archive.judge(network.truths())
        assert len(network.requests(method="getRepo")) == 12


def test_a_pass_ends_when_its_time_is_up_whatever_hangs(tmp_path: Path) -> None:
    with Network(hosts=2, accounts_a_host=3, at_once=2, plc_at_once=4) as network:
        archive = ready(tmp_path, network, PATIENT)
        network.fault("hang", host=0, times=None)
        began = time.monotonic()
        said = archive.backfill("--seconds", "2")
        assert time.monotonic() - began < PATIENCE_SECONDS
        assert said.code == 3
        assert "bound reached: 2 seconds" in said.err
        assert synced(archive) == 3
        network.clear_faults()
        archive.drain()
        archive.judge(network.truths())


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(hosts=4, accounts_a_host=3, at_once=2, plc_at_once=4) as made:
        yield made
        assert made.violations() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_a_pass_within_seconds_while_downloads_hang(
    number: signal.Signals, tmp_path: Path, network: Network
) -> None:
    archive = ready(tmp_path, network, PATIENT)
    for host, kind in enumerate(("hang", "drip", "silence")):
        network.fault(kind, host=host, method="getRepo", times=None)
    process = archive.start("backfill")
    until(lambda: len([seen for seen in network.requests(method="getRepo") if seen.ended is None]) == 6)
    until(lambda: synced(archive) == 3)
    stopped = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate()
    assert time.monotonic() - stopped < PATIENCE_SECONDS
    assert process.returncode == 3
    assert f"asked to stop by {number.name}" in said
    # What was under way counts against nobody, and is fetched by the next pass, which first clears away its remains.
    assert archive.statuses() == {"synced": 3, "pending": 9}
    assert {row["attempts"] for row in archive.rows("SELECT attempts FROM repos")} == {0}
    network.clear_faults()
    archive.drain()
    assert spooled(archive) == []
    archive.judge(network.truths())


def test_a_pass_may_be_stopped_after_any_repository(tmp_path: Path, network: Network) -> None:
    archive = ready(tmp_path, network)
    for stored in range(1, 13):
        archive.backfill("--limit", "1", "--concurrency", "1")
        assert synced(archive) == stored
        archive.judge()
    assert archive.backfill().code == 0
    archive.judge(network.truths())
