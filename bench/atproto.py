"""Records per second of reading a repository (parse, verify, walk), ours beside atmst and the reference in Node.

    pip install -c constraints.txt -e '.[atproto,dev]' atmst
    (cd FOLDER && npm install @atproto/repo)
    python -m bench.atproto [--node FOLDER] [--records N] [--rounds N] [CAR ...]

All of them read the same files in turn, each in a process of its own that has read the file once before; processor
time of all threads, the best of three times. Peers that are not installed are left out. Only ours checks layers, order
across the tree, prefixes and the encoding; only ours and `verifyRepoCar` verify the signature. `stored` also writes
records, blocks, events, counts and texts into a new database, in one transaction. Aims: 1.5 times atmst, 10 times
Node's walk, and stored twice that.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from bench.machine import at_least, describe
from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import commit
from tickwork.sources.atproto.repo import identifiers as syntax
from tickwork.sources.atproto.repo.car import Car

AIMS = {
    ("tickwork", "atmst"): 1.5,
    ("tickwork", "node-walk"): 10.0,
    ("tickwork", "node-verify"): 10.0,
    ("stored", "node-walk"): 2.0,
}
"""How many times as fast the first is to be as the second."""
NODE_PEER = Path(__file__).parent / "atproto_peer.cjs"


def main() -> None:
    """Run all peers in turn on each file and print a table."""
    arguments = _arguments()
    describe(1, ("cryptography", *(("atmst",) if find_spec("atmst") else ())))
    peers = _peers(arguments.node)
    with tempfile.TemporaryDirectory() as folder:
        generated = Path(folder) / "generated.car"
        generated.write_bytes(_generated(arguments.records))
        for path in [generated, *arguments.cars]:
            _compare(path, peers, arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", type=Path, help="folder where npm installed @atproto/repo")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("cars", nargs="*", type=Path)
    return parser.parse_args()


def _peers(node: Path | None) -> dict[str, list[str]]:
    python = [sys.executable, "-m", "bench.atproto_peer"]
    peers = {name: [*python, name] for name in ("tickwork", "stored")}
    if find_spec("atmst"):
        peers["atmst"] = [*python, "atmst"]
    else:
        print("atmst is left out: it is not installed")
    if node and (node / "node_modules" / "@atproto" / "repo").exists():
        peers |= {f"node-{what}": ["node", str(NODE_PEER), str(node.resolve()), what] for what in ("walk", "verify")}
    else:
        print("Node is left out: --node names no folder with @atproto/repo")
    return peers


def _compare(path: Path, peers: dict[str, list[str]], rounds: int) -> None:
    with path.open("rb") as file, Car(file) as car:
        block = car.get(car.roots[0])
        assert block
        did = commit.parse(block, car.roots[0]).did
    key = f"did:key:{kit.Account().multikey()}" if did == kit.DID else ""
    rates: dict[str, list[float]] = {name: [] for name in peers}
    counts = set()
    for _ in range(rounds):
        for name, command in peers.items():
            done = subprocess.run([*command, str(path), did, key], capture_output=True, text=True, env=os.environ)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            result = json.loads(done.stdout.splitlines()[-1])
            rates[name].append(result["records"] / result["cpu"])
            counts.add(result["records"])
    assert len(counts) == 1, f"the peers disagree about the number of records: {counts}"
    print(f"{path.name}: {counts.pop()} records, {path.stat().st_size / 1e6:.1f} MB, median of {rounds} rounds")
    for name, rate in rates.items():
        print(f"  {name:12} {statistics.median(rate):10,.0f} records/s of CPU ({min(rate):,.0f} to {max(rate):,.0f})")
    for (ours, theirs), aim in AIMS.items():
        if theirs in rates:
            ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))
            print(f"  {ours} / {theirs}: {at_least(ratio, aim)}", flush=True)


def _generated(records: int) -> bytes:
    """A repository of posts, likes and follows, a minute apart."""
    collections = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow")
    begun = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    contents = {}
    for number in range(records):
        collection, time = collections[number % 3], begun + dt.timedelta(minutes=number // 3)
        contents[f"{collection}/{syntax.tid(time, number % 1024)}"] = {
            "$type": collection,
            "createdAt": time.isoformat(),
            "subject": {"uri": f"at://{kit.DID}/app.bsky.feed.post/{number}", "cid": str(kit.cid(b"%d" % number))},
            "text": f"post {number} " + "lorem ipsum " * (number % 9),
        }
    return kit.Account().repository(contents)


if __name__ == "__main__":
    main()
