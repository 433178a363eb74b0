"""Many repositories on many servers, faults of all kinds, and kill -9 every few seconds: at the end all is as it is."""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path

import pytest

from tests.kits.patience import until
from tests.kits.repos import Archive
from tests.upstreams.pds import Network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SOAK = bool(os.environ.get("TICKWORK_SOAK"))
HOSTS = 50
ACCOUNTS = 2000 if SOAK else 400
KILLS = 20 if SOAK else 8
AT_ONCE = 2
GONE = ("deactivated", "takendown", "suspended", "deleted", "tombstoned")
# Hanging servers are given up soon, and nobody is given up for good.
CONFIG = f"max_attempts = 100\ntotal_seconds = 4\nmax_bytes = 4000000\nhost_concurrency = {AT_ONCE}\n"


def run_to_the_end(archive: Archive, network: Network, dice: random.Random, kills: int, work: int) -> None:
    """Pass after pass until nothing is left of `work` repositories; the first are killed after some requests.

    All the passes that are killed leave at least half of the work.
    """
    for number in itertools.count():
        backfill = archive.start("backfill", "--concurrency", "16", "--limit", "100000")
        if number < kills:
            enough = len(network.requests()) + dice.randint(1, work // kills // 2)
            until(lambda enough=enough: len(network.requests()) >= enough)
            backfill.kill()
            network.client_died()
            backfill.communicate()
            continue
        said, _ = backfill.communicate()
        assert backfill.returncode in (0, 3), said
        if backfill.returncode == 0:
            return
        time.sleep(0.2)  # what is on hold is so for a second or two


def test_nothing_is_lost_or_doubled_whatever_fails_and_whoever_kills(tmp_path: Path) -> None:
    dice = random.Random(6)
    chances = {"fault_rate": 0.1, "plc_fault_rate": 0.01}
    with Network(HOSTS, ACCOUNTS // HOSTS, seed=6, records=6, at_once=AT_ONCE, plc_at_once=4, **chances) as network:
        gone = {did: dice.choice(GONE) for did in dice.sample(sorted(network.accounts), ACCOUNTS // 20)}
        for did, status in gone.items():
            network.set_status(did, status)
        archive = Archive(tmp_path, network, CONFIG)
        archive.good("add", *network.accounts)
        run_to_the_end(archive, network, dice, KILLS, ACCOUNTS)
        said = {row["did"]: row["status"] for row in archive.rows("SELECT did, status FROM repos")}
        assert said == {did: gone.get(did, "synced") for did in network.accounts}
        truths = {did: {} if did in gone else truth for did, truth in network.truths().items()}
        archive.judge(truths)

        # And again, after edits, with what discovery finds alone.
        edited = set(network.churn(ACCOUNTS // 4))
        network.set_status(healed := next(did for did, status in gone.items() if status == "suspended"), "active")
        until(lambda: archive.run("discover", "--relay", network.relay_url).code == 0)
        run_to_the_end(archive, network, dice, KILLS // 4, len(edited))
        assert archive.repo(healed)["status"] == "synced"
        for did in edited | {healed}:
            truths[did] = network.truth(did)
        archive.judge(truths)
        assert network.violations() == []


def test_a_small_server_beside_a_large_one_is_through_at_once(tmp_path: Path) -> None:
    large, small = (1000, 10) if SOAK else (300, 3)
    with Network(2, 0, seed=1, records=1, at_once=AT_ONCE, plc_at_once=4) as network:
        for _ in range(large):
            network.add(0)
        few = [network.add(1).did for _ in range(small)]
        archive = Archive(tmp_path, network, CONFIG)
        # The large one comes first, so that a queue of one line would have the others wait for all of it.
        hosts = [option for host in network.hosts for option in ("--host", host.url)]
        assert archive.run("discover", *hosts).code == 0
        assert archive.run("backfill", "--concurrency", "4", "--limit", "100000").code == 0
        order = [row["did"] for row in archive.rows("SELECT did FROM events WHERE kind = 'account' ORDER BY seq")]
        assert len(order) == large + small
        last = max(order.index(did) for did in few)
        assert last < small * 4 + len(order) * 0.05, f"the small server was through after {last} of {len(order)}"


def test_one_that_only_hangs_delays_nobody_else(tmp_path: Path) -> None:
    with Network(4, 20, seed=2, records=1, at_once=AT_ONCE, plc_at_once=4) as network:
        network.fault("hang", host=0, method="getRepo", times=None)
        archive = Archive(tmp_path, network, CONFIG)
        archive.good("discover", *[option for host in network.hosts for option in ("--host", host.url)])
        archive.backfill("--concurrency", "8")
        statuses = archive.rows("SELECT host, status, count(*) AS repos FROM repos GROUP BY 1, 2")
        done = {row["host"]: row["repos"] for row in statuses if row["status"] == "synced"}
        assert sorted(done.values()) == [20, 20, 20]
        tried = [row["tried"] for row in archive.rows("SELECT tried FROM repos WHERE status = 'synced'")]
        hung = [row["tried"] for row in archive.rows("SELECT tried FROM repos WHERE status = 'error'")]
        assert hung, "the hanging server was not even tried"
        assert max(tried) < min(hung), "they waited for the one that hangs"
