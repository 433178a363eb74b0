"""Whose turn it is: the servers take turns, so that one with many repositories, or a slow one, holds up no other."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque

from tickwork.sources.atproto.queue import Claim, Queue

LOOK_AGAIN_SECONDS = 1.0
MAX_FAULTS_IN_A_ROW = 3
"""So many faults of one server in a row are the server's trouble; it is left alone for the rest of the pass."""


class HostTurns:
    """Claims from the queue, from one server after the other, and for each server only so many at once.

    `per_host` bounds what is fetched from one server at once, `unknown` the accounts whose server must be found first.
    """

    def __init__(self, queue: Queue, *, per_host: int, unknown: int) -> None:
        self._queue = queue
        self._per_host = per_host
        self._unknown = unknown
        self._waiting: deque[str] = deque()
        self._listed: set[str] = set()
        """What is in `_turns`."""
        self._looked = -math.inf
        self._taken: defaultdict[str, set[int]] = defaultdict(set)
        self._resting: dict[str, float] = {}
        self._faults: Counter[str] = Counter()

    def claim(self) -> Claim | None:
        """The next repository to fetch; None while there is none that may be fetched now."""
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
            if len(taken) < (self._per_host if host else self._unknown):
                claim = self._queue.take(host, taken)
                if claim is None:
                    self._listed.discard(host)
                    continue
                taken.add(claim.id)
                self._waiting.append(host)
                return claim
            self._waiting.append(host)
        return None

    def expect(self, host: str) -> None:
        """There may be something to fetch from this server."""
        if host not in self._listed and not self._rests(host):
            self._listed.add(host)
            self._waiting.append(host)

    def done(self, claim: Claim) -> None:
        """What was claimed has been dealt with."""
        self._taken[claim.host].discard(claim.id)

    def rest(self, host: str, until: float = math.inf) -> None:
        """Claim nothing from this server before `until` (unix seconds), or for the rest of the pass."""
        self._resting[host] = max(until, self._resting.get(host, 0.0))

    def answered(self, host: str) -> None:
        """The server works."""
        self._faults.pop(host, None)

    def failed(self, host: str) -> None:
        """The server could not be spoken to."""
        self._faults[host] += 1
        if host and self._faults[host] >= MAX_FAULTS_IN_A_ROW:
            self.rest(host)

    def _rests(self, host: str) -> bool:
        return self._resting.get(host, 0.0) > time.time()

    @property
    def resting(self) -> int:
        """How many servers rest now."""
        return sum(map(self._rests, self._resting))
