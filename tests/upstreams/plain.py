"""A small HTTP(S) server that keeps the history of what it was asked, by its own clock, and does as it is told.

It knows nothing of the code under test: a test gives it a reply per path and asks it afterwards how it was treated.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    """One request as the server saw it; `end` is 0 while it is being answered. Times are seconds, monotonic."""

    path: str
    headers: dict[str, str]
    port: int
    sni: str
    start: float
    end: float = 0.0


class Handler(BaseHTTPRequestHandler):
    """The connection a reply writes to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    noted: Request

    def do_GET(self) -> None:
        plain = self.server.plain
        sni = getattr(self.connection, "asked_name", "")
        self.noted = request = Request(self.path, dict(self.headers), self.client_address[1], sni, time.monotonic())
        with plain.lock:
            plain.requests.append(request)
            plain.at_once += 1
            plain.most_at_once = max(plain.most_at_once, plain.at_once)
        try:
            plain.reply_to(self.path.partition("?")[0])(self)
        except OSError:
            self.close_connection = True
        finally:
            self.ended()

    def ended(self) -> None:
        """Note the end of this request, once."""
        with self.server.plain.lock:
            if not self.noted.end:
                self.noted.end = time.monotonic()
                self.server.plain.at_once -= 1

    def send(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """One whole answer; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        # Noted before the last byte leaves: the client may be back before this thread runs again.
        self.ended()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """Bytes as they are, after which the connection closes."""
        self.close_connection = True
        self.wfile.write(data)
        self.wfile.flush()

    def drip(self, data: bytes, every: float, times: int = 10_000) -> None:
        """`data` again and again, every so many seconds, until the other side has gone."""
        self.close_connection = True
        for _ in range(times):
            self.wfile.write(data)
            self.wfile.flush()
            if self.server.plain.closing.wait(every):
                return

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


Reply = Callable[[Handler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    plain: Plain

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error of a test."""


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Reply:
    """A reply with one whole answer."""
    return lambda handler: handler.send(status, body, **headers)


def raw(data: bytes) -> Reply:
    """A reply of these bytes, then the end of the connection."""
    return lambda handler: handler.raw(data)


def dripping(head: bytes, drop: bytes, every: float = 0.05) -> Reply:
    """A reply that begins with `head` and then never ends."""

    def reply(handler: Handler) -> None:
        handler.raw(head)
        handler.drip(drop, every)

    return reply


@dataclass
class Plain:
    """The server; use as a context manager. `replies` is by path, everything else gets 404."""

    replies: dict[str, Reply] = field(default_factory=dict)
    certificate: tuple[str, str] | None = None
    requests: list[Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def reply_to(self, path: str) -> Reply:
        return self.replies.get(path, answer(404, b"no such path"))

    def __enter__(self) -> Plain:
        self._server = _Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.plain = self
        self._server.request_queue_size = 128
        self._server.server_bind()
        self._server.server_activate()
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            context.sni_callback = lambda sock, name, _: setattr(sock, "asked_name", name or "")
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        """What was asked for, in the order of arrival."""
        return [request.path for request in self.requests]

    def silences(self) -> list[float]:
        """Seconds between the end of each request and the start of the next."""
        ordered = sorted(self.requests, key=lambda request: request.start)
        return [after.start - before.end for before, after in itertools.pairwise(ordered)]


class Deaf:
    """A port that takes connections into its backlog and never answers; use as a context manager."""

    def __enter__(self) -> Deaf:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(8)
        self.port = self._socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
