"""CPU per record of a whole harvest, ours parsing only and with storing, beside other OAI-PMH libraries.

    pip install -c constraints.txt -e '.[bench]'
    python -m bench.oai [RECORDS [ROUNDS]]

All of them read the same list from the same server in turn, each in a process of its own, importing not counted. Aim:
ours with storing at least as good as the best of the others without.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.oai_peer import PEERS


def main() -> None:
    """Run all peers in turn and print a table."""
    records = int(sys.argv[1]) if sys.argv[1:] else 10_000
    rounds = int(sys.argv[2]) if sys.argv[2:] else 5
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.upstreams.oai", "--books", str(records), "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL,
        )
        try:
            while not ready.exists():
                time.sleep(0.05)
            taken = _rounds(ready.read_text().strip(), Path(folder), rounds)
        finally:
            server.terminate()
            server.wait()
    best = min(statistics.median(cpu) for name, cpu in taken.items() if not name.startswith("tickwork"))
    for name, cpu in taken.items():
        middle = statistics.median(cpu)
        print(
            f"{name:20} {1e6 * middle / records:7.1f} µs CPU a record  ({1e6 * min(cpu) / records:.1f} to "
            f"{1e6 * max(cpu) / records:.1f})  {middle / best:.2f} x the best of the others"
        )


def _rounds(url: str, folder: Path, rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    for number in range(rounds + 1):
        for name in PEERS:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                done = subprocess.run(
                    [sys.executable, "-m", "bench.oai_peer", name, url, own],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            result = json.loads(done.stdout.splitlines()[-1])
            if number:
                taken[name].append(result["cpu"])
            else:
                print(f"{name}: {result['records']} records", file=sys.stderr)
    return taken


if __name__ == "__main__":
    main()
