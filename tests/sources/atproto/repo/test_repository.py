"""Repositories whole: what is read equals what was written, nothing is lost in silence, and what changed is told."""

from __future__ import annotations

import datetime as dt
import random
import subprocess
import sys
import tracemalloc

import pytest

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import repository
from tickwork.sources.atproto.repo.car import Caps
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.keys import PublicKey
from tickwork.sources.atproto.repo.repository import Change, Record

NOW = dt.datetime(2026, 10, 5, 12, 0, tzinfo=dt.UTC)
ALICE = kit.Account()
KEY = PublicKey.from_multikey(ALICE.multikey())


def posts(count: int, text: str = "post") -> dict[str, object]:
    return {f"app.bsky.feed.post/{number:05d}": {"text": f"{text} {number}"} for number in range(count)}


def expected(records: dict) -> list[Record]:
    encoded = {path: value if isinstance(value, bytes) else kit.dag_cbor(value) for path, value in records.items()}
    return [Record(path, kit.cid(data).binary, data) for path, data in sorted(encoded.items())]


def opened(content: bytes, key: PublicKey | None = KEY, **options: object) -> repository.Repository:
    return repository.read(kit.on_disk(content), kit.DID, key, now=NOW, **options)


def refused(content: bytes, problem: str, **options: object) -> None:
    with pytest.raises(InvalidRepositoryError, match=problem), opened(content, **options) as repo:
        list(repo.records())


@pytest.mark.parametrize("count", [0, 1, 2, 50, 3000])
def test_what_is_read_is_what_was_written(count):
    records = posts(count) | {"app.bsky.actor.profile/self": {"name": "Alice"}} if count else {}
    with opened(ALICE.repository(records)) as repo:
        assert repo.commit.rev == kit.REV
        assert list(repo.records()) == expected(records)
        assert list(repo.records()) == expected(records)
        assert repo.invalid_paths.count == 0


def test_blocks_may_come_in_any_order_twice_and_with_others():
    records = posts(200)
    root, blocks = ALICE.written(records)
    pairs = [*blocks.items()] * 2 + [(kit.cid(b"other", 0x55).binary, b"other")]
    random.Random(5).shuffle(pairs)
    with opened(kit.car(root, pairs)) as repo:
        assert list(repo.records()) == expected(records)


def test_any_missing_block_is_an_error_and_never_fewer_records():
    root, blocks = ALICE.written(posts(60))
    for left_out in blocks:
        rest = [(binary, block) for binary, block in blocks.items() if binary != left_out]
        refused(kit.car(root, rest), f"{kit.Cid(left_out)}.* is missing")


def test_an_invalid_path_is_told_and_loses_nothing_else():
    records = posts(50)
    odd = [
        "",
        "nocollection",
        "app.bsky.feed.post/",
        "/key",
        "app.bsky.feed.post/a/b",
        "app.bsky.feed.post/..",
        "a.b/c",
    ]
    odd += ["app.bsky.feed.post/ü", "app bsky/x", "app.bsky.feed.post/" + "o" * 513, "app.bsky.feed.post/x\n"]
    unreadable = [b"app.bsky.feed.post/\xff", b"\xff\xfe/self", b"app.bsky.feed.post/\xed\xa0\x80"]
    everything = records | dict.fromkeys([*odd, *unreadable], kit.dag_cbor("lost"))
    with opened(ALICE.repository(everything)) as repo:
        assert list(repo.records()) == expected(records)
        assert repo.invalid_paths.count == len(odd) + len(unreadable)
        assert len(repo.invalid_paths.first) == repo.invalid_paths.count
        assert "nocollection" in repo.invalid_paths.first
        assert all(path.isascii() and path.isprintable() for path in repo.invalid_paths.first)


def test_many_invalid_paths_are_counted_and_not_kept():
    with opened(ALICE.repository({f"odd{number}": {} for number in range(500)})) as repo:
        assert list(repo.records()) == []
        assert repo.invalid_paths.count == 500
        assert len(repo.invalid_paths.first) == 100


def test_the_signature_is_verified_if_a_key_is_given():
    other = kit.Account(secret=77).repository(posts(3))
    refused(other, "its signature is not by")
    with opened(other, key=None) as repo:
        assert len(list(repo.records())) == 3


def test_another_accounts_repository_is_refused():
    bob = kit.Account(did="did:plc:bob")
    refused(bob.repository(posts(3)), f"it belongs to did:plc:bob, not to {kit.DID}")


def test_an_older_repository_is_refused():
    content = ALICE.repository(posts(3), rev="3l6oveex3ii2k")
    refused(content, "older than", at_least_rev=kit.REV)


def test_a_root_that_is_no_commit_is_refused():
    _, blocks = ALICE.written(posts(30))
    for binary in [*blocks][1:]:
        refused(kit.car(kit.Cid(binary), blocks.items()), "^the commit ")


def test_a_tree_that_is_a_record_is_refused():
    blocks: kit.Blocks = {}
    record = kit.put({"text": "no tree"}, blocks)
    root = kit.put(ALICE.commit(record), blocks)
    refused(kit.car(root, blocks.items()), "it is not a tree node")


def test_caps_are_handed_on():
    refused(ALICE.repository(posts(100)), "more than 50 blocks", caps=Caps(blocks=50))


def test_a_refused_file_is_let_go_of_and_not_closed():
    file = kit.on_disk(ALICE.repository(posts(3)))
    for _ in range(3):
        with pytest.raises(InvalidRepositoryError):
            repository.read(file, "did:plc:other", KEY, now=NOW)
    assert not file.closed


# What changed.


def test_the_difference_of_two_states():
    before = {record.path: record.cid for record in expected(posts(10))}
    after = posts(8) | {"app.bsky.feed.post/00003": {"text": "edited"}, "app.bsky.feed.like/x": {}, "z.z.z/z": {}}
    changes = list(repository.diff(before, expected(after)))
    assert [(change.action, change.path) for change in changes] == [
        ("create", "app.bsky.feed.like/x"),
        ("update", "app.bsky.feed.post/00003"),
        ("delete", "app.bsky.feed.post/00008"),
        ("delete", "app.bsky.feed.post/00009"),
        ("create", "z.z.z/z"),
    ]
    edited = kit.dag_cbor({"text": "edited"})
    path = "app.bsky.feed.post/00003"
    assert changes[1] == Change("update", path, kit.cid(edited).binary, edited, before[path])
    assert changes[2] == Change("delete", "app.bsky.feed.post/00008", None, None, before["app.bsky.feed.post/00008"])


def test_equal_states_differ_in_nothing():
    records = expected(posts(10))
    assert list(repository.diff({record.path: record.cid for record in records}, records)) == []
    assert list(repository.diff({}, [])) == []


def test_everything_is_created_from_nothing_and_deleted_to_nothing():
    records = expected(posts(10))
    assert [change.action for change in repository.diff({}, records)] == ["create"] * 10
    assert [change.action for change in repository.diff([(r.path, r.cid) for r in records], [])] == ["delete"] * 10


def test_stored_records_in_the_order_of_two_columns_are_refused_rather_than_doubled():
    """By (collection, key) `a.b.c/x` comes before `a.b.c.d/x`; by path it comes after."""
    stored = [("a.b.c/x", b"1"), ("a.b.c.d/x", b"2")]
    with pytest.raises(ValueError, match="must be sorted by path"):
        list(repository.diff(stored, []))
    assert len(list(repository.diff(dict(stored), []))) == 2


def test_a_truncated_repository_gives_no_delete():
    root, blocks = ALICE.written(posts(100))
    pairs = [*blocks.items()]
    stored = {record.path: record.cid for record in expected(posts(100))}
    for count in range(len(pairs)):
        changes: list[Change] = []
        with pytest.raises(InvalidRepositoryError), opened(kit.car(root, pairs[:count])) as repo:
            changes.extend(repository.diff(stored, repo.records()))
        assert changes == []


def test_the_difference_is_gone_through_without_keeping_it():
    cid, many = kit.cid(b"").binary, 20_000
    stored = ((f"a.b.c/{number:07d}", cid) for number in range(0, 2 * many, 2))
    records = (Record(f"a.b.c/{number:07d}", cid, b"") for number in range(1, 2 * many, 2))
    tracemalloc.start()
    try:
        assert sum(1 for _ in repository.diff(stored, records)) == 2 * many
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


_LARGE = """
import datetime as dt, sys
from pathlib import Path
from tickwork.sources.atproto.repo import repository
with open(sys.argv[1], "rb") as file:
    with repository.read(file, sys.argv[2], None, now=dt.datetime(2026, 10, 5, tzinfo=dt.UTC)) as repo:
        print(sum(1 for _ in repo.records()))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_stays_far_below_the_file(tmp_path):
    filler = b"x" * 20_000
    root, blocks = ALICE.written({f"app.bsky.feed.post/{number:06d}": [number, filler] for number in range(10_000)})
    path = tmp_path / "large.car"
    with path.open("wb") as file:
        file.write(kit.car(root, []))
        for pair in blocks.items():
            file.write(kit.frame(*pair))
    assert path.stat().st_size > 200_000_000
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(path), kit.DID], capture_output=True, text=True, check=True
    )
    count, kilobytes = map(int, done.stdout.split())
    assert count == 10_000
    assert kilobytes < 130_000
