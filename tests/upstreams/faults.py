"""Faults by switch: what goes wrong, for which requests, and how often.

A kind belongs to one of five families: an answer in place of the protocol's, a changed page, changed
bytes of the XML, a strange way of sending, or something that happens before the answer is made.
"""

import math
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from email.utils import formatdate
from functools import cache, partial
from typing import Any

from tests.upstreams.oai_protocol import LIST_VERBS, OaiError, Page, Protocol
from tests.upstreams.oai_wire import Answer, Request

HOLD_FORMS = ("seconds", "date", "x-reset", "reset", "none")
BOMB_MEBIBYTES = 320


@dataclass
class Fault:
    """One switch. It fires for a request that fits all its conditions, `count` times (None: always).

    Conditions: `verb`; `identifier`; `nth`, from the nth such request on; `every`, each nth one;
    `probability` under `seed`. Of several switches only the first with an answer of its own fires,
    while `slow` and `shift` go together with any other. The other fields belong to single kinds:

    - 429, 503: stay away for `after` whole seconds, told `via` Retry-After in "seconds" or as "date", via
      X-RateLimit-Reset ("x-reset", Unix time), RateLimit-Reset ("reset", seconds left), or "none"
    - slow: `seconds`; drip-headers, drip-body: `interval` per byte and `end` (None: never)
    - truncate, truncate-body: the fraction to `keep`; miscount: `by`; redirect: `to`
    - shift: `change`, called with the server; without it a record already listed gets a new datestamp
    """

    kind: str
    verb: str | None = None
    nth: int | None = None
    every: int | None = None
    identifier: str | None = None
    probability: float | None = None
    seed: int = 0
    count: int | None = 1
    after: float = 30
    via: str = "seconds"
    seconds: float = 1.0
    interval: float = 0.05
    end: float | None = None
    keep: float = 0.5
    by: int = 1
    to: str = ""
    change: Callable[[Any], object] | None = None
    matched: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS and not re.fullmatch("[1-5][0-9]{2}", self.kind):
            raise ValueError(f"no fault of kind {self.kind!r}; there are a status and {', '.join(sorted(KINDS))}")
        if self.via not in HOLD_FORMS:
            raise ValueError(f"via={self.via!r} is none of {', '.join(HOLD_FORMS)}")
        self.rng = random.Random(self.seed)

    @classmethod
    def from_json(cls, switch: dict[str, Any]) -> "Fault":
        """A fault from its fields; ValueError if there are others."""
        known = {each.name for each in fields(cls) if each.init} - {"change"}
        if unknown := switch.keys() - known:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        return cls(**{**switch, "kind": str(switch.get("kind", ""))})

    def goes_with_others(self) -> bool:
        """Whether another fault may fire for the same request."""
        return self.kind in ("slow", "shift")

    def wants(self, request: Request) -> bool:
        """Whether the request fits; counts those of the right verb, identifier and shape."""
        if not self._concerns(request.params):
            return False
        self.matched += 1
        return (
            (self.count is None or self.fired < self.count)
            and (self.nth is None or self.matched >= self.nth)
            and (self.every is None or self.matched % self.every == 0)
            and (self.probability is None or self.rng.random() < self.probability)
        )

    def _concerns(self, params: dict[str, str]) -> bool:
        verb = params.get("verb", "")
        return (
            self.verb in (None, verb)
            and self.identifier in (None, params.get("identifier"))
            and (self.kind not in NEEDS_LIST or verb in LIST_VERBS)
            and (self.kind not in NEEDS_TOKEN or "resumptionToken" in params)
            and (self.kind != "wrong-record" or verb == "GetRecord")
        )


class Switches:
    """The faults of a server, thread-safe."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._faults = list(faults)

    def replace(self, faults: Iterable[Fault] = ()) -> None:
        """Put these in place of all others."""
        with self._lock:
            self._faults = list(faults)

    def add(self, fault: Fault) -> Fault:
        """One more, asked after the others."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def strike(self, request: Request) -> list[Fault]:
        """The faults that fire for this request, at most one of them with an answer of its own."""
        struck: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                taken = not all(each.goes_with_others() for each in struck)
                if fault.wants(request) and (fault.goes_with_others() or not taken):
                    fault.fired += 1
                    struck.append(fault)
        return struck


def faulty_answer(fault: Fault, protocol: Protocol, request: Request) -> Answer:
    """The answer the fault makes of the request."""
    if make := INSTEAD.get(fault.kind):
        return make(fault)
    if fault.kind.isdigit():
        return _status(fault)
    change_page = PAGES.get(fault.kind)
    body = protocol.answer(request.arguments, partial(_tweaked, change_page, fault) if change_page else None)
    change_xml = XML.get(fault.kind)
    answer = Answer(200, change_xml(fault, body) if change_xml else body)
    send = SENDING.get(fault.kind)
    return send(fault, answer) if send else answer


def pick_to_shift(fault: Fault, protocol: Protocol, params: dict[str, str]) -> str | None:
    """A record for `shift` to touch: one already listed if there are, as that is what shifts the rest."""
    try:
        listed = protocol.already_listed(params.get("resumptionToken", ""))
    except OaiError:
        listed = [book.identifier for book in protocol.records.books()]
    return fault.rng.choice(listed) if listed else None


# --- an answer instead -------------------------------------------------------------------------------


def _status(fault: Fault) -> Answer:
    return _text(int(fault.kind), f"HTTP {fault.kind}\n")


def _text(status: int, text: str, **more: Any) -> Answer:
    return Answer(status, text.encode(), "text/plain; charset=utf-8", **more)


def _html(status: int, text: str, **more: Any) -> Answer:
    page = f"<!DOCTYPE html>\n<html><head><title>{text}</title></head><body><p>{text}<br></body></html>\n"
    return Answer(status, page.encode(), "text/html; charset=UTF-8", **more)


def _stay_away(fault: Fault) -> Answer:
    if fault.via == "none":
        return _text(int(fault.kind), "Slow down.\n")
    seconds = math.ceil(fault.after)
    until = time.time() + seconds
    # A date has no fractions, and a hold must not be judged stricter than it was told.
    date = math.floor(until)
    headers, hold_until = {
        "seconds": ({"Retry-After": str(seconds)}, until),
        "date": ({"Retry-After": formatdate(date, usegmt=True)}, date),
        "x-reset": ({"X-RateLimit-Reset": str(date)}, date),
        "reset": ({"RateLimit-Reset": str(seconds)}, until),
    }[fault.via]
    return _text(int(fault.kind), "Slow down.\n", headers=headers, hold_until=hold_until)


def _challenge(fault: Fault) -> Answer:
    headers = {"cf-mitigated": "challenge", "Server": "cloudflare", "CF-RAY": "8f0000000000abcd-AMS"}
    return _html(403, "Just a moment...", headers=headers)


def _error_page(fault: Fault) -> Answer:
    return Answer(200, b'<?xml version="1.0" encoding="UTF-8"?><error><message>Solr is down</message></error>')


def _redirect(fault: Fault) -> Answer:
    return _text(302, f"See {fault.to}\n", headers={"Location": fault.to})


def _many_headers(fault: Fault) -> Answer:
    # http.client gives up after 100.
    return _text(200, "", headers={f"X-Padding-{n}": "x" * 40 for n in range(200)})


def _gzip_bomb(fault: Fault) -> Answer:
    return Answer(200, _bomb(), headers={"Content-Encoding": "gzip"})


@cache
def _bomb() -> bytes:
    """A gzip stream of some hundred kB that decodes to 320 MiB of XML white space."""
    block = b" " * 2**20
    opening = b'<?xml version="1.0" encoding="UTF-8"?><OAI-PMH>'
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(opening) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush every block packs to the same bytes, so one will do for all.
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.crc32(opening)
    for _ in range(BOMB_MEBIBYTES):
        checksum = zlib.crc32(block, checksum)
    size = len(opening) + BOMB_MEBIBYTES * len(block)
    trailer = checksum.to_bytes(4, "little") + size.to_bytes(4, "little")
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + start + packed * BOMB_MEBIBYTES + packer.flush() + trailer


INSTEAD: dict[str, Callable[[Fault], Answer]] = {
    "429": _stay_away,
    "503": _stay_away,
    "403-challenge": _challenge,
    "html": lambda fault: _html(200, "Site under maintenance"),
    "empty": lambda fault: Answer(200),
    "error-page": _error_page,
    "gzip-bomb": _gzip_bomb,
    "redirect": _redirect,
    "reset": lambda fault: Answer(200, reset=True),
    "too-many-headers": _many_headers,
}


# --- a changed page ----------------------------------------------------------------------------------


def _tweaked(change: Callable[[Fault, Protocol, Page], Page], fault: Fault, protocol: Protocol, page: Page) -> Page:
    return change(fault, protocol, page)


def _loop(fault: Fault, protocol: Protocol, page: Page) -> Page:
    return replace(page, token=page.asked_token)


def _repeat_page(fault: Fault, protocol: Protocol, page: Page) -> Page:
    earlier = max(0, page.selection.offset - protocol.page_size)
    return replace(page, records=protocol.page(page.verb, page.selection._replace(offset=earlier)).records)


def _early_end(fault: Fault, protocol: Protocol, page: Page) -> Page:
    return replace(page, token="")


def _miscount(fault: Fault, protocol: Protocol, page: Page) -> Page:
    return replace(page, size=page.size + fault.by)


def _expire_token(fault: Fault, protocol: Protocol, page: Page) -> Page:
    raise OaiError("badResumptionToken", "The resumption token has expired")


def _expiration_past(fault: Fault, protocol: Protocol, page: Page) -> Page:
    return replace(page, expires=protocol.records.earliest())


def _empty_page(fault: Fault, protocol: Protocol, page: Page) -> Page:
    # The next token means the same place in other letters, so that nothing is lost and nothing loops.
    offset = page.asked_token.rpartition("/")[2]
    return replace(page, records=[], token=page.selection.token(f"0{offset}"))


def _wrong_record(fault: Fault, protocol: Protocol, page: Page) -> Page:
    asked = page.records[0].book.identifier
    others = (book.identifier for book in protocol.records.books() if book.identifier != asked)
    other = protocol.records.get(next(others, asked))
    return replace(page, records=[other] if other else [])


PAGES: dict[str, Callable[[Fault, Protocol, Page], Page]] = {
    "loop": _loop,
    "repeat-page": _repeat_page,
    "early-end": _early_end,
    "miscount": _miscount,
    "expire-token": _expire_token,
    "expiration-past": _expiration_past,
    "empty-page": _empty_page,
    "wrong-record": _wrong_record,
}
NEEDS_TOKEN = {"loop", "repeat-page", "expire-token"}
NEEDS_LIST = PAGES.keys() - {"wrong-record"}


# --- changed bytes -----------------------------------------------------------------------------------

_ENTITIES = '<!ENTITY lol0 "lol">' + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10}">' for n in range(1, 10))


def _inside_text(body: bytes, junk: bytes) -> bytes:
    """The junk put at the start of the first title, or, where there is none, into the request's URL."""
    titled, found = re.subn(rb"(<\w+:title>)", lambda tag: tag[1] + junk, body, count=1)
    return titled if found else body.replace(b"</request>", junk + b"</request>", 1)


def _doctype(fault: Fault, body: bytes) -> bytes:
    declared = body.replace(b"?>", b"?><!DOCTYPE OAI-PMH [%s]>" % _ENTITIES.encode(), 1)
    return _inside_text(declared, b"&lol9;")


XML: dict[str, Callable[[Fault, bytes], bytes]] = {
    "truncate-body": lambda fault, body: body[: int(len(body) * fault.keep)],
    "whitespace": lambda fault, body: b"\n" + body,
    "illegal-char": lambda fault, body: _inside_text(body, b"\x0b&#x1;"),
    "bad-utf8": lambda fault, body: _inside_text(body, b"\xc3\x28\xff"),
    "bad-xml": lambda fault, body: body.replace(b"</OAI-PMH>", b"</OAI-PHM>"),
    "doctype": _doctype,
}


# --- a strange way of sending, and the list of all ---------------------------------------------------


def _drip(part: Any, fault: Fault, answer: Answer) -> Answer:
    end = math.inf if fault.end is None else fault.end
    return replace(answer, drip=part, interval=fault.interval, end=end)


SENDING: dict[str, Callable[[Fault, Answer], Answer]] = {
    "truncate": lambda fault, answer: replace(answer, keep=fault.keep),
    "drip-headers": partial(_drip, "headers"),
    "drip-body": partial(_drip, "body"),
}
KINDS = {*INSTEAD, *PAGES, *XML, *SENDING, "slow", "shift"}
