"""An independent judge of overlap: it knows a process runs from its connection, and its death from the EOF.

A client connects and sends one line, `PASS ROLE PID`. The kernel closes the connection of a killed process, so
nothing depends on the client's good will, nor on the locks and ledgers that are to be judged.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from dataclasses import dataclass

from tests.kits.patience import until


@dataclass
class Seen:
    """One client: what it said of itself, and when it was there."""

    run: str
    role: str
    pid: int
    began: float
    ended: float = math.inf


class Oracle:
    """A loopback server that keeps one `Seen` a client; use as a context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: dict[int, tuple[socket.socket, bytes, Seen | None]] = {}
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()
        for line, _, _ in self._open.values():
            line.close()

    def seen(self) -> list[Seen]:
        """Every client so far, in the order in which they came."""
        with self._lock:
            return list(self._seen)

    def alive(self, role: str = "") -> list[Seen]:
        """The clients that are connected now, of one role or of any."""
        return [seen for seen in self.seen() if seen.ended == math.inf and role in ("", seen.role)]

    def overlaps(self) -> list[tuple[Seen, Seen]]:
        """Pairs of clients of different passes that were there at the same time."""
        seen = self.seen()
        return [
            (one, other)
            for index, one in enumerate(seen)
            for other in seen[index + 1 :]
            if one.run != other.run and one.began < other.ended and other.began < one.ended
        ]

    def wait_for(self, role: str) -> Seen:
        """The first connected client of `role`, as soon as there is one."""
        until(lambda: self.alive(role), f"no {role} came")
        return self.alive(role)[0]

    def wait_until_alone(self) -> None:
        """Return when nobody is connected."""
        until(lambda: not self.alive(), "somebody is still there")

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not self._over.is_set():
            ready = {number for number, _ in poll.poll(50)}
            # Ends before beginnings: a client that came after another had gone must not be seen beside it.
            with self._lock:
                for number in sorted(ready - {self._listener.fileno()}):
                    if not self._read(number):
                        poll.unregister(number)
                        self._open.pop(number)[0].close()
                if self._listener.fileno() in ready and not self._hung_up():
                    line, _ = self._listener.accept()
                    line.setblocking(False)
                    self._open[line.fileno()] = (line, b"", None)
                    poll.register(line, select.POLLIN)

    def _hung_up(self) -> bool:
        """Whether a client has gone that was not noticed yet; it is, before anybody is let in."""
        for line, _, _ in self._open.values():
            with contextlib.suppress(BlockingIOError):
                try:
                    if not line.recv(1, socket.MSG_PEEK):
                        return True
                except ConnectionError:
                    return True
        return False

    def _read(self, number: int) -> bool:
        line, before, seen = self._open[number]
        try:
            data = line.recv(1024)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        if not data:
            if seen:
                seen.ended = time.monotonic()
            return False
        words = (before + data).split(b"\n")[0].decode().split()
        if seen is None and b"\n" in before + data:
            seen = Seen(words[0], words[1], int(words[2]), time.monotonic())
            self._seen.append(seen)
        self._open[number] = (line, before + data, seen)
        return True
