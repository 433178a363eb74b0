"""Hosts of the fake network: who lives where, in which order they are listed, how much a client may ask."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.upstreams.pds_http import Listener


class Seats:
    """Accounts in the order in which they came; who comes back sits at the end."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._order: list[tuple[int, str]] = []

    def add(self, did: str) -> None:
        """Give the account the last seat."""
        self._numbers[did] = len(self._order) + 1
        self._order.append((self._numbers[did], did))

    def remove(self, did: str) -> None:
        """Free the account's seat."""
        self._numbers.pop(did, None)

    def after(self, number: int) -> Iterator[tuple[int, str]]:
        """The seats with higher numbers than this."""
        for seat in self._order[bisect.bisect_left(self._order, (number + 1, "")) :]:
            if self._numbers.get(seat[1]) == seat[0]:
                yield seat

    def __len__(self) -> int:
        return len(self._numbers)


@dataclass
class Limit:
    """So many requests in so many seconds, told in the headers of every answer, as the Bluesky servers do it."""

    requests: int
    seconds: int
    _left: int = field(default=0, init=False)
    _until: float = field(default=0.0, init=False)

    def take(self) -> tuple[bool, dict[str, str], float]:
        """Count a request: whether it is allowed, the headers, the Unix time of the next window."""
        now = time.time()
        if now >= self._until:
            self._left, self._until = self.requests, float(int(now) + self.seconds)
        allowed, self._left = self._left > 0, max(0, self._left - 1)
        headers = {
            "RateLimit-Limit": str(self.requests),
            "RateLimit-Remaining": str(self._left),
            "RateLimit-Reset": str(int(self._until)),
            "RateLimit-Policy": f"{self.requests};w={self.seconds}",
        }
        return allowed, headers, self._until


@dataclass(eq=False)
class Host:
    """A server: a PDS, the relay ("relay") or a mirror of the PLC directory ("plc", "plc-1").

    `codings` are the content codings it does, `chunked` how it sends repositories, `always_cursor` whether a last page
    has a cursor too. `left` has the accounts that moved away and are still known here: their last entry in the list.
    `web` is the DID of the account whose document it has. Set `limit` to have it count requests, and `latency` to have
    it take so many seconds for each.
    """

    listener: Listener
    codings: tuple[str, ...] = ("gzip",)
    chunked: bool = False
    always_cursor: bool = False
    seats: Seats = field(default_factory=Seats)
    left: dict[str, dict[str, object]] = field(default_factory=dict)
    web: str = ""
    limit: Limit | None = None
    latency: float = 0.0
    refusing: bool = False

    @property
    def name(self) -> str:
        """What faults and requests call it."""
        return self.listener.name

    @property
    def url(self) -> str:
        """Its origin."""
        return self.listener.url

    @property
    def port(self) -> int:
        """Its port."""
        return self.listener.port
