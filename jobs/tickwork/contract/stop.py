"""One stop request a process: made by TERM or INT, watched by every wait of ours.

A wait that does not watch it makes the operator wait too, so sleeps, rate limits, lock waits and requests in flight
all do. It is an eventfd rather than a `threading.Event`: a signal handler may interrupt the main thread inside the
event's own lock, and setting it there would deadlock.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tickwork.contract.outcomes import Interrupted


class Stop:
    """A stop request that any thread can wait on; `reason` says who asked."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.reason = ""

    def __del__(self) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """Descriptor that becomes readable, for good, when a stop is requested."""
        return self._fd

    @property
    def requested(self) -> bool:
        """True once somebody asked to stop."""
        return bool(self.reason)

    def request(self, reason: str) -> None:
        """Ask everything that watches this stop to end soon; the first reason given is kept."""
        if not self.reason:
            self.reason = reason
            os.eventfd_write(self._fd, 1)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` (0 only looks); True if a stop was requested."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, or raise Interrupted as soon as a stop is requested."""
        if self.wait(seconds):
            raise Interrupted(self.reason)

    def check(self) -> None:
        """Raise Interrupted if a stop was requested."""
        if self.requested:
            raise Interrupted(self.reason)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn TERM, INT and HUP into a stop request while the block runs (main thread only)."""
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

        def handler(number: int, frame: FrameType | None) -> None:
            self.request(f"asked to stop by {signal.Signals(number).name}")

        before = {number: signal.signal(number, handler) for number in signals}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)
