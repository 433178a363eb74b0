"""Polite HTTP towards one remote service: every request has a slot, a judged address and a deadline.

Nobody's server hears from us inside a hold, faster than its rate or more at once than its policy says; the slots
database holds all processes of the machine to that.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from tickwork import __version__
from tickwork.contract import times
from tickwork.contract.outcomes import Held, Transient
from tickwork.contract.stop import Stop
from tickwork.upstream.hosts import DEFAULT_PORTS, HostKey, host_key
from tickwork.upstream.http.body import Body
from tickwork.upstream.http.challenge import is_challenge, is_html
from tickwork.upstream.http.content_encoding import ACCEPT_ENCODING
from tickwork.upstream.http.errors import (
    Forbidden,
    Incomplete,
    ServerFault,
    TooLarge,
    Undecodable,
    UnexpectedStatus,
    UnsafeUrl,
    shown,
)
from tickwork.upstream.http.guard import Guard, Target
from tickwork.upstream.http.pinned_adapter import PinnedAdapter
from tickwork.upstream.http.response import Response, readable, root_cause
from tickwork.upstream.http.retry_after import MIN_HOLD_SECONDS, told_to_wait
from tickwork.upstream.http.watchdog import Watch, Watchdog
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Flight, Slots

AGENT = f"tickwork/{__version__}"
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_SAME_HOST_ONLY = ("authorization", "cookie", "proxy-authorization")
_EXCERPT_BYTES = 16 * 1024
# A lease outlives its request's deadline by this much, so that it never ends before the request does.
_LEASE_MARGIN_SECONDS = 30.0
# All the ways in which a connection can fail us; worth another try at once.
_FAULTS = (requests.RequestException, HTTPError, OSError, Incomplete)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller takes for an answer, and where its body goes."""

    into: Path | None
    statuses: frozenset[int]
    max_bytes: int


@dataclass(slots=True)
class _Tally:
    """What is known of a request so far, to settle its flight with."""

    flight: Flight
    status: int = 0
    bytes: int = 0
    told: dt.datetime | None = None
    fault: bool = False
    settled: bool = False


class Upstream:
    """The session with one remote service, or with one kind of them; usable from many threads.

    `name` is for messages. `contact` is the URL in the User-Agent, `mail` the address in From. `ca_bundle` is a PEM
    file to trust instead of the public authorities. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: Slots,
        guard: Guard,
        stop: Stop,
        contact: str,
        policy: Policy | None = None,
        agent: str = AGENT,
        mail: str = "",
        ca_bundle: Path | None = None,
    ) -> None:
        self.name = name
        self.policy = policy or Policy()
        self._slots = slots
        self._guard = guard
        self._stop = stop
        self._headers = {"User-Agent": f"{agent} (+{contact})", "Accept-Encoding": ACCEPT_ENCODING}
        if mail:
            self._headers["From"] = mail
        self._watchdog = Watchdog(stop)
        self._adapter = PinnedAdapter(guard, self._watchdog, per_host=self.policy.concurrency, ca_bundle=ca_bundle)

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, those of requests still in flight as well."""
        self._watchdog.close()
        self._adapter.close()

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: str = "*/*",
        into: Path | None = None,
        ok_statuses: Collection[int] = (200,),
        max_bytes: int | None = None,
    ) -> Response:
        """Get `url`, following redirects; the body goes to the file `into` if that is given.

        Waits for the slot, then sends. `max_bytes` replaces the policy's cap on the body, as sent and as decoded.

        Raises Held (on hold, or told so by a 429 or 503), ServerFault (other 5xx) and Transient (connection faults
        after the policy's retries, deadlines, unreadable bodies), Interrupted (stop), Forbidden, UnexpectedStatus,
        TooLarge, UnsafeUrl, and OperatorError (the slots database or `into` cannot be written: nothing more is sent).
        """
        target = self._guard.check_url(_with_params(url, params))
        sent = {**self._headers, "Accept": accept, **(headers or {})}
        wanted = _Wanted(into, frozenset(ok_statuses), max_bytes or self.policy.max_bytes)
        seen = {target.url}
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get_with_retries(_prepare(target, sent), target, wanted)
            if isinstance(answer, Response):
                return answer
            if answer.url in seen:
                raise UnexpectedStatus(f"{shown(url)} is redirected in a loop, to {shown(answer.url)}", 302)
            if answer.key != target.key:
                sent = {name: value for name, value in sent.items() if name.lower() not in _SAME_HOST_ONLY}
            seen.add(answer.url)
            target = answer
        raise UnexpectedStatus(f"{shown(url)} is redirected more than {MAX_REDIRECTS} times", 302)

    def hold_for(self, host_or_url: str, until: dt.datetime, why: str) -> Held:
        """Place a hold that was learnt of otherwise, from a body for example; gives the hold in force, to raise.

        `host_or_url` is a URL or `hostname[:port]`, `until` is aware. A longer hold stays. Raises InvalidHostError.
        """
        return self._slots.hold(host_key(host_or_url), until, why, max_hold_seconds=self.policy.max_hold_seconds)

    def _get_with_retries(
        self, request: requests.PreparedRequest, target: Target, wanted: _Wanted
    ) -> Response | Target:
        """One hop: the answer, or the target of a redirect. Every attempt takes a slot of its own."""
        for attempt in range(1, self.policy.retries + 2):
            try:
                return self._attempt(request, target, wanted)
            except _FAULTS as error:
                if attempt > self.policy.retries:
                    tries = f"{attempt} times, the last: " if attempt > 1 else ""
                    raise Transient(f"{shown(target.url)} failed {tries}{root_cause(error)}") from error
            except Undecodable as error:
                raise Transient(f"{shown(target.url)} cannot be read: {error}") from error
            except TooLarge as error:
                raise TooLarge(f"{shown(target.url)} is too large: {error}") from error
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, request: requests.PreparedRequest, target: Target, wanted: _Wanted) -> Response | Target:
        """Take a slot, send once, settle."""
        tally = _Tally(self._claim(target.key))
        try:
            with self._watchdog.watch(shown(target.url), self.policy.total_seconds) as watch:
                try:
                    with self._sent(request) as response:
                        return self._judge(response, target, wanted, watch, tally)
                except _FAULTS:
                    tally.fault = not self._stop.requested
                    watch.check()  # a socket that we shut down fails in any of these ways
                    raise
        finally:
            if not tally.settled:
                self._settle(tally)

    def _claim(self, host: HostKey) -> Flight:
        """Wait for a slot; raises Held and Interrupted."""
        while True:
            self._stop.check()
            slot = self._slots.claim(host, self.policy, self.policy.total_seconds + _LEASE_MARGIN_SECONDS)
            if isinstance(slot, Flight):
                return slot
            self._stop.sleep(slot)

    def _settle(self, tally: _Tally) -> Held | None:
        tally.settled = True
        return self._slots.settle(
            tally.flight,
            bytes=tally.bytes,
            status=tally.status,
            hold_until=tally.told,
            why=f"answered {tally.status}" + (" and named the time" if tally.told else ""),
            fault=tally.fault,
        )

    @contextmanager
    def _sent(self, request: requests.PreparedRequest) -> Iterator[requests.Response]:
        """Send, and give the answer with its body still to be read; what is not read is closed."""
        # Not through a requests.Session: that reads the body of a redirect whole and decoded, and keeps cookies.
        response = self._adapter.send(
            request, stream=True, timeout=(self.policy.connect_seconds, self.policy.read_seconds)
        )
        try:
            yield response
        finally:
            response.close()

    def _judge(
        self, response: requests.Response, target: Target, wanted: _Wanted, watch: Watch, tally: _Tally
    ) -> Response | Target:
        """What the answer means to us; reads its body as far as that takes."""
        status, headers = response.status_code, response.headers
        tally.status = status
        tally.told = told_to_wait(headers, status, times.now(), self.policy.max_hold_seconds)
        if status in (429, 503):
            # First of all the hold is written, so that being killed now loses nothing. It lasts a second at least,
            # within which this request is over.
            held = self._settle(tally)
            self._watchdog.shorten(watch, MIN_HOLD_SECONDS)
            self._refuse_challenge(target, status, headers, _excerpt(response, watch) if is_html(headers) else b"")
            assert held is not None
            held.answered = True
            raise held
        self._refuse_challenge(target, status, headers, b"")
        if status in wanted.statuses:
            return self._answer(response, target, wanted, watch, tally)
        if status in _REDIRECTS and "Location" in headers:
            return self._redirected(target, headers["Location"])
        excerpt = _excerpt(response, watch)
        self._stop.check()
        self._refuse_challenge(target, status, headers, excerpt)
        message = f"{shown(target.url)} answered {status}: {readable(excerpt)}"
        if status == 403:
            raise Forbidden(message, status, challenge=False)
        if status >= 500:
            raise ServerFault(message, status)
        raise UnexpectedStatus(message, status)

    def _answer(
        self, response: requests.Response, target: Target, wanted: _Wanted, watch: Watch, tally: _Tally
    ) -> Response:
        body = Body(response.raw, response.headers, wanted.max_bytes, lambda: watch.cut)
        content = b""
        try:
            if wanted.into is None:
                content = body.read()
            else:
                body.save(wanted.into)
        finally:
            tally.bytes = body.wire_bytes
        return Response(
            url=target.url,
            status=response.status_code,
            headers=response.headers,
            content=content,
            path=wanted.into,
            elapsed=watch.elapsed,
            bytes=body.wire_bytes,
        )

    def _redirected(self, target: Target, location: str) -> Target:
        # A header arrives as Latin-1, and servers that do not escape mean UTF-8.
        location = location.encode("latin-1").decode("utf-8", errors="replace")
        try:
            joined = urldefrag(urljoin(target.url, location)).url
        except ValueError as error:
            raise UnsafeUrl(location, f"{shown(target.url)} redirects there: {error}") from error
        new = self._guard.check_url(joined)
        if target.scheme == "https" and new.scheme != "https":
            raise UnsafeUrl(new.url, f"{shown(target.url)} redirects from https to http")
        return new

    def _refuse_challenge(self, target: Target, status: int, headers: Mapping[str, str], excerpt: bytes) -> None:
        if is_challenge(status, headers, excerpt):
            raise Forbidden(
                f"{shown(target.url)} answered {status} with a bot-challenge page: ask the operator of "
                f"{target.key} to let {self._headers['User-Agent']!r} in",
                status,
                challenge=True,
            )


def _prepare(target: Target, headers: Mapping[str, str]) -> requests.PreparedRequest:
    """The request as the library will send it; raises UnsafeUrl if the library reads the URL otherwise than we do."""
    try:
        request = requests.Request("GET", target.url, headers=dict(headers)).prepare()
        parts = urlsplit(request.url or "")
        if (parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)) != (
            target.scheme,
            target.host,
            target.port,
        ):
            raise UnsafeUrl(target.url, "it can be read in two ways")
    except (requests.exceptions.InvalidURL, UnicodeError) as error:
        raise UnsafeUrl(target.url, str(error)) from error
    return request


def _with_params(url: str, params: Mapping[str, str] | None) -> str:
    if not params:
        return url
    url, _, _ = url.partition("#")
    return f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"


def _excerpt(response: requests.Response, watch: Watch) -> bytes:
    """The beginning of the decoded body, as far as it can be had: it only serves a message."""
    taken = b""
    with suppress(Incomplete, Undecodable):
        # No cap: the page may be of any size, we only look at its beginning.
        for piece in Body(response.raw, response.headers, sys.maxsize, lambda: watch.cut):
            taken += piece
            if len(taken) >= _EXCERPT_BYTES:
                break
    return taken
