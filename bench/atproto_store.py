"""What a backfill costs a repository, beside a thousand stored ones and beside a million; and its memory.

    python -m bench.atproto_store [--stored N] [--repositories N] [--rounds N] [--keep FOLDER]

Each round backfills so many new repositories from a fake network, into a copy of a store that SQL has filled, once
for the small and once for the large one: wall-clock seconds and processor time of the pass, and the most memory that it
had. Aims: with a million stored 1.5 times what it is with a thousand, at most, and below 300 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import describe
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.settings import FilterSettings
from tickwork.sources.atproto.store import AtprotoStore

SMALL = 1000
RECORDS = 3
AT_ONCE = 5000
FILTER = Filter(FilterSettings())
_LETTERS = str.maketrans("0189", "wxyz")


def main() -> None:
    """Fill two stores, and backfill into each in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--repositories", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the filled stores, to be used again")
    arguments = parser.parse_args()
    describe(1, ())
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        filled = {size: _filled(folder / f"{size}.db", size) for size in (SMALL, arguments.stored)}
        taken: dict[int, list[tuple[float, float, float]]] = {size: [] for size in filled}
        for number in range(arguments.rounds):
            with Network(20, arguments.repositories // 20, seed=number, at_once=2, plc_at_once=4) as network:
                network.prepare()
                for size, database in filled.items():
                    archive = Archive(Path(scratch) / f"{number}-{size}", network)
                    (archive.state / "db").mkdir(parents=True)
                    shutil.copy(database, archive.state / "db" / "atproto.db")
                    os.sync()  # the copy's own writing is not to be waited for in the pass
                    archive.good("add", *network.accounts)
                    taken[size].append(_measured(archive, arguments.repositories))
                    shutil.rmtree(archive.state)
    for size, rounds in taken.items():
        wall, cpu, memory = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{size:9,} stored: {1000 * wall:6.1f} ms, {1000 * cpu:6.1f} ms of CPU a repository; {memory:.0f} MB")
    for name, place in (("wall", 0), ("CPU", 1)):
        pairs = zip(taken[arguments.stored], taken[SMALL], strict=True)
        ratio = statistics.median(large[place] / small[place] for large, small in pairs)
        print(f"{name}: {ratio:.2f} times (aim: 1.5 at most)")


def _measured(archive: Archive, repositories: int) -> tuple[float, float, float]:
    """Seconds and CPU seconds a repository, and the most memory in MB, of a pass in a process of its own."""
    program = (
        "import json, resource, sys\nfrom tickwork.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    )
    command = [sys.executable, "-c", program, *archive.command("backfill"), "--limit", "1000000"]
    before, begun = _cpu(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, cpu = time.monotonic() - begun, _cpu() - before
    assert done.returncode == 0, done.stderr
    return wall / repositories, cpu / repositories, json.loads(done.stdout) / 1024


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _filled(path: Path, size: int) -> Path:
    """A store with so many synced repositories, each with a few records of a few hundred bytes."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtprotoStore.open(path) as store:
        for start in range(0, size, AT_ONCE):
            with store.transaction():
                _fill(store.connection, start, min(start + AT_ONCE, size))
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB", flush=True)
    return path


def _fill(connection: sqlite3.Connection, start: int, end: int) -> None:
    now = time.time()
    repos, rows, blocks, events = [], [], [], []
    for number in range(start, end):
        did = f"did:plc:{hashlib.sha256(b'%d' % number).hexdigest()[:24].translate(_LETTERS)}"
        host = f"host{number % 1000}.example"
        repos.append((did, host, f"https://{host}", now, now))
        for record in range(RECORDS):
            digest = hashlib.sha256(b"%d %d" % (number, record)).hexdigest()
            cid = f"bafyrei{digest[:52]}"
            rows.append((did, "app.bsky.feed.like", f"3k{record:011d}", cid))
            blocks.append((cid, bytes.fromhex(digest) * 8))
            events.append((did, "app.bsky.feed.like", f"3k{record:011d}", cid, now))
    many = connection.executemany
    many(
        "INSERT INTO repos (did, status, rev, host, pds, account, filter, added, synced)"
        f" VALUES (?, 'synced', '3l6oveex3ii2l', ?, ?, 'active', '{FILTER.fingerprint}', ?, ?)",
        repos,
    )
    many("INSERT INTO records VALUES (?, ?, ?, ?)", rows)
    many("INSERT INTO counts VALUES (?, 'app.bsky.feed.like', ?)", [(repo[0], RECORDS) for repo in repos])
    many("INSERT INTO blocks VALUES (?, ?, 2)", blocks)
    many(
        "INSERT INTO events (kind, did, rev, collection, rkey, action, cid, at)"
        " VALUES ('commit', ?, '3l6oveex3ii2l', ?, ?, 'create', ?, ?)",
        events,
    )


if __name__ == "__main__":
    main()
