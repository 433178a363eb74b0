"""Two passes of one lock never run at once, whoever is killed; an independent oracle is the judge."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.jobs import proofs
from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import visitor
from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.wrappers import Wrapper


def test_two_wrappers_of_one_lock_fired_at_once_never_overlap(tmp_path: Path) -> None:
    proofs.two_wrappers_never_overlap(tmp_path)


def test_the_oracle_sees_an_overlap_where_there_is_one(tmp_path: Path) -> None:
    with Oracle() as oracle:
        pair = [Wrapper(tmp_path, visitor(oracle, 0.5), name=name, locks=[name]) for name in ("one", "two")]
        for tick in [wrapper.start() for wrapper in pair]:
            tick.communicate(timeout=PATIENCE_SECONDS)
        oracle.wait_until_alone()
        assert len(oracle.overlaps()) == 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_random_fires_with_kills_never_overlap_and_lose_no_ledger_row(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    began = time.monotonic()
    fires = 5000 if os.environ.get("TICKWORK_SOAK") else 200
    counts = proofs.random_fires(tmp_path, fires, seed)
    print(f"seed {seed}, {time.monotonic() - began:.0f} s: {counts}")
    assert counts["fires"] == fires
    for what in ("passes", "skips", "wrapper killed", "job killed", "grandchild killed", "closed as killed"):
        assert counts[what] >= 3, f"the storm proves little: {counts}"
