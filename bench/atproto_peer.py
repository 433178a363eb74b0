"""One repository read by one library, in a process of its own; prints records and the CPU seconds of the best of three.

python -m bench.atproto_peer NAME CAR DID KEY
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import tempfile
import time
from pathlib import Path


def tickwork(path: Path, did: str, key: str) -> int:
    """Everything verified, the signature where a key is given."""
    from tickwork.sources.atproto.repo import repository
    from tickwork.sources.atproto.repo.keys import PublicKey

    public = PublicKey.from_did_key(key) if key else None
    with path.open("rb") as file, repository.read(file, did, public, now=dt.datetime.now(dt.UTC)) as repo:
        return sum(1 for _ in repo.records())


def stored(path: Path, did: str, key: str) -> int:
    """That, and all of it in a database."""
    from tickwork.contract.stop import Stop
    from tickwork.sources.atproto import apply_diff as records
    from tickwork.sources.atproto.filter import Filter
    from tickwork.sources.atproto.repo import repository
    from tickwork.sources.atproto.repo.keys import PublicKey
    from tickwork.sources.atproto.settings import FilterSettings
    from tickwork.sources.atproto.store import AtprotoStore

    public = PublicKey.from_did_key(key) if key else None
    everything = Filter(FilterSettings())
    with (
        tempfile.TemporaryDirectory() as folder,
        AtprotoStore.open(Path(folder) / "atproto.db") as store,
        path.open("rb") as file,
        repository.read(file, did, public, now=dt.datetime.now(dt.UTC)) as repo,
        store.transaction(),
    ):
        changes = records.keep(store, did, repo, everything, explicit=False, ephemeral=False, stop=Stop())
        return changes["create"]


def atmst(path: Path, did: str, key: str) -> int:
    """Its own reader of CAR files, which checks the hash of each block it gives, and its own walk."""
    from atmst.blockstore.car_file import ReadOnlyCARBlockStore
    from atmst.mst.node_store import NodeStore
    from atmst.mst.node_walker import NodeWalker
    from cbrrr import decode_dag_cbor

    with path.open("rb") as file:
        store = ReadOnlyCARBlockStore(file)
        commit = decode_dag_cbor(store.get_block(bytes(store.car_root)))
        count = 0
        for _, value in NodeWalker(NodeStore(store), commit["data"]).iter_kv():
            store.get_block(bytes(value))
            count += 1
        return count


def main() -> None:
    """Read once to warm up, three times to count."""
    name, path, did, key = sys.argv[1:]
    read = {"tickwork": tickwork, "stored": stored, "atmst": atmst}[name]
    read(Path(path), did, key)
    taken = []
    for _ in range(3):
        begun = time.process_time()
        count = read(Path(path), did, key)
        taken.append(time.process_time() - begun)
    print(json.dumps({"records": count, "cpu": min(taken)}))


if __name__ == "__main__":
    main()
