"""Whatever happens to accounts, servers and passes, in whatever order: what is stored is what the repositories have."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.sources.atproto import apply_diff as records
from tickwork.sources.atproto.queue import Queue

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14_400)]
EXAMPLES = 1500 if os.environ.get("TICKWORK_SOAK") else 25
ACCOUNTS = 3
CONFIG = "max_attempts = 100\ntotal_seconds = 5\n"
FILTERS = (
    "",
    '[atproto.filter]\nmode = "filter"\ncollections = ["app.bsky.feed.*"]\n',
    '[atproto.filter]\nmode = "filter"\ncollections = ["app.bsky.*"]\nsignals = ["app.bsky.graph.follow"]\n',
)
# Some sort otherwise by column than as a path, one is of a text that is searched.
COLLECTIONS = (
    *("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feedback", "app.bsky.graph.follow"),
    *("com.example.a", "com.example.a-b.c", "com.example.a.b"),
)
FAULTS = ("truncate", "cut-frames", "missing-record", "missing-node", "tampered", "wrong-did", "stale", "500", "reset")

paths = st.builds("{}/{}".format, st.sampled_from(COLLECTIONS), st.sampled_from("abcd"))
values = st.builds(lambda text: {"$type": "app.bsky.feed.post", "text": text}, st.sampled_from(["one", "two", "three"]))
whose = st.integers(0, ACCOUNTS - 1)
STEPS = st.one_of(
    st.tuples(st.just("edit"), whose, st.dictionaries(paths, st.none() | values, min_size=1, max_size=8)),
    st.tuples(st.just("fault"), whose, st.sampled_from(FAULTS)),
    st.tuples(st.just("status"), whose, st.sampled_from(["active", "active", "deactivated", "takendown", "deleted"])),
    st.tuples(st.just("filter"), st.integers(0, len(FILTERS) - 1)),
    st.tuples(st.just("remove"), whose),
    st.tuples(st.just("resync"), whose),
    st.tuples(st.just("move"), whose),
    st.tuples(st.just("kill"), st.integers(1, 4)),
    st.tuples(st.just("pass")),
    st.tuples(st.just("discover")),
)


class Killed(BaseException):
    """As good as dead: nothing of the program's own comes after it."""


@contextmanager
def killing(after: int) -> Iterator[None]:
    """Die in the midst of the writing, the `after`th time that something is written."""
    left = after
    owners: list[tuple[Any, str]] = [(records, "_write"), (records, "_count"), (Queue, "_settle")]
    real = {name: getattr(owner, name) for owner, name in owners}

    def dying(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real[name](*arguments, **options)

        return call

    try:
        for owner, name in owners:
            setattr(owner, name, dying(name))
        yield
    finally:
        for owner, name in owners:
            setattr(owner, name, real[name])


def take(step: tuple[Any, ...], archive: Archive, network: Network, dids: list[str]) -> None:
    match step:
        case ("edit", who, changes):
            has = network.accounts[dids[who]].records
            puts = {path: value for path, value in changes.items() if value is not None}
            deletes = [path for path, value in changes.items() if value is None and path in has]
            if puts or deletes:
                network.edit(dids[who], puts, deletes)
        case ("fault", who, kind):
            network.fault(kind, did=dids[who])
        case ("status", who, status):
            network.set_status(dids[who], status)
        case ("filter", number):
            archive.configure(CONFIG + FILTERS[number])
        case ("remove", who):
            archive.run("remove", dids[who])
            assert archive.stored(dids[who]) == {}
        case ("resync", who):
            archive.run("resync", dids[who])
        case ("move", who):
            network.move(dids[who], 1 - int(network.accounts[dids[who]].host == "pds-1"))
        case ("kill", after):
            with killing(after), suppress(Killed):
                archive.run("backfill")
        case ("pass",):
            archive.backfill()
        case ("discover",):
            archive.run("discover", "--relay", network.relay_url)


def wanted(path: str, chosen: int) -> bool:
    """Whether the filter of that number has a record stored; written from the rule, not with the code."""
    collection = path.split("/")[0]
    return chosen == 0 or collection.startswith(("", "app.bsky.feed.", "app.bsky.")[chosen])


# Each example takes seconds, so that to look for a smaller one would take many minutes.
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.lists(STEPS, min_size=3, max_size=14), st.integers(0, 1000))
def test_the_store_is_what_the_repositories_have_after_anything(steps: list[tuple[Any, ...]], seed: int) -> None:
    with tempfile.TemporaryDirectory() as home, Network(2, 0, seed=seed, at_once=2, plc_at_once=4) as network:
        dids = [network.add(number % 2, records={}).did for number in range(ACCOUNTS)]
        archive = Archive(Path(home), network, CONFIG)
        archive.good("add", *dids)
        for step in steps:
            take(step, archive, network, dids)
            archive.judge()
        network.clear_faults()
        chosen = next((step[1] for step in reversed(steps) if step[0] == "filter"), 0)
        archive.good("add", *dids)  # also what was removed; by name, so that no signal is needed
        archive.good("resync", *dids)
        archive.drain()
        truths = {did: network.truth(did) for did in dids if network.accounts[did].status == "active"}
        for did, truth in truths.items():
            assert archive.repo(did)["status"] == "synced"
            assert archive.stored(did) == {path: cid for path, cid in truth.items() if wanted(path, chosen)}
        for did in set(dids) - set(truths):
            assert archive.repo(did)["status"] == network.accounts[did].status
        archive.judge()
