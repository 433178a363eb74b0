"""A job of the contract that meets a disk which fills up, and then halts: `halting_job.py NAME STATE LOCK_DIR FILL`.

FILL is `bytes`, `inodes` or empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.faults.jobs.full import fill
from tickwork.contract.jobs import Job
from tickwork.contract.outcomes import Halt, OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.units import Budget, Unit

name, state, lock_dir, how = sys.argv[1:]


def work(one_pass: Pass) -> Iterator[Unit]:
    """One unit; then the disk is full, and only a human can help."""
    yield Unit()
    if how:
        fill(Path(state), how)
    raise Halt("34 of the last 100 are gone")


def main() -> int:
    """One pass; an expected fault is one line, as under the console command."""
    paths = Paths.under(Path(state), lock_dir=Path(lock_dir))
    try:
        return run_pass(Job(name=name, locks=("shared",)), work, Budget(), paths).exit_code
    except OperatorError as error:
        print(f"tickwork: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
