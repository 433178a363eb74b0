"""Killed at any moment, started again: the end is the same, and nothing that was stored is asked for again."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HARVEST_ALL, Clock, DoabNursery, Row, Site, active_in, stored_by, well_mannered
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILLS = 1000 if os.environ.get("TICKWORK_SOAK") else 50
SEED = int(os.environ.get("TICKWORK_SEED", "20261005"))
BOOKS = generated_books(150, seed=11)
ACTIVE = active_in(BOOKS)


@pytest.fixture
def oai() -> Iterator[FakeOai]:
    with FakeOai(BOOKS, page_size=4, clock=Clock()) as server:
        yield server


@pytest.fixture
def nursery() -> Iterator[DoabNursery]:
    with DoabNursery() as running:
        yield running


class Campaigns:
    """Passes of one command killed at random until so many kills have struck; each campaign begins with nothing.

    A moment is a number of requests the server has seen, spread over a quarter of a whole run, and some milliseconds
    more: so it falls anywhere within a unit, however busy the machine is. Every fifth kill comes with the start.
    """

    def __init__(self, home: Path, oai: FakeOai, nursery: DoabNursery, command: tuple[str, ...]) -> None:
        self.home, self.oai, self.nursery, self.command = home, oai, nursery, command
        self.random = random.Random(SEED)
        self.kills = self.campaigns = 0
        self.progress: list[float] = []
        self.stored: list[tuple[int, set[str]]] = []
        site = Site(home / "truth", oai)
        nursery.start(site.command(*command))
        assert nursery.ended() == DRAINED
        self.truth: list[Row] = site.canonical()
        self.requests = len(oai.history)

    def run(self, kills: int) -> None:
        while self.kills < kills:
            self.campaigns += 1
            self.one(Site(self.home / str(self.campaigns), self.oai), kills)
        spread = [sum(begin <= share < begin + 0.25 for share in self.progress) for begin in (0, 0.25, 0.5)]
        print(
            f"\n{self.command[0]}: seed {SEED}, {self.kills} kills in {self.campaigns} campaigns of {self.requests} "
            f"requests; kills by quarter of the records stored: {spread} and {self.kills - sum(spread)}"
        )

    def one(self, site: Site, kills: int) -> None:
        since = len(self.oai.history)
        self.stored = []
        while True:
            pid = self.nursery.start(site.command(*self.command))
            if self.kills < kills:
                self.wait(pid)
                with suppress(ProcessLookupError):  # it may have ended by itself
                    os.kill(pid, signal.SIGKILL)
            code = self.nursery.ended()
            if code == DRAINED:
                break
            assert code == -signal.SIGKILL
            self.kills += 1
            self.after_kill(site)
        self.at_end(site, since)

    def wait(self, pid: int) -> None:
        """Wait for the moment of the next kill, or for the end of the pass if that comes first."""
        at_start = self.random.random() < 0.2
        target = len(self.oai.history) + (0 if at_start else self.random.randint(1, max(2, self.requests // 4)))
        with suppress(ProcessLookupError):
            while len(self.oai.recorder.history) < target:
                os.kill(pid, 0)
                time.sleep(0.0005)
        time.sleep(self.random.uniform(0, 0.15 if at_start else 0.02))

    def after_kill(self, site: Site) -> None:
        """Note how much is stored; a database that is still being made has nothing in it."""
        with suppress(sqlite3.OperationalError):
            self.stored.append((len(self.oai.history), set(site.stamps())))
        self.progress.append(len(self.stored[-1][1]) / len(self.truth) if self.stored else 0)

    def at_end(self, site: Site, since: int) -> None:
        assert site.canonical() == self.truth
        with site.db() as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        with site.db("ledger") as db:
            outcomes = [row[0] for row in db.execute("SELECT outcome FROM passes ORDER BY id")]
        # A pass killed as it ended has said so already; only the very last, killed after .done, may stay open.
        assert set(outcomes[:-1]) <= {"killed", "drained"}
        assert outcomes[-1] == "drained" or (outcomes[-1] is None and site.marker(f"doab-{self.command[0]}", ".done"))
        assert not self.oai.history.overlaps(since)


class Backfills(Campaigns):
    """Also looks, at each kill, at what is stored: none of it may be asked for afterwards."""

    def at_end(self, site: Site, since: int) -> None:
        super().at_end(site, since)
        assert set(site.worklist().values()) == {"ok"}
        for seq, stored in self.stored:
            later = {seen.params["identifier"] for seen in self.oai.history[seq:] if seen.verb == "GetRecord"}
            assert not stored & later


def test_a_harvest_killed_fifty_times_ends_as_if_nothing_had_happened(
    oai: FakeOai, nursery: DoabNursery, tmp_path: Path
) -> None:
    oai.fault("slow", seconds=0.02, count=None)
    campaigns = Campaigns(tmp_path, oai, nursery, HARVEST_ALL)
    campaigns.run(KILLS)
    assert Site(tmp_path / "truth", oai).stamps() == stored_by(oai)
    well_mannered(oai)


def test_a_backfill_killed_fifty_times_ends_as_if_nothing_had_happened_and_asks_for_nothing_twice(
    oai: FakeOai, nursery: DoabNursery, tmp_path: Path
) -> None:
    oai.fault("slow", seconds=0.002, count=None)
    ids = tmp_path / "ids"
    ids.write_text("".join(f"{identifier}\n" for identifier in ACTIVE))
    campaigns = Backfills(tmp_path, oai, nursery, ("backfill", "--ids-file", str(ids)))
    campaigns.run(KILLS)
    assert Site(tmp_path / "truth", oai).live() == set(ACTIVE)
    well_mannered(oai)


def test_a_backfill_with_its_own_discovery_killed_at_random_ends_the_same(
    oai: FakeOai, nursery: DoabNursery, tmp_path: Path
) -> None:
    oai.fault("slow", seconds=0.002, count=None)
    Backfills(tmp_path, oai, nursery, ("backfill",)).run(12)
    well_mannered(oai)
