"""However slowly a server drips, a request ends at its total deadline, and at once when a stop is requested."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.upstreams.plain import Deaf, Handler, Plain, answer, dripping
from tickwork.contract.outcomes import Interrupted, Transient
from tickwork.contract.stop import Stop
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.http.watchdog import Watchdog
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Slots

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
# Every way to keep a reader waiting; a cut header with a complete status line is the one that looks like an answer.
DRIPS = {
    "header": dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every=0.03),
    "status": dripping(b"HTTP/1.1 2", b"0"),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x"),
    "endless-body": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "chunks": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "redirect": dripping(b"HTTP/1.1 302 Found\r\nLocation: /a", b"a"),
    "error-page": dripping(b"HTTP/1.1 404 No\r\nContent-Type: text/html\r\n\r\n", b"x"),
    "silence": dripping(b"", b""),
}


@pytest.fixture
def server() -> Iterator[Plain]:
    with Plain({f"/{name}": reply for name, reply in DRIPS.items()}) as running:
        running.replies["/"] = answer(200, b"x")
        yield running


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Slots]:
    with Slots(tmp_path / "slots.db") as opened:
        yield opened


def session(slots: Slots, stop: Stop, guard: Guard | None = None, **changes: Any) -> Upstream:
    policy = Policy(**{"interval_seconds": 0.0, "retries": 2, "total_seconds": 200, "read_seconds": 200, **changes})
    return Upstream(
        "repo", slots=slots, guard=guard or Guard([LOOPBACK]), stop=stop, contact="https://c.example", policy=policy
    )


@pytest.mark.parametrize("name", [name for name in DRIPS if name != "error-page"])
def test_a_drip_ends_at_the_total_deadline(server: Plain, slots: Slots, name: str, tmp_path: Path) -> None:
    kept = name in ("header", "body")  # over a connection that an earlier request has left open
    with session(slots, Stop(), total_seconds=0.3) as upstream:
        if kept:
            upstream.get(server.url())
        begun = time.monotonic()
        with pytest.raises(Transient, match=r"not answered in full within 0\.3 s"):
            upstream.get(server.url(f"/{name}"), into=tmp_path / "body")
        assert 0.25 < time.monotonic() - begun < PATIENCE_SECONDS
    assert not (tmp_path / "body").exists()
    assert server.paths() == (["/"] if kept else []) + [f"/{name}"], "a request past its deadline was retried"
    assert slots.report(1)[0].faults == 1


def test_the_text_of_a_dripped_error_page_ends_at_the_deadline_too(server: Plain, slots: Slots) -> None:
    with session(slots, Stop(), total_seconds=0.4) as upstream:
        begun = time.monotonic()
        with pytest.raises(Exception, match="404"):
            upstream.get(server.url("/error-page"))
        assert time.monotonic() - begun < PATIENCE_SECONDS


def test_the_page_of_a_dripped_refusal_keeps_nobody_waiting(server: Plain, slots: Slots) -> None:
    server.replies["/"] = dripping(b"HTTP/1.1 429 No\r\nContent-Type: text/html\r\nRetry-After: 60\r\n\r\n", b"x")
    with session(slots, Stop()) as upstream:
        begun = time.monotonic()
        with pytest.raises(Exception, match="on hold"):
            upstream.get(server.url())
        assert time.monotonic() - begun < PATIENCE_SECONDS


@pytest.mark.slow
def test_a_stop_is_obeyed_within_half_a_second(server: Plain, slots: Slots) -> None:
    lasted = []
    for name in DRIPS:
        stop = Stop()
        with session(slots, stop) as upstream:
            threading.Timer(0.1, stop.request, ["TERM"]).start()
            begun = time.monotonic()
            with pytest.raises(Interrupted):
                upstream.get(server.url(f"/{name}"))
            lasted.append(time.monotonic() - begun - 0.1)
    assert median(lasted) < 0.5, lasted  # a busy machine keeps one or another of them waiting


@pytest.mark.parametrize("name", [*DRIPS, "kept"])
def test_a_stop_ends_a_drip_at_once(server: Plain, slots: Slots, name: str) -> None:
    stop = Stop()
    with session(slots, stop) as upstream:
        if name == "kept":
            upstream.get(server.url())
            name = "header"
        begun = time.monotonic()
        threading.Timer(0.2, stop.request, ["asked to stop by SIGTERM"]).start()
        with pytest.raises(Interrupted, match="SIGTERM"):
            upstream.get(server.url(f"/{name}"))
        assert time.monotonic() - begun < PATIENCE_SECONDS
    assert slots.report(1)[0].faults == 0, "a stop is no fault of the server"


def test_a_stop_ends_a_wait_for_the_slot_a_look_up_a_connection_and_a_handshake(server: Plain, slots: Slots) -> None:
    released = threading.Event()
    with Deaf() as deaf:
        full = [socket.socket() for _ in range(20)]
        for one in full:  # the backlog is filled, so that a connection hangs
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", deaf.port))

        def stuck(host: str, port: int) -> list[str]:
            released.wait(5 * PATIENCE_SECONDS)
            return []

        slots.claim(f"127.0.0.1:{server.port}", Policy(interval_seconds=1000), 1000)
        for url, guard in (
            (server.url(), None),
            (server.url(host="slow.test"), Guard([LOOPBACK], resolve=stuck)),
            (f"http://127.0.0.1:{deaf.port}/", None),
            (f"https://127.0.0.1:{deaf.port}/", None),
        ):
            stop = Stop()
            with session(slots, stop, guard) as upstream:
                begun = time.monotonic()
                threading.Timer(0.1, stop.request, ["TERM"]).start()
                with pytest.raises(Interrupted):
                    upstream.get(url)
                assert time.monotonic() - begun < PATIENCE_SECONDS, url
        released.set()
        for one in full:
            one.close()
    assert server.requests == []


def test_a_stop_ends_a_tls_handshake_that_is_never_answered(slots: Slots) -> None:
    stop = Stop()
    with Deaf() as deaf, session(slots, stop) as upstream:
        begun = time.monotonic()
        threading.Timer(0.2, stop.request, ["TERM"]).start()
        with pytest.raises(Interrupted):
            upstream.get(f"https://127.0.0.1:{deaf.port}/")
        assert 0.15 < time.monotonic() - begun < PATIENCE_SECONDS


def test_a_connection_that_is_never_made_ends_at_the_connect_timeout(slots: Slots) -> None:
    with Deaf() as deaf, session(slots, Stop(), connect_seconds=0.2, retries=1) as upstream:
        full = [socket.socket() for _ in range(20)]
        for one in full:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", deaf.port))
        begun = time.monotonic()
        with pytest.raises(Transient, match="failed 2 times, the last: TimeoutError"):
            upstream.get(f"http://127.0.0.1:{deaf.port}/")
        assert time.monotonic() - begun < PATIENCE_SECONDS
        for one in full:
            one.close()


def test_a_silence_ends_at_the_read_timeout(server: Plain, slots: Slots) -> None:
    with session(slots, Stop(), read_seconds=0.2, retries=0) as upstream:
        begun = time.monotonic()
        with pytest.raises(Transient, match="timed out"):
            upstream.get(server.url("/silence"))
        assert time.monotonic() - begun < PATIENCE_SECONDS


def test_the_deadline_of_one_thread_leaves_the_others_alone(server: Plain, slots: Slots) -> None:
    def late(handler: Handler) -> None:
        other_is_over.wait(PATIENCE_SECONDS)
        handler.send(200, b"late")

    server.replies["/late"] = late
    other_is_over = threading.Event()
    got: list[bytes] = []
    with session(slots, Stop(), concurrency=2) as upstream:
        thread = threading.Thread(target=lambda: got.append(upstream.get(server.url("/late")).content))
        thread.start()
        with pytest.raises(Transient):
            session(slots, Stop(), concurrency=2, total_seconds=0.3).get(server.url("/body"))
        other_is_over.set()
        thread.join()
    assert got == [b"late"]


def test_closing_ends_the_requests_of_other_threads(server: Plain, slots: Slots) -> None:
    ends: list[BaseException] = []

    def fetch(upstream: Upstream) -> None:
        try:
            upstream.get(server.url("/body"))
        except Interrupted as end:
            ends.append(end)

    with session(slots, Stop()) as upstream:
        thread = threading.Thread(target=fetch, args=(upstream,))
        thread.start()
        until(lambda: server.requests)
    thread.join(PATIENCE_SECONDS)
    assert [str(end) for end in ends] == ["the session was closed"]


def test_closing_leaves_no_thread_and_no_file_open(server: Plain, slots: Slots) -> None:
    def ours() -> tuple[int, int]:
        """Watchdogs, and open files other than those of the server in this process."""
        sockets = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208
        links = [str(link.readlink()) for link in sockets if link.is_symlink()]
        return sum(thread.name == "watchdog" for thread in threading.enumerate()), len(links)

    stop = Stop()

    def two_sessions() -> None:
        with session(slots, stop) as upstream:
            upstream.get(server.url())
            with session(slots, stop, total_seconds=0.1) as cut, pytest.raises(Transient):
                cut.get(server.url("/body"))
        gc.collect()

    two_sessions()  # and what is opened once
    before = ours()
    for _ in range(4):
        two_sessions()
    until(lambda: ours() <= before, ours)  # the server's side of the connections takes its time


def test_a_socket_covered_after_the_cut_is_shut_down_as_well() -> None:
    dog = Watchdog(Stop())
    ours, theirs = socket.socketpair()
    with dog.watch("http://x.example/", 0.01) as watch:
        until(lambda: watch.cut)
        watch.cover(ours)
        assert theirs.recv(1) == b""
        with pytest.raises(Transient, match=r"http://x\.example/"):
            watch.check()
    dog.close()
    ours.close()
    theirs.close()


def test_term_ends_a_process_inside_a_dripping_request(server: Plain, tmp_path: Path) -> None:
    script = f"""
import ipaddress, sys
from pathlib import Path
from tickwork.contract.outcomes import Interrupted
from tickwork.contract.stop import Stop
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.slots import Slots
stop = Stop()
guard = Guard([ipaddress.ip_network("127.0.0.0/8")])
with stop.on_signals(), Slots(Path({str(tmp_path / "slots.db")!r})) as slots:
    try:
        Upstream("repo", slots=slots, guard=guard, stop=stop, contact="c").get({server.url("/header")!r})
    except Interrupted as end:
        sys.exit(str(end))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    until(lambda: server.requests)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - begun < PATIENCE_SECONDS
    assert said == "asked to stop by SIGTERM\n"
