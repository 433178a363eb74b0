"""Repositories at random: what was written is read, damage is refused, nothing crashes, hangs or grows."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import cbor, commit, mst, repository
from tickwork.sources.atproto.repo import dag_json as data_model
from tickwork.sources.atproto.repo.car import Caps
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.keys import PublicKey
from tickwork.sources.atproto.repo.repository import Record

NOW = dt.datetime(2026, 10, 5, 12, 0, tzinfo=dt.UTC)
ALICE = kit.Account()
KEY = PublicKey.from_multikey(ALICE.multikey())
SOAK = bool(os.environ.get("TICKWORK_SOAK"))
FUZZ_SECONDS = 3600 if SOAK else 20
GROWTH_KILOBYTES = 100_000
CAPS = Caps(file_bytes=1 << 20, block_bytes=1 << 17, blocks=5000)

_collections = st.sampled_from(["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feedback", "com.example.thing"])
_keys = st.text("234567abcdefghijklmnopqrstuvwxyz_~.:-", min_size=1, max_size=20).filter(
    lambda key: key not in (".", "..")
)
_paths = st.builds(lambda collection, key: f"{collection}/{key}", _collections, _keys)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=50)
    | st.text(max_size=20)
    | st.builds(kit.cid, st.binary(max_size=3), st.sampled_from([0x71, 0x55])),
    lambda items: st.lists(items, max_size=4) | st.dictionaries(st.text(max_size=5), items, max_size=4),
    max_leaves=10,
)
_contents = st.dictionaries(st.text(max_size=5), _values, max_size=4)
_records = st.dictionaries(_paths, _contents, max_size=40)


def records_in(content: bytes, key: PublicKey | None = KEY) -> list[Record]:
    with repository.read(kit.on_disk(content), kit.DID, key, now=NOW, caps=CAPS) as repo:
        found = list(repo.records())
        assert repo.invalid_paths.count == 0
        return found


def read_whole(content: bytes) -> None:
    """Read a repository whatever its signature, its paths and what its records say."""
    with repository.read(kit.on_disk(content), kit.DID, None, now=NOW, caps=CAPS) as repo:
        for record in repo.records():
            with contextlib.suppress(InvalidRepositoryError):
                data_model.to_json(cbor.decode(record.data, record.path))


def expected(records: dict[str, object]) -> list[Record]:
    encoded = sorted((path, kit.dag_cbor(value)) for path, value in records.items())
    return [Record(path, kit.cid(data).binary, data) for path, data in encoded]


@given(_records, st.randoms())
def test_what_was_written_is_read_in_whatever_order_the_blocks_are(records, order):
    root, blocks = ALICE.written(records)
    pairs = list(blocks.items())
    order.shuffle(pairs)
    assert records_in(kit.car(root, pairs)) == expected(records)


@given(_records, _records, st.data())
def test_a_difference_applied_to_the_old_state_gives_the_new_one(before, after, data):
    shared = data.draw(st.dictionaries(st.sampled_from(sorted(before)), _contents)) if before else {}
    after = {path: before[path] for path in list(before)[::2]} | after | shared
    stored = {record.path: record.cid for record in expected(before)}
    new = {record.path: record.cid for record in expected(after)}
    last = ""
    for change in repository.diff(dict(stored), records_in(ALICE.repository(after))):
        assert change.path > last
        last = change.path
        assert stored.get(change.path) == change.before != change.cid
        assert (change.action == "create") == (change.before is None)
        assert (change.action == "delete") == (change.cid is None) == (change.data is None)
        if change.cid is None:
            del stored[change.path]
        else:
            stored[change.path] = change.cid
    assert stored == new


@given(_records.filter(bool), st.data())
def test_a_damaged_file_is_refused_or_gives_the_same_records(records, data):
    content = ALICE.repository(records)
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["change", "truncate", "drop", "insert", "append"]))
    byte = bytes([data.draw(st.integers(0, 255))])
    damaged = {
        "change": content[:place] + byte + content[place + 1 :],
        "truncate": content[:place],
        "drop": content[:place] + content[place + 1 :],
        "insert": content[:place] + byte + content[place:],
        "append": content + byte,
    }[kind]
    try:
        found = records_in(damaged)
    except InvalidRepositoryError:
        return
    assert found == expected(records)


@given(_values)
def test_values_are_encoded_and_decoded_as_others_do(value):
    libipld = pytest.importorskip("libipld")
    encoded = kit.dag_cbor(value)
    read = cbor.decode(encoded, "here")
    assert cbor.encode(read) == encoded
    assert read == libipld.decode_dag_cbor(encoded)
    data_model.to_json(read)


@given(st.binary(max_size=60) | st.builds(lambda value, cut: kit.dag_cbor(value)[:cut], _values, st.integers(0, 60)))
def test_what_we_read_of_any_bytes_others_read_too(data):
    libipld = pytest.importorskip("libipld")
    try:
        read = cbor.decode(data, "here")
    except InvalidRepositoryError:
        return
    assert cbor.encode(read) == data
    assert read == libipld.decode_dag_cbor(data)


@given(st.sets(st.binary(min_size=1, max_size=12), max_size=60))
def test_trees_of_any_keys(keys):
    value = kit.cid(b"value")
    blocks: kit.Blocks = {}
    root = kit.tree(dict.fromkeys(keys, value), blocks)
    assert [key for key, _ in mst.walk(root.binary, blocks.get)] == sorted(keys)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_repository(content):
    with pytest.raises(InvalidRepositoryError):
        records_in(content)


def _mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with a few of the kinds of damage that find something."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 50)]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 20))
            case 3:
                data[at:at] = data[max(0, at - chance.randint(1, 60)) : at]
            case 4:
                data[at : at + 1] = chance.choice([b"\x9b", b"\xbb", b"\x5b", b"\xff", b"\x80", b"\x81", b"\xd8\x2a"])
            case 5:
                data[at:at] = chance.choice([b"\x81", b"\xa1\x61\x61", b"\xd8\x2a"]) * chance.randint(1, 3000)
    return bytes(data)


def _rehashed(blocks: kit.Blocks, chance: random.Random) -> tuple[kit.Cid, kit.Blocks]:
    """One block damaged and the links to it and above made to fit, so that the damage is behind valid hashes."""
    old = chance.choice(list(blocks))
    changed = {old: _mutated(blocks[old], chance)}
    blocks = blocks | changed
    names = {old: kit.cid(changed[old]).binary}
    for _ in range(10):
        more = {
            binary: block.replace(before, after)
            for before, after in names.items()
            for binary, block in blocks.items()
            if before in block
        }
        if not more:
            break
        blocks |= more
        names = {binary: kit.cid(block).binary for binary, block in more.items()}
    root = kit.cid(next(iter(blocks.values())))
    return root, {kit.cid(block).binary: block for block in blocks.values()}


@pytest.mark.slow
@pytest.mark.timeout(FUZZ_SECONDS + 120)
def test_no_damage_crashes_hangs_or_grows():
    chance = random.Random(20261005)
    records = {f"app.bsky.feed.post/{number:04d}": {"text": "x" * (number % 90)} for number in range(60)}
    _, blocks = ALICE.written(records | {"app.bsky.actor.profile/self": {"links": [kit.cid(b""), None, 1, b"bytes"]}})
    content = kit.car(kit.cid(next(iter(blocks.values()))), blocks.items())
    readers = (
        lambda data: cbor.decode(data, "here"),
        lambda data: commit.parse(data, kit.cid(data).binary),
        lambda data: mst.parse(data, kit.cid(data).binary),
        read_whole,
    )
    until, rounds, accepted, longest, slowest, before = time.monotonic() + FUZZ_SECONDS, 0, 0, 0, 0.0, 0
    while time.monotonic() < until:
        if rounds % 2:
            root, damaged = _rehashed(blocks, chance)
            data, reader = kit.car(root, damaged.items()), readers[3]
        else:
            reader = readers[rounds // 2 % 4]
            data = _mutated(content if reader is readers[3] else chance.choice(list(blocks.values())), chance)
        begun = time.thread_time()
        try:
            reader(data)
            accepted += 1
        except InvalidRepositoryError as error:
            longest = max(longest, len(str(error)))
        slowest = max(slowest, time.thread_time() - begun)
        rounds += 1
        if rounds == 200:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rounds > 1000
    assert 0 < accepted < rounds / 2
    assert slowest < 2
    assert longest < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KILOBYTES
