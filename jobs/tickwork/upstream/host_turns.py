"""Whose turn it is: the servers take turns, so that one with much to fetch, or a slow one, holds up no other."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

from tickwork.upstream.hosts import UNKNOWN, HostKey

LOOK_AGAIN_SECONDS = 1.0
MAX_FAULTS_IN_A_ROW = 3
"""So many faults of one server in a row are the server's trouble; it is left alone for the rest of the pass."""


class Claimed(Protocol):
    """Something to fetch, as a queue gives it."""

    @property
    def id(self) -> int:
        """Which one it is; no two of a queue have the same."""

    @property
    def host(self) -> HostKey:
        """The server it is fetched from, the one it was asked for; UNKNOWN where that must be found first."""


C = TypeVar("C", bound=Claimed)
C_co = TypeVar("C_co", bound=Claimed, covariant=True)


class HostQueue(Protocol[C_co]):
    """What a source has to fetch, by server."""

    def hosts(self) -> Iterable[HostKey]:
        """The servers for which something is planned, now or later; UNKNOWN may be one of them."""

    def take(self, host: HostKey, taken: Collection[int]) -> C_co | None:
        """What is due next at one server, but for those `taken` (ids); None where nothing is. It stays in the queue."""


class HostTurns(Generic[C]):
    """Claims from the queue, from one server after the other, and for each server only so many at once.

    `per_host` bounds what is fetched from one server at once, `unknown` that whose server must be found first.
    """

    def __init__(self, queue: HostQueue[C], *, per_host: int, unknown: int) -> None:
        self._queue = queue
        self._per_host = per_host
        self._unknown = unknown
        self._waiting: deque[HostKey] = deque()
        self._listed: set[HostKey] = set()
        """What is in `_waiting`."""
        self._looked = -math.inf
        self._taken: defaultdict[HostKey, set[int]] = defaultdict(set)
        self._resting: dict[HostKey, float] = {}
        self._faults: Counter[HostKey] = Counter()

    def claim(self) -> C | None:
        """What to fetch next; None while there is nothing that may be fetched now."""
        if time.monotonic() - self._looked >= LOOK_AGAIN_SECONDS:
            self._looked = time.monotonic()
            for host in self._queue.hosts():
                self.expect(host)
        for _ in range(len(self._waiting)):
            host = self._waiting.popleft()
            taken = self._taken[host]
            if self._rests(host):
                self._listed.discard(host)
                continue
            if len(taken) < (self._unknown if host == UNKNOWN else self._per_host):
                claim = self._queue.take(host, taken)
                if claim is None:
                    self._listed.discard(host)
                    continue
                taken.add(claim.id)
                self._waiting.append(host)
                return claim
            self._waiting.append(host)
        return None

    def expect(self, host: HostKey) -> None:
        """There may be something to fetch from this server."""
        if host not in self._listed and not self._rests(host):
            self._listed.add(host)
            self._waiting.append(host)

    def done(self, claim: C) -> None:
        """What was claimed has been dealt with."""
        self._taken[claim.host].discard(claim.id)

    def rest(self, host: HostKey, until: float = math.inf) -> None:
        """Claim nothing from this server before `until` (unix seconds), or for the rest of the pass."""
        self._resting[host] = max(until, self._resting.get(host, 0.0))

    def answered(self, host: HostKey) -> None:
        """The server works."""
        self._faults.pop(host, None)

    def failed(self, host: HostKey) -> None:
        """The server could not be spoken to."""
        self._faults[host] += 1
        if host != UNKNOWN and self._faults[host] >= MAX_FAULTS_IN_A_ROW:
            self.rest(host)

    def _rests(self, host: HostKey) -> bool:
        return self._resting.get(host, 0.0) > time.time()

    @property
    def resting(self) -> int:
        """How many servers rest now."""
        return sum(map(self._rests, self._resting))
