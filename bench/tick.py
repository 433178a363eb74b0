"""What a skipped tick costs beside the bare flock it replaces, and what the console command costs beside its library.

    python -m bench.tick [ROUNDS [PYTHON]]

PYTHON is the interpreter of an environment with tickwork and nothing else, as it is deployed: typer imports pydantic
where it finds it, and the development tools bring it.

Aims: a skipped tick 2 times `flock -n FILE true`, never above 3; `tickwork --version` and `status` 2.5 times
`python -c "import typer"`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import in_turn, line, ratio
from tests.kits.wrappers import Wrapper


def skipped(rounds: int, home: Path) -> None:
    """A tick that finds its lock busy, its job halted or done; the flock beside it on a free and on a busy file."""
    busy = Wrapper(home, ["true"], name="busy")
    halted = Wrapper(home, ["true"], name="halted")
    done = Wrapper(home, ["true"], name="done", drains=True)
    for wrapper in (busy, halted, done):
        wrapper.tick()
    (halted.dir / ".halted").touch()
    halted.tick()
    lock, free = home / "lock" / "shared", home / "free"
    free.touch()
    holder = subprocess.Popen(["flock", lock, "cat"], stdin=subprocess.PIPE)
    try:
        taken = in_turn(
            {
                "flock -n FILE true, FILE free": ["flock", "-n", str(free), "true"],
                "flock -n FILE true, FILE busy": ["flock", "-n", str(lock), "true"],
                "tick, lock busy": [str(busy.path)],
                "tick, halted": [str(halted.path)],
                "tick, done": [str(done.path)],
            },
            rounds,
        )
    finally:
        holder.communicate()
    free_file, busy_file = taken["flock -n FILE true, FILE free"], taken["flock -n FILE true, FILE busy"]
    for name, seconds in taken.items():
        note = f"{ratio(seconds, free_file):.2f} x free, {ratio(seconds, busy_file):.2f} x busy"
        print(line(name, seconds, note))


def console(rounds: int, home: Path, python: str) -> None:
    """Starting the console command."""
    tickwork = [python, "-m", "tickwork", "--state", str(home)]
    taken = in_turn(
        {
            'python -c "import typer"': [python, "-c", "import typer"],
            "tickwork --version": [python, "-m", "tickwork", "--version"],
            "tickwork status": [*tickwork, "status"],
        },
        rounds,
    )
    typer = taken['python -c "import typer"']
    for name, seconds in taken.items():
        print(line(name, seconds, f"{ratio(seconds, typer):.2f} x import typer"))


def main() -> None:
    """Print both tables."""
    rounds = int(sys.argv[1]) if sys.argv[1:] else 100
    with tempfile.TemporaryDirectory() as folder:
        skipped(rounds, Path(folder))
        console(max(5, rounds // 5), Path(folder) / "state", sys.argv[2] if sys.argv[2:] else sys.executable)


if __name__ == "__main__":
    main()
