"""Merkle search trees: the one tree of its keys is read, every other one is refused."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import mst
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError

VALUE = kit.cid(b"value")


def keys_of(layer: int, count: int, stem: str = "com.example.a/") -> list[bytes]:
    """The first keys of a layer, in order."""
    found = (
        key for key in (f"{stem}{number:06d}".encode() for number in itertools.count()) if kit.height(key) == layer
    )
    return list(itertools.islice(found, count))


def written(keys: list[bytes]) -> tuple[bytes, kit.Blocks]:
    blocks: kit.Blocks = {}
    return kit.tree(dict.fromkeys(keys, VALUE), blocks).binary, blocks


def walked(root: bytes, blocks: kit.Blocks) -> list[bytes]:
    return [key for key, _ in mst.walk(root, blocks.get)]


def refused(root: kit.Cid, blocks: kit.Blocks, problem: str) -> None:
    with pytest.raises(InvalidRepositoryError, match=problem):
        walked(root.binary, blocks)


def node_of(left: kit.Cid | None, *entries: tuple[bytes, kit.Cid | None]) -> dict:
    return kit.node(left, [(key, VALUE, right) for key, right in entries])


def test_an_empty_repository_is_one_empty_node():
    assert walked(*written([])) == []


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 2000])
def test_all_keys_come_in_order(count):
    keys = [b"com.example.a/%06d" % number for number in range(count)]
    root, blocks = written(keys[::-1])
    assert walked(root, blocks) == keys


def test_a_tree_with_layers_that_have_no_key_of_their_own():
    keys = [*keys_of(6, 1), *keys_of(0, 1)]
    root, blocks = written(keys)
    assert walked(root, blocks) == sorted(keys)
    assert len(blocks) == 7


def test_a_missing_node_is_an_error_that_names_it():
    root, blocks = written(keys_of(0, 5) + keys_of(1, 5) + keys_of(2, 1))
    for binary in blocks:
        rest = {other: block for other, block in blocks.items() if other != binary}
        refused(kit.Cid(root), rest, f"{kit.Cid(binary)} of the tree: its block is missing")


def test_a_root_without_keys_over_a_subtree_is_refused():
    root, blocks = written(keys_of(0, 3))
    above = kit.put(kit.node(kit.Cid(root), []), blocks)
    refused(above, blocks, "the root has no key, but a subtree")


def test_an_empty_node_below_another_is_refused():
    blocks: kit.Blocks = {}
    empty = kit.put(kit.node(None, []), blocks)
    refused(kit.put(node_of(empty, (keys_of(1, 1)[0], None)), blocks), blocks, "neither a key nor a subtree")


def test_a_subtree_below_layer_0_is_refused():
    blocks: kit.Blocks = {}
    first, second = keys_of(0, 2)
    below = kit.put(node_of(None, (first, None)), blocks)
    refused(kit.put(node_of(below, (second, None)), blocks), blocks, "below layer 0")


def test_a_key_in_another_layer_than_its_own_is_refused():
    blocks: kit.Blocks = {}
    low, high = keys_of(0, 1)[0], keys_of(1, 1)[0]
    both = kit.put(node_of(None, *((key, None) for key in sorted([low, high]))), blocks)
    refused(both, blocks, "is of layer")
    # A layer skipped: the subtree's keys are two layers below.
    above = keys_of(2, 1, "com.example.b/")[0]
    skipping = kit.put(node_of(kit.put(node_of(None, (low, None)), blocks), (above, None)), blocks)
    refused(skipping, blocks, "is of layer 0, the node of layer 1")


def test_keys_out_of_order_or_twice_are_refused():
    first, second = keys_of(0, 2)
    for order in ([second, first], [first, first]):
        blocks: kit.Blocks = {}
        refused(kit.put(node_of(None, *((key, None) for key in order)), blocks), blocks, "is not after")


def test_a_subtree_out_of_order_is_refused():
    blocks: kit.Blocks = {}
    high = keys_of(1, 1)[0]
    after = kit.put(node_of(None, (keys_of(0, 1, "com.example.b/")[0], None)), blocks)
    refused(kit.put(node_of(after, (high, None)), blocks), blocks, "is not after")


def test_the_same_subtree_twice_is_refused():
    blocks: kit.Blocks = {}
    low, high = keys_of(0, 1)[0], keys_of(1, 1, "com.example.b/")[0]
    below = kit.put(node_of(None, (low, None)), blocks)
    refused(kit.put(node_of(below, (high, below)), blocks), blocks, "is not after")


def test_a_graph_that_unfolds_without_end_is_refused_at_once():
    """Each node refers to the next one twice: 2 to the power of 40 paths."""
    blocks: kit.Blocks = {}
    below = kit.put(node_of(None, (keys_of(0, 1)[0], None)), blocks)
    for layer in range(1, 7):
        below = kit.put(node_of(below, (keys_of(layer, 1, "com.example.b/")[0], below)), blocks)
    begun = time.thread_time()
    refused(below, blocks, "is not after")
    assert time.thread_time() - begun < 5


def test_deep_chains_end_at_layer_0():
    """A chain of nodes without keys is as long as its first key's layer, never longer."""
    blocks: kit.Blocks = {}
    below = kit.put(node_of(None, (keys_of(0, 1)[0], None)), blocks)
    for _ in range(5000):
        below = kit.put(kit.node(below, []), blocks)
    refused(kit.put(node_of(below, (keys_of(3, 1, "com.example.b/")[0], None)), blocks), blocks, "below layer 0|is of")


def entry(**changes: object) -> dict:
    return {"p": 0, "k": keys_of(0, 1)[0], "v": VALUE, "t": None} | changes


@pytest.mark.parametrize(
    "content",
    [
        {"l": None, "e": [entry(x=1)]},
        {"l": None, "e": [entry()], "x": 1},
        {"e": [entry()]},
        {"l": None},
        {"l": None, "e": [{name: value for name, value in entry().items() if name != "t"}]},
        {"l": None, "e": [entry(p=1)]},
        {"l": None, "e": [entry(p=-1)]},
        {"l": None, "e": [entry(p=1 << 40)]},
        {"l": None, "e": [entry(k="a text")]},
        {"l": None, "e": [entry(v=None)]},
        {"l": None, "e": [entry(v=VALUE.binary)]},
        {"l": None, "e": [entry(v=kit.cid(b"raw", 0x55))]},
        {"l": None, "e": [entry(t=b"")]},
        {"l": b"", "e": [entry()]},
        {"l": None, "e": {}},
        {"l": None, "e": [entry(k=b"a" * 5000)]},
        {"l": None, "e": [None]},
        [],
        None,
        kit.Verbatim(b""),
        kit.Verbatim(kit.dag_cbor(node_of(None)) + b"\0"),
        kit.Verbatim(b"\x81" * 100_000 + b"\0"),
        kit.Verbatim(b"\xa2ae\x9b\xff\xff\xff\xff\xff\xff\xff\xffal\xf6"),
        kit.Verbatim(b"\xa2ae\x9a\xff\xff\xff\xff\xa4akZ\xff\xff\xff\xff"),
        kit.Verbatim(b"\xa2ae\x98\x00al\xf6"),
        kit.Verbatim(b"\xa2ae\x81al\xf6"),
        kit.Verbatim(kit.dag_cbor(node_of(None, (b"a/1", None))).replace(b"ae\x81", b"ae\x80", 1)),
        kit.Verbatim(kit.dag_cbor(node_of(None, (b"a/1", None))).replace(b"ae\x81", b"ae\x82", 1)),
        kit.Verbatim(b"\xa2ae\x9f\xffal\xf6"),
        kit.Verbatim(b"\xa2al\xf6ae\x80"),
    ],
)
def test_what_is_no_node_is_refused(content):
    blocks: kit.Blocks = {}
    refused(kit.put(content, blocks), blocks, "of the tree: ")


def test_every_truncation_of_a_node_is_refused():
    _, blocks = written(keys_of(0, 30))
    (block,) = blocks.values()
    for size in range(len(block)):
        with pytest.raises(InvalidRepositoryError):
            mst.parse(block[:size], kit.cid(block).binary)


def test_any_other_encoding_of_the_same_node_is_refused():
    """Longer heads than needed; the encoding is the one thing libraries disagree about."""
    first = keys_of(0, 1)[0]
    suffix = kit.head(2, len(first)) + first
    canonical = kit.dag_cbor(node_of(None, (first, None)))
    assert suffix in canonical
    for before, after in (
        (b"ae\x81", b"ae\x98\x01"),
        (b"ap\x00", b"ap\x18\x00"),
        (b"\x58\x25", b"\x59\x00\x25"),
        (b"\xd8\x2a", b"\xd9\x00\x2a"),
        (suffix, b"\x58" + kit.head(0, len(first))[-1:] + first if len(first) < 24 else b"\x59\x00" + suffix[1:]),
    ):
        assert before in canonical
        blocks: kit.Blocks = {}
        refused(kit.put(kit.Verbatim(canonical.replace(before, after, 1)), blocks), blocks, "of the tree: ")


def test_a_node_made_to_use_up_memory_is_refused():
    """A short entry for each key of a thousand bytes, as many as a block has room for."""
    keys = [b"x" * 1015 + b"%05d" % number for number in range(20_000)]
    blocks: kit.Blocks = {}
    refused(kit.put(node_of(None, *((key, None) for key in keys)), blocks), blocks, "bytes, more than 262144")


def test_large_nodes_and_long_numbers_are_read():
    keys = [key + b"x" * size for key, size in zip(keys_of(0, 2000), itertools.cycle((0, 1, 30, 300)), strict=False)]
    keys = sorted(key for key in keys if kit.height(key) == 0)
    assert len(keys) > 1000
    assert walked(*written(keys)) == keys
    # A prefix of 256 bytes and more, and so many entries that their number takes two bytes.
    long = sorted(key for key in (b"y" * 300 + b"%05d" % number for number in range(2000)) if kit.height(key) == 0)
    assert walked(*written(long)) == long
