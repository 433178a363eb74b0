"""Several machines split the servers: each server belongs to one of them, and few change hands with their number."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.hosts import owner
from tickwork.contract.outcomes import OperatorError
from tickwork.upstream.hosts import UNKNOWN
from tickwork.upstream.shards import Shard

HOSTS = [f"pds-{n}.example.org" for n in range(3000)]


@given(st.text(min_size=1, max_size=60), st.integers(1, 40))
def test_each_server_belongs_to_exactly_one_part(host: str, count: int) -> None:
    assert 1 <= owner(host, count) <= count


@given(st.text(min_size=1, max_size=60), st.integers(1, 40))
def test_with_one_part_more_a_server_stays_or_goes_to_the_new_one(host: str, count: int) -> None:
    assert owner(host, count + 1) in (owner(host, count), count + 1)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_parts_are_of_like_size_and_few_servers_change_hands(count: int) -> None:
    before = {host: owner(host, count) for host in HOSTS}
    for size in Counter(before.values()).values():
        assert 0.85 * len(HOSTS) / count < size < 1.15 * len(HOSTS) / count
    moved = sum(owner(host, count + 1) != part for host, part in before.items())
    assert 0.85 * len(HOSTS) / (count + 1) < moved < 1.15 * len(HOSTS) / (count + 1)


def test_a_server_that_is_not_known_yet_is_everybodys() -> None:
    assert all(Shard(number, 5).owns(UNKNOWN) for number in range(1, 6))


@pytest.mark.parametrize(
    "text", ["", "2", "0/8", "9/8", "1/", "/8", "a/b", "1/8/2", "-1/8", "1/99999", "１/２", "2 / 8"]
)
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OperatorError, match=r"a shard is written like 2/8 \(the second of eight\), not"):
        Shard.parse(text)
