"""The record of every request, and the oracle that judges a client's manners from it alone."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# What HTTP libraries call themselves when their user says nothing.
LIBRARY_AGENTS = ("python-requests/", "python-urllib", "python-httpx", "pyoai", "curl/", "wget/", "go-http-client")
JUDGED_HEADERS = ("User-Agent", "From", "Accept-Encoding")


class Moment(NamedTuple):
    """One instant on both clocks, in seconds."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> "Moment":
        """This instant."""
        return cls(time.monotonic(), time.time())


@dataclass
class Seen:
    """One request, from the first byte of its request line to the last byte of its answer.

    `started` and `ended` are monotonic, `wall` and `ended_wall` Unix time; `ended` is None in flight.
    `hold_until` is the Unix time until which the answer told the client to stay away.
    """

    seq: int
    peer: int
    started: float
    wall: float
    ended: float | None = None
    ended_wall: float | None = None
    method: str = ""
    path: str = ""
    verb: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    fault: str | None = None
    bytes_sent: int = 0
    client_gone: bool = False
    hold_until: float | None = None


class History(list[Seen]):
    """Every request in the order it began; the methods judge, `since` leaves out seq numbers up to it."""

    def __init__(self, requests: Iterable[Seen] = ()) -> None:
        super().__init__(requests)

    @classmethod
    def from_json(cls, rows: Iterable[dict[str, Any]]) -> "History":
        """A history from the rows of `/-/history`, to be judged in another process."""
        return cls(sorted((Seen(**row) for row in rows), key=lambda seen: seen.started))

    @classmethod
    def read(cls, path: str | Path) -> "History":
        """A history from the server's JSON lines file, which holds finished requests only."""
        return cls.from_json(json.loads(line) for line in Path(path).read_text().splitlines())

    def to_json(self) -> list[dict[str, Any]]:
        """The requests as JSON objects."""
        return [asdict(seen) for seen in self]

    def overlaps(self, since: int = 0) -> list[tuple[Seen, Seen]]:
        """Pairs of requests that were in flight at the same time, the earlier first."""
        pairs: list[tuple[Seen, Seen]] = []
        open_requests: list[Seen] = []
        for seen in self._after(since):
            open_requests = [other for other in open_requests if _end(other) > seen.started]
            pairs += [(other, seen) for other in open_requests]
            open_requests.append(seen)
        return pairs

    def closest(self, since: int = 0) -> float:
        """Fewest seconds between the end of a request and the next start; negative if they overlapped.

        Infinity with fewer than two requests, and with an earlier one still in flight minus infinity.
        """
        smallest, last_end = math.inf, -math.inf
        for seen in self._after(since):
            smallest = min(smallest, seen.started - last_end)
            last_end = max(last_end, _end(seen))
        return smallest

    def starts_closest(self, since: int = 0) -> float:
        """Fewest seconds from one start to the next; infinity with fewer than two requests."""
        starts = [seen.started for seen in self._after(since)]
        return min((later - earlier for earlier, later in pairwise(starts)), default=math.inf)

    def inside_holds(self, slack: float = 0.0) -> list[Seen]:
        """Requests begun, by more than `slack` seconds, before the time an earlier answer had set.

        A hold binds from the moment its answer was sent, also a client that hung up on the last bytes.
        """
        holds = [seen for seen in self if seen.hold_until is not None]
        return [
            seen
            for seen in self._after(0)
            if any(_end(h) <= seen.started and seen.wall < (h.hold_until or 0) - slack for h in holds)
        ]

    def asked_for(self, verb: str = "GetRecord") -> Counter[str]:
        """How often each identifier was asked for with the verb."""
        return Counter(seen.params["identifier"] for seen in self if seen.verb == verb and "identifier" in seen.params)

    def without_user_agent(self) -> list[Seen]:
        """Requests that do not say who sends them: no User-Agent, or an HTTP library's own."""
        return [seen for seen in self if _anonymous(seen.headers.get("User-Agent", ""))]

    def summary(self) -> dict[str, Any]:
        """The oracle's figures, ready for JSON (None for a distance that does not exist)."""
        return {
            "requests": len(self),
            "in_flight": sum(seen.ended is None for seen in self),
            "verbs": dict(Counter(seen.verb or "" for seen in self)),
            "statuses": dict(Counter(str(seen.status) for seen in self)),
            "faults": dict(Counter(seen.fault for seen in self if seen.fault)),
            "bytes_sent": sum(seen.bytes_sent for seen in self),
            "clients_gone": sum(seen.client_gone for seen in self),
            "overlaps": len(self.overlaps()),
            "closest": _finite(self.closest()),
            "starts_closest": _finite(self.starts_closest()),
            "inside_holds": len(self.inside_holds()),
            "without_user_agent": len(self.without_user_agent()),
        }

    def _after(self, since: int) -> list[Seen]:
        return sorted((seen for seen in self if seen.seq > since), key=lambda seen: seen.started)


class Recorder:
    """Writes the history: thread-safe, each finished request also goes to a JSON lines file."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.history = History()
        self._lock = threading.Lock()
        self._in_flight: dict[int, tuple[Seen, Callable[[], bool]]] = {}
        self._path = Path(path) if path else None

    def begin(self, at: Moment, peer: int, hung_up: Callable[[], bool]) -> Seen:
        """Note a request that began at `at`.

        Requests whose client has hung up meanwhile end here: their own thread may notice a little
        later than the client's successor begins, which is no overlap.
        """
        with self._lock:
            for other, hung_up_too in self._in_flight.values():
                if other.ended is None and hung_up_too():
                    self._stamp(other, at, gone=True)
            seen = Seen(len(self.history) + 1, peer, at.monotonic, at.wall)
            self.history.append(seen)
            self._in_flight[seen.seq] = seen, hung_up
            return seen

    def end(self, seen: Seen, gone: bool = False) -> None:
        """The answer is all but sent, or (`gone`) the client has hung up; the first call counts."""
        with self._lock:
            self._stamp(seen, Moment.now(), gone)

    def close_request(self, seen: Seen) -> None:
        """The thread is done with the request: nothing in it changes any more."""
        with self._lock:
            self._stamp(seen, Moment.now(), gone=False)
            self._in_flight.pop(seen.seq, None)
            if self._path:
                with self._path.open("a", encoding="utf-8") as lines:
                    print(json.dumps(asdict(seen)), file=lines)

    def snapshot(self) -> History:
        """A copy that does not grow."""
        with self._lock:
            return History(self.history)

    def _stamp(self, seen: Seen, at: Moment, gone: bool) -> None:
        seen.client_gone = seen.client_gone or gone
        if seen.ended is None:
            seen.ended, seen.ended_wall = at.monotonic, at.wall


def _end(seen: Seen) -> float:
    return math.inf if seen.ended is None else seen.ended


def _anonymous(agent: str) -> bool:
    return not agent.strip() or agent.lower().startswith(LIBRARY_AGENTS)


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
