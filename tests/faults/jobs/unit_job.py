"""A job of the contract: units, and a grandchild that is handed the locks. Both talk to the oracle while they live.

`unit_job.py NAME STATE LOCK_DIR PORT UNITS PAUSE GRANDCHILD_SECONDS`
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from tickwork.contract.jobs import Job
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.units import Budget, Unit

name, state, lock_dir, port, units, pause, grandchild_seconds = sys.argv[1:]


def work(one_pass: Pass) -> Iterator[Unit]:
    """Units of nothing, in touch with the oracle."""
    run = uuid.uuid4().hex
    with socket.create_connection(("127.0.0.1", int(port))) as line:
        line.sendall(f"{run} job {os.getpid()}\n".encode())
        worker = None
        if float(grandchild_seconds):
            visit = [sys.executable, "-S", "-E", str(Path(__file__).with_name("visit.py"))]
            worker = subprocess.Popen([*visit, port, run, "grandchild", grandchild_seconds], pass_fds=one_pass.locks)
        for _ in range(int(units)):
            one_pass.stop.sleep(float(pause))
            yield Unit()
        if worker:
            worker.wait()


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
