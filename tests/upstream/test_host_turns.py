"""Servers take turns: whoever they are and however much there is to fetch, none waits for another, none is overrun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.upstream import host_turns
from tickwork.upstream.host_turns import LOOK_AGAIN_SECONDS, MAX_FAULTS_IN_A_ROW, HostTurns
from tickwork.upstream.hosts import UNKNOWN, HostKey

LARGE, SMALL, OTHER = HostKey("large.example"), HostKey("small.example"), HostKey("other.example:8443")


@dataclass(frozen=True)
class Parcel:
    """Something to fetch that is nobody's in particular."""

    id: int
    host: HostKey


class Parcels:
    """A queue in memory: what is in it is due, oldest first."""

    def __init__(self) -> None:
        self.waiting: list[Parcel] = []
        self.number = 0

    def put(self, host: HostKey, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            self.waiting.append(Parcel(self.number, host))

    def hosts(self) -> list[HostKey]:
        return sorted({parcel.host for parcel in self.waiting})

    def take(self, host: HostKey, taken: Collection[int]) -> Parcel | None:
        return next((one for one in self.waiting if one.host == host and one.id not in taken), None)


class Clock:
    """Both of the module's clocks; they move when told."""

    now = 1_770_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(host_turns, "time", clock)
    return clock


def filled(**counts: int) -> Parcels:
    queue = Parcels()
    for name, count in counts.items():
        queue.put({"large": LARGE, "small": SMALL, "other": OTHER, "unknown": UNKNOWN}[name], count)
    return queue


def turns_of(queue: Parcels, *, per_host: int = 2, unknown: int = 2) -> HostTurns[Parcel]:
    return HostTurns(queue, per_host=per_host, unknown=unknown)


def claims(turns: HostTurns[Parcel], most: int = 1000) -> list[Parcel]:
    """What can be claimed now, one after the other."""
    found: list[Parcel] = []
    while len(found) < most and (claim := turns.claim()):
        found.append(claim)
    return found


def finish(queue: Parcels, turns: HostTurns[Parcel], claim: Parcel) -> None:
    queue.waiting.remove(claim)
    turns.done(claim)


def test_a_large_server_does_not_starve_a_small_one() -> None:
    queue = filled(large=100, small=3, other=3)
    turns = turns_of(queue)
    order = []
    while claim := turns.claim():
        order.append(claim.host)
        finish(queue, turns, claim)
    assert len(order) == 106
    assert Counter(order[:9]) == {LARGE: 3, SMALL: 3, OTHER: 3}


@pytest.mark.parametrize("per_host", [1, 3])
def test_no_server_is_asked_for_more_at_once_than_its_bound(per_host: int) -> None:
    queue = filled(large=100, small=2)
    turns = turns_of(queue, per_host=per_host)
    taken = claims(turns)
    assert Counter(claim.host for claim in taken) == {LARGE: per_host, SMALL: min(2, per_host)}
    assert len({claim.id for claim in taken}) == len(taken)
    finish(queue, turns, next(claim for claim in taken if claim.host == LARGE))
    assert [claim.host for claim in claims(turns)] == [LARGE]


def test_what_has_no_server_yet_has_a_bound_of_its_own() -> None:
    taken = claims(turns_of(filled(unknown=10, small=10), per_host=1, unknown=4))
    assert Counter(claim.host for claim in taken) == {UNKNOWN: 4, SMALL: 1}


def test_what_was_dealt_with_and_stays_in_the_queue_is_claimed_again_at_the_next_look(clock: Clock) -> None:
    turns = turns_of(filled(small=1))
    (claim,) = claims(turns)
    turns.done(claim)
    clock.now += LOOK_AGAIN_SECONDS
    assert claims(turns) == [claim]


def test_a_server_that_comes_later_is_noticed_at_the_next_look_or_when_it_is_expected(clock: Clock) -> None:
    queue = filled(large=1)
    turns = turns_of(queue)
    assert len(claims(turns)) == 1
    queue.put(SMALL)
    queue.put(OTHER)
    assert claims(turns) == []
    turns.expect(SMALL)
    assert [claim.host for claim in claims(turns)] == [SMALL]
    clock.now += LOOK_AGAIN_SECONDS
    assert [claim.host for claim in claims(turns)] == [OTHER]


def test_a_server_that_is_expected_twice_has_no_more_turns_than_others() -> None:
    queue = filled(large=10, small=10)
    turns = turns_of(queue, per_host=10)
    for _ in range(5):
        turns.expect(LARGE)
    assert Counter(claim.host for claim in claims(turns, most=10)) == {LARGE: 5, SMALL: 5}


def test_a_server_that_rests_is_left_alone_until_its_time(clock: Clock) -> None:
    queue = filled(large=5, small=1)
    turns = turns_of(queue)
    turns.rest(LARGE, clock.now + 100)
    turns.rest(LARGE, clock.now + 50)  # the longer one stays
    assert [claim.host for claim in claims(turns)] == [SMALL]
    assert turns.resting == 1
    clock.now += 99
    turns.expect(LARGE)
    assert claims(turns) == []
    clock.now += 2
    assert [claim.host for claim in claims(turns)] == [LARGE, LARGE]
    assert turns.resting == 0


def test_a_server_rests_for_the_pass_after_faults_in_a_row(clock: Clock) -> None:
    turns = turns_of(filled(large=5, small=1))
    for _ in range(MAX_FAULTS_IN_A_ROW):
        assert turns.resting == 0
        turns.failed(LARGE)
    assert turns.resting == 1
    clock.now += 1e9
    assert [claim.host for claim in claims(turns)] == [SMALL]


def test_an_answer_between_two_faults_makes_them_none_in_a_row() -> None:
    turns = turns_of(filled(large=5))
    for _ in range(5):
        for _ in range(MAX_FAULTS_IN_A_ROW - 1):
            turns.failed(LARGE)
        turns.answered(LARGE)
    assert len(claims(turns)) == 2


def test_faults_of_what_has_no_server_yet_are_nobodys() -> None:
    turns = turns_of(filled(unknown=5))
    for _ in range(10):
        turns.failed(UNKNOWN)
    assert len(claims(turns)) == 2


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(1, 3),
    st.lists(st.integers(0, 100), max_size=80),
)
def test_whatever_ends_when_nobody_is_overrun_and_whoever_may_be_asked_is_asked_within_a_round(
    counts: list[int], per_host: int, endings: list[int]
) -> None:
    """`endings`: which of the claims under way ends next; 0 for one more claim instead."""
    queue = Parcels()
    for number, count in enumerate(counts):
        queue.put(HostKey(f"host-{number}.example"), count)
    turns = turns_of(queue, per_host=per_host)
    under_way: list[Parcel] = []
    waited: Counter[HostKey] = Counter()
    for ending in [*endings, *[0, 1] * sum(counts)]:
        if ending and under_way:
            finish(queue, turns, under_way.pop(ending % len(under_way)))
            continue
        busy = Counter(claim.host for claim in under_way)
        left = Counter(parcel.host for parcel in queue.waiting)
        free = {host for host in left if left[host] > busy[host] < per_host}
        claim = turns.claim()
        assert (claim is not None) == bool(free)
        if claim is None:
            continue
        assert claim.host in free
        assert claim not in under_way
        under_way.append(claim)
        for host in [*waited]:
            if host not in free:
                del waited[host]
        waited.update(free)
        del waited[claim.host]
        assert all(rounds < len(counts) for rounds in waited.values())
    for claim in under_way:
        finish(queue, turns, claim)
    assert queue.waiting == []
