"""What the tests of the wrapper share: its counters, its locks, and a job of the contract under it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import JOBS
from tests.kits.wrappers import ROOT, Wrapper

DAY = 86400


def tally(wrapper: Wrapper) -> list[int]:
    """Failures in a row, runs in a row without progress, time of the last progress."""
    return [int(word) for word in (wrapper.dir / ".tally").read_text().split()]


def skips(wrapper: Wrapper) -> list[int]:
    """Skips in all, skips in a row, whether the halt was announced."""
    return [int(word) for word in (wrapper.dir / ".skips").read_text().split()]


def set_tally(wrapper: Wrapper, failures: int, idle: int, progress: float) -> None:
    (wrapper.dir / ".tally").write_text(f"{failures:012d} {idle:012d} {int(progress):012d}\n")


def no_progress_since(wrapper: Wrapper, moment: float) -> None:
    """As if the last unit had been committed at `moment`."""
    failures, idle, _ = tally(wrapper)
    set_tally(wrapper, failures, idle, moment)
    marker = wrapper.dir / ".progress"
    marker.touch()
    os.utime(marker, (moment, moment))


def is_free(lock: Path) -> bool:
    return subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0


def waits(pid: int) -> bool:
    """Whether the wrapper `pid` has a child that waits for a lock (rather than trying it)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"flock\0-w\0") for child in children)
    except OSError:
        return False


def unit_job(home: Path, oracle: Oracle, *, units: int, grandchild: float = 0) -> Wrapper:
    """A wrapper around a job of the contract that takes 0.02 s a unit."""
    command = [sys.executable, str(JOBS / "unit_job.py"), "job", str(home / "state"), str(home / "lock")]
    command += [str(oracle.port), str(units), "0.02", str(grandchild)]
    return Wrapper(home, command, environment={"PYTHONPATH": str(ROOT / "jobs")}, scheduler="systemd")
