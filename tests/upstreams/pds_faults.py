"""Faults of the fake network, by switch or by chance: what goes wrong, for whom, and how often."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.kits import atproto as kit
from tests.upstreams.pds_accounts import FakeAccount
from tests.upstreams.pds_cars import CARS, broken
from tests.upstreams.pds_history import Seen
from tests.upstreams.pds_odd import INSTEAD, SENDING
from tests.upstreams.pds_wire import ERRORS, Answer, json_answer, xrpc_error

CAR_KINDS = (*CARS, "other-account")
LIST_METHODS = ("listRepos", "listReposByCollection", "listHosts")
PRIVATE_URL = "http://10.0.0.1"

# What a client gets over by asking again, and soon.
RANDOM_REPOSITORIES = (
    *("429-reset", "429-retry-after", "503-retry-after", "500", "502", "reset", "html", "empty"),
    *("truncate", "truncate-chunked", "truncate-encoded", "cut-frames", "missing-record", "missing-node", "tampered"),
    *("bad-signature", "high-s", "wrong-did", "other-account", "stale", "future"),
    *("redirect-private", "redirect-loop", "InternalServerError"),
)
RANDOM_OTHERS = ("429-reset", "429-retry-after", "503-retry-after", "500", "reset", "html", "empty", "truncate")
# What stays wrong with some accounts.
RANDOM_PERMANENT = ("missing-record", "missing-node", "tampered", "bad-signature", "high-s", "wrong-did", "future")


@dataclass
class Fault:
    """One switch: `kind` happens to the requests that fit all of its conditions, `times` times (None: always).

    Kinds (see KINDS): a status as "500"; "429-..." and "503-retry-after", which tell to stay away for `after` seconds,
    rounded up; odd answers and odd ways to send one (`interval` seconds between dripped bytes, `to` is where a redirect
    leads); names of XRPC errors; "doc-..." for DID documents, "list-..." for lists; the rest are for repositories.

    Conditions: `did`, `host` (a name), `method`, and those the kind brings along. Without a `method`, kinds that could
    befall any request befall all of a `host`, and without a host only getRepo. `method="any"` is what it says.
    """

    kind: str
    did: str | None = None
    host: str | None = None
    method: str | None = None
    times: int | None = 1
    after: float = 2.0
    interval: float = 0.05
    to: str = ""
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS and not re.fullmatch("[1-5][0-9]{2}", self.kind):
            raise ValueError(f"no fault of kind {self.kind!r}; there are a status and {', '.join(KINDS)}")

    def wants(self, seen: Seen) -> bool:
        """Whether it may happen to this request."""
        return (
            (self.times is None or self.fired < self.times)
            and self.did in (None, seen.did)
            and self.host in (None, seen.host)
            and self._of_method(seen.method)
        )

    def _of_method(self, method: str) -> bool:
        if self.kind in DOCUMENTS:
            return method == "document"
        if self.kind in LISTS:
            return method in LIST_METHODS and self.method in (None, method)
        if self.kind in CAR_KINDS:
            return method == "getRepo"
        if self.method is None:
            return self.host is not None or method == "getRepo"
        return self.method in (method, "any")


@dataclass
class Chance:
    """Faults at a rate, by seed: whether the nth request of its kind for an account fails never depends on the others.

    After `times` failures in a row a request goes well. Rates are between 0 and 1: `rate` for requests to hosts,
    `directory_rate` for documents, `permanent_rate` for accounts whose repository always has the same thing wrong.
    """

    seed: int = 1
    rate: float = 0.0
    directory_rate: float = 0.0
    permanent_rate: float = 0.0
    kinds: tuple[str, ...] = RANDOM_REPOSITORIES
    times: int = 1
    after: float = 1.0
    _asked: Counter[str] = field(default_factory=Counter)
    _in_a_row: Counter[str] = field(default_factory=Counter)

    def permanent(self, did: str) -> str:
        """What is always wrong with the account's repository, empty for most."""
        roll = random.Random(f"{self.seed} permanent {did}")
        return roll.choice(RANDOM_PERMANENT) if roll.random() < self.permanent_rate else ""

    def pick(self, seen: Seen) -> Fault | None:
        """A fault for this request, or none."""
        if seen.method == "getRepo" and (kind := self.permanent(seen.did)):
            return Fault(kind, times=None)
        rate = self.directory_rate if seen.method == "document" else self.rate
        if not rate:
            return None
        what = f"{seen.host} {seen.method} {seen.did or seen.path}"
        self._asked[what] += 1
        roll = random.Random(f"{self.seed} {what} {self._asked[what]}")
        if self._in_a_row[what] >= self.times or roll.random() >= rate:
            self._in_a_row[what] = 0
            return None
        self._in_a_row[what] += 1
        kinds = self.kinds if seen.method == "getRepo" else RANDOM_OTHERS
        return Fault(roll.choice(kinds), after=self.after)


class Switches:
    """The faults of a network."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """One more, asked after the others."""
        self._faults = [*self._faults, fault]
        return fault

    def clear(self) -> None:
        """No more faults, by switch or by chance."""
        self._faults = []
        self.chance = Chance()

    def permanent(self, dids: Iterable[str]) -> dict[str, str]:
        """The accounts whose repository never comes right, with what is wrong."""
        found = {did: kind for did in dids if (kind := self.chance.permanent(did))}
        switched = {f.did: f.kind for f in self._faults if f.did and f.times is None and f.kind != "invalid-path"}
        return found | switched

    def struck(
        self,
        seen: Seen,
        sound: Answer,
        account: FakeAccount | None,
        other: Callable[[], FakeAccount | None],
    ) -> tuple[Fault, Answer] | None:
        """The first fault that fits the request and can happen to it, with the answer it makes of the sound one."""
        chosen = [fault for fault in self._faults if fault.wants(seen)]
        if not chosen and (by_chance := self.chance.pick(seen)):
            chosen = [by_chance]
        for fault in chosen:
            answer = faulty(fault, seen, sound, account, other())
            if answer is not None:
                fault.fired += 1
                return fault, replace(answer, delivered=None)
        return None


def faulty(
    fault: Fault, seen: Seen, sound: Answer, account: FakeAccount | None, other: FakeAccount | None
) -> Answer | None:
    """The answer a fault makes of a sound one; None where it cannot."""
    kind = fault.kind
    if kind in INSTEAD:
        return INSTEAD[kind](fault)
    if kind in ERRORS:
        return xrpc_error(kind)
    if kind in SENDING:
        return SENDING[kind](fault, sound)
    if kind.isdigit():
        return json_answer({"error": "Fault", "message": f"this is {kind}"}, int(kind))
    if sound.status != 200:
        return None
    if kind in CAR_KINDS:
        car = broken(kind, account, other) if account else None
        return None if car is None else _with_body(sound, car)
    change = DOCUMENTS.get(kind) or LISTS[kind]
    content = json.loads(sound.body)
    change(content, fault, seen, other)
    return _with_body(sound, json.dumps(content).encode())


def _with_body(sound: Answer, body: bytes) -> Answer:
    return Answer(200, body, sound.content_type, sound.headers, {}, sound.codings, sound.chunked)


_Change = Callable[[dict[str, Any], Fault, Seen, FakeAccount | None], object]


def _other_key(document: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    text = kit.Account(secret=1).multikey()  # nobody signs with it
    document["verificationMethod"][0] |= {"type": "Multikey", "publicKeyMultibase": text}


def _bad_key(document: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    document["verificationMethod"][0]["publicKeyMultibase"] = "z0OIl-no-base58"


def _private(document: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    document["service"][-1]["serviceEndpoint"] = fault.to or PRIVATE_URL


DOCUMENTS: dict[str, _Change] = {
    "doc-other-did": lambda document, *_: document.update(id="did:plc:" + "z" * 24),
    "doc-no-pds": lambda document, *_: document.update(service=[]),
    "doc-no-key": lambda document, *_: document.update(verificationMethod=[]),
    "doc-bad-key": _bad_key,
    "doc-other-key": _other_key,
    "doc-private-pds": _private,
}


def _items(page: dict[str, Any]) -> list[Any]:
    items = page["repos"] if "repos" in page else page["hosts"]
    assert isinstance(items, list)
    return items


def _asked_cursor(seen: Seen) -> str:
    found = re.search(r"[?&]cursor=([^&]*)", seen.path)
    return found[1].replace("%3A", ":") if found else "0::begin"


def _loop(page: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    page["cursor"] = _asked_cursor(seen)


def _empty_page(page: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    # The cursor means the same place in other letters, so that nothing is lost and nothing loops.
    page["cursor"] = "0" + _asked_cursor(seen)
    _items(page).clear()


def _junk(page: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    junk: list[Any] = [{}, "text", None, {"did": 5}, {"did": "not a did"}, {"did": "did:plc:" + "a" * 3000}]
    _items(page)[:0] = [*junk, {"did": "did:plc:\u202e<script>", "rev": [], "active": "no"}]


def _foreign(page: dict[str, Any], fault: Fault, seen: Seen, other: FakeAccount | None) -> None:
    if other:
        claim = {"did": other.did, "head": other.head, "rev": other.rev, "active": False, "status": "deleted"}
        _items(page).append(claim)


LISTS: dict[str, _Change] = {
    "list-loop": _loop,
    "list-empty-page": _empty_page,
    "list-junk": _junk,
    "list-foreign": _foreign,
    "list-twice": lambda page, *_: _items(page).extend(list(_items(page))),
    "list-odd-cursor": lambda page, *_: page.update(cursor=17),
}

KINDS = (*INSTEAD, *SENDING, *ERRORS, *CAR_KINDS, *DOCUMENTS, *LISTS)
