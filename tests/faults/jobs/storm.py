"""Two wrappers of one lock under random fire; see `proofs.random_fires`."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tests.faults.jobs.oracle import Oracle
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.wrappers import ROOT, Wrapper

UNIT_JOB = Path(__file__).with_name("unit_job.py")


class Storm:
    """The fire (`rage`), the clean passes after it (`calm`) and the judgement (`judge`)."""

    def __init__(self, home: Path, oracle: Oracle, chance: random.Random, library: Path, grandchild: float) -> None:
        self._oracle, self._chance = oracle, chance
        self.counts: dict[str, int] = Counter()
        self._ticks: list[subprocess.Popen[bytes]] = []
        self._pair = []
        for name in ("one", "two"):
            command = [sys.executable, str(UNIT_JOB), name, str(home / "state"), str(home / "lock"), str(oracle.port)]
            wrapper = Wrapper(
                home,
                [*command, "4", "0.03", str(grandchild)],
                name=name,
                failures=10**6,  # kills are failures, and this storm is not about halting
                kill_after=2,
                library=library,
                environment={"PYTHONPATH": str(ROOT / "jobs")},
            )
            self._pair.append(wrapper)
        self.ledger = home / "state" / "db" / "ledger.db"

    def rage(self, fires: int) -> None:
        """Start ticks at random moments and kill something every now and then."""
        for _ in range(fires):
            wrapper = self._chance.choice(self._pair)
            tick = subprocess.Popen([wrapper.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._ticks.append(tick)
            self.counts["fires"] += 1
            time.sleep(self._chance.uniform(0.0, 0.4))
            if self._chance.random() < 0.6:
                self._kill()

    def calm(self) -> None:
        """Let everything end, then make one clean pass of each wrapper."""
        for tick in self._ticks:
            tick.wait(timeout=PATIENCE_SECONDS)
        self._oracle.wait_until_alone()
        for wrapper in self._pair:
            # The lock of a killed wrapper's orphans is free once the last of them has ended.
            until(partial(self._drains, wrapper), "it never drains")
        self._oracle.wait_until_alone()

    def judge(self) -> None:
        """The oracle saw no two passes at once, and every pass it saw has one closed row."""
        passes = Counter(seen.pid for seen in self._oracle.seen() if seen.role == "job")
        with contextlib.closing(sqlite3.connect(self.ledger)) as ledger:
            rows = ledger.execute("SELECT pid, outcome, ended FROM passes").fetchall()
        self.counts["passes"] = passes.total()
        self.counts["skips"] = sum(wrapper.outcomes().count("busy") for wrapper in self._pair)
        self.counts["closed as killed"] = sum(outcome == "killed" for _, outcome, _ in rows)
        assert not self._oracle.overlaps()
        assert not [row for row in rows if row[2] is None], "a row is still open"
        assert Counter(pid for pid, _, _ in rows) == passes

    @staticmethod
    def _drains(wrapper: Wrapper) -> bool:
        wrapper.tick()
        return wrapper.outcomes()[-1] == "drained"

    def _kill(self) -> None:
        """Kill one of those that live, each role with the same chance."""
        running = [tick for tick in self._ticks if tick.poll() is None]
        # The oldest wrapper holds the lock; the others are about to be skipped.
        alive = {"wrapper": [tick.pid for tick in running[:1]]}
        alive |= {role: [seen.pid for seen in self._oracle.alive(role)] for role in ("job", "grandchild")}
        roles = [role for role in alive if alive[role]]
        if not roles:
            return
        role = self._chance.choice(roles)
        with contextlib.suppress(ProcessLookupError):
            os.kill(alive[role][0], signal.SIGKILL)
            self.counts[f"{role} killed"] += 1
