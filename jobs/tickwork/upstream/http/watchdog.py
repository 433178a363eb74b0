"""Ends requests in flight, at their total deadline or when the pass is asked to stop.

A server that drips a header or a body byte by byte keeps every read within its timeout, for ever. So a thread of ours
shuts the socket down from outside. What the reader then sees can look like an end in good order, so the flag `cut` must
be asked before the end of a body is believed (`body`), and a header must end with its empty line (`pinned_adapter`).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tickwork.contract.outcomes import Interrupted, Transient
from tickwork.contract.stop import Stop

_CLOSED = "the session was closed"


class Watch:
    """One request under watch; `deadline` is on the monotonic clock, `cut` says that its socket was shut down."""

    def __init__(self, url: str, seconds: float, stop: Stop) -> None:
        self._url = url
        self._seconds = seconds
        self._stop = stop
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.deadline = self._begun + seconds
        self.cut = False

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since the request began."""
        return time.monotonic() - self._begun

    def cover(self, connected: socket.socket) -> None:
        """Watch this socket from now on, through a duplicate: TLS and keep-alive may change or close the original."""
        with self._lock:
            self._release()
            self._socket = socket.socket(fileno=os.dup(connected.fileno()))
            if self.cut:
                self._shut_down()

    def check(self) -> None:
        """Raise Interrupted if a stop was requested or the session was closed, Transient if the deadline is over."""
        self._stop.check()
        if not self.remaining:
            raise Transient(f"{self._url} was not answered in full within {self._seconds:g} s")
        if self.cut:
            raise Interrupted(_CLOSED)

    def cut_off(self) -> None:
        """Shut the socket down, and any that is covered later."""
        with self._lock:
            self.cut = True
            self._shut_down()

    def release(self) -> None:
        """Let go of the socket: the request has ended."""
        with self._lock:
            self._release()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the other side was faster
                self._socket.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Watchdog:
    """One daemon thread that watches the requests of all threads of an Upstream; started by the first request."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._local = threading.local()

    @property
    def current(self) -> Watch:
        """The watch of the request that the calling thread is in."""
        watch: Watch = self._local.watch
        return watch

    @contextmanager
    def watch(self, url: str, seconds: float) -> Iterator[Watch]:
        """Watch the calling thread's request for `seconds`; `url` is named in messages.

        Raises Interrupted if a stop was requested or the session closed.
        """
        self.stop.check()
        watch = Watch(url, seconds, self.stop)
        self._local.watch = watch
        with self._lock:
            if self._closed:
                raise Interrupted(_CLOSED)
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            os.eventfd_write(self._wake, 1)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)
            watch.release()
            del self._local.watch

    def shorten(self, watch: Watch, seconds: float) -> None:
        """Leave the request only `seconds` more."""
        with self._lock:
            watch.deadline = min(watch.deadline, time.monotonic() + seconds)
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the thread and every request still in flight."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            with self._lock:
                over = self._closed or self.stop.requested
                for watch in self._watches:
                    if not watch.cut and (over or not watch.remaining):
                        watch.cut_off()
                if self._closed:
                    return
                timeout = min((watch.remaining for watch in self._watches if not watch.cut), default=None)
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            if not self.stop.requested:
                poll.register(self.stop.fileno(), select.POLLIN)
            poll.poll(None if timeout is None else timeout * 1000)
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
