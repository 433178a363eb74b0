"""What the fake network was asked, by the clock of its servers, and a judgement of the client from that alone."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

# Who calls, and where to complain.
AGENT = re.compile(r"tickwork/\S.*\+https?://[^\s)]+")
# A told time has whole seconds or less, and two clocks are read for it.
_SLACK_SECONDS = 0.05


@dataclass(eq=False)
class Seen:
    """One request: `began` and `ended` are monotonic seconds, `ended` is None in flight.

    `host` is the server's name ("plc", "relay", "pds-0"), `address` what the client calls it, `verb` GET, and `method`
    the last part of an XRPC name, "document" for a DID document, or empty. `fault` is what the server did wrong,
    `hold_until` the Unix time until which the answer told the client to stay away, `problems` what the request had.
    """

    seq: int
    host: str
    began: float
    began_wall: float
    verb: str = ""
    path: str = ""
    method: str = ""
    did: str = ""
    address: str = ""
    agent: str = ""
    status: int = 0
    bytes: int = 0
    ended: float | None = None
    ended_wall: float | None = None
    fault: str = ""
    hold_until: float | None = None
    client_gone: bool = False
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"request {self.seq}, {self.verb or '?'} {self.path[:120]}"


class History:
    """Every request in the order of arrival. Requests are noted by one thread, and may be read by any."""

    def __init__(self) -> None:
        self._seen: list[Seen] = []
        self._open: dict[Seen, Callable[[], bool]] = {}
        self._deaths: list[float] = []
        self._lock = threading.Lock()

    def begin(self, host: str, hung_up: Callable[[], bool]) -> Seen:
        """Note a request that arrives now.

        Requests whose client has hung up meanwhile end first: it may well be this one that it sends instead.
        """
        with self._lock:
            for other, gone in list(self._open.items()):
                if other.host == host and gone():
                    self._stamp(other, gone=True)
            seen = Seen(len(self._seen) + 1, host, time.monotonic(), time.time())
            self._seen.append(seen)
            self._open[seen] = hung_up
            return seen

    def end(self, seen: Seen, gone: bool = False) -> None:
        """The answer is all but sent, or the client has gone; the first call counts."""
        with self._lock:
            self._stamp(seen, gone)

    def _stamp(self, seen: Seen, gone: bool) -> None:
        if self._open.pop(seen, None):
            seen.ended, seen.ended_wall, seen.client_gone = time.monotonic(), time.time(), gone

    def client_died(self) -> None:
        """Note that the client was killed just now: it may not have lived to keep what it was told last."""
        with self._lock:
            self._deaths.append(time.time())

    def requests(self, host: str | None = None, method: str | None = None) -> list[Seen]:
        """The requests so far, all or those of one host or one method."""
        with self._lock:
            seen = list(self._seen)
        return [each for each in seen if host in (None, each.host) and method in (None, each.method)]

    def violations(self, at_once: Callable[[str], int], grace: float) -> list[str]:
        """A sentence for each thing a client must not do; none if its manners were good.

        `at_once` gives how many requests each host allows at a time. `grace` is in seconds, and what a client gets to
        learn of a hold: what its other threads had under way when it was told does not count, nor does a hold that it
        was told of when it was about to die.
        """
        seen = self.requests()
        found = [f"{each.host}: {problem} ({each})" for each in seen for problem in each.problems]
        # A client knows hosts by what it calls them, and that is how it can be held to count.
        for (host, address), requests in _grouped(seen):
            most, allowed = most_at_once(requests), at_once(host)
            if most > allowed:
                found.append(f"{host}: {most} requests at once to {address}, allowed are {allowed}")
            found += [f"{host}: {sentence}" for sentence in _inside_holds(requests, grace, self._deaths)]
        return found


def most_at_once(requests: Iterable[Seen]) -> int:
    """How many of these requests were in flight at the same time, at most."""
    moments = []
    for seen in requests:
        moments.append((seen.began, 1))
        if seen.ended is not None:
            moments.append((seen.ended, -1))
    most = now = 0
    # Of one moment's changes the ends come first.
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def to_json(seen: Seen) -> dict[str, Any]:
    """A request as a JSON object."""
    return dict(vars(seen))


def _inside_holds(requests: list[Seen], grace: float, deaths: Sequence[float]) -> Iterator[str]:
    told = [
        (told_at + grace, seen.hold_until, seen)
        for seen in requests
        if seen.hold_until is not None
        and (told_at := seen.ended_wall) is not None
        and not any(abs(death - told_at) <= grace for death in deaths)
    ]
    told.sort(key=lambda hold: hold[0], reverse=True)
    until, by = 0.0, None
    for seen in sorted(requests, key=lambda each: each.began_wall):
        while told and told[-1][0] < seen.began_wall:
            _, hold_until, hold = told.pop()
            until, by = max((until, by), (hold_until, hold), key=lambda known: known[0])
        early = until - seen.began_wall
        if by is not None and early > _SLACK_SECONDS:
            yield f"asked {early:.2f} s before it was to be asked again, as request {by.seq} was told ({seen})"


def _grouped(seen: list[Seen]) -> Iterator[tuple[tuple[str, str], list[Seen]]]:
    def key(each: Seen) -> tuple[str, str]:
        return each.host, each.address

    for name, requests in groupby(sorted(seen, key=key), key):
        yield name, sorted(requests, key=lambda each: each.began)
