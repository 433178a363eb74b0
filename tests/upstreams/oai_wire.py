"""The HTTP side: reads requests, times them, sends answers whole, cut, dripped or not at all."""

import gzip
import math
import os
import select
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

from tests.upstreams.oai_history import JUDGED_HEADERS, Moment, Recorder, Seen

CONTROL = "/-/"
_POLL_MILLISECONDS = 50
_LAST_BYTES = 4096
_FILLER_HEADER = b"X-Drip: drip\r\n"


class ClientGone(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """The client has hung up (or this server is closing), so nothing more need be sent."""


@dataclass(frozen=True)
class Request:
    """A request as the protocol and the faults see it."""

    method: str
    path: str
    arguments: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def params(self) -> dict[str, str]:
        """The arguments, of repeated ones the last."""
        return dict(self.arguments)


@dataclass(frozen=True)
class Answer:
    """A response and how it is to be sent.

    `keep` is the fraction of the body sent before the connection is cut; `drip` names the part sent byte
    by byte, `interval` seconds apart, for `end` seconds, after which the rest follows at once.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/xml;charset=UTF-8"
    headers: dict[str, str] = field(default_factory=dict)
    hold_until: float | None = None
    keep: float | None = None
    drip: Literal["headers", "body"] | None = None
    interval: float = 0.05
    end: float = math.inf
    reset: bool = False

    def gzipped(self) -> "Answer":
        """The answer with its body compressed, unless it is encoded already."""
        if "Content-Encoding" in self.headers or not self.body:
            return self
        headers = {**self.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return replace(self, body=gzip.compress(self.body, compresslevel=1), headers=headers)

    def head(self, date: str, close: bool) -> bytes:
        """Status line and headers, with the empty line."""
        fields = {
            "Date": date,
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            **self.headers,
            **({"Connection": "close"} if close else {}),
        }
        reason = BaseHTTPRequestHandler.responses.get(self.status, ("Unknown", ""))[0]
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Line:
    """The connection to one client, which notices when the client hangs up."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self._connection = connection
        self._closing = closing
        self.sent = 0

    def hung_up(self) -> bool:
        """Whether the client has closed its end (be it only its sending half) or died."""
        return self._hung_up_within(0)

    def wait(self, seconds: float) -> None:
        """Sleep, but raise ClientGone the moment the client hangs up."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._hung_up_within(min(_POLL_MILLISECONDS, left * 1000)) or self._closing.is_set():
                raise ClientGone

    def send(self, data: bytes) -> None:
        """Send all of it, counting bytes; ClientGone if the client no longer takes them."""
        view = memoryview(data)
        try:
            while view:
                count = self._connection.send(view)
                self.sent += count
                view = view[count:]
        except OSError:
            raise ClientGone from None

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # A plain close would wait for the reading file over the same socket.
        os.close(self._connection.detach())

    def _hung_up_within(self, milliseconds: float) -> bool:
        # A poll object serves one thread at a time, and the recorder asks from the threads of others.
        poll = select.poll()
        # POLLRDHUP tells of a FIN even while unread, pipelined bytes wait before it.
        poll.register(self._connection, select.POLLRDHUP)
        return bool(poll.poll(milliseconds))


class Service(Protocol):
    """What the HTTP side asks of the server behind it."""

    recorder: Recorder

    def reply(self, request: Request, seen: Seen, line: Line) -> Answer:
        """The answer to a client's request."""

    def control(self, request: Request) -> Answer:
        """The answer to a request under CONTROL, which leaves no trace in the history."""


class HttpServer(ThreadingHTTPServer):
    """The threads behind one port; `stop` also ends the requests in flight."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, service: Service) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.service = service
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, and let the requests in flight reach the history."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            _shut_down(connection)
        self.server_close()
        patience = time.monotonic() + 2
        while self._connections and time.monotonic() < patience:
            time.sleep(0.005)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report our own errors only: clients here are killed on purpose."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Connection(BaseHTTPRequestHandler):
    """One client's connection, kept alive over its requests."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the end of an answer travels alone

    def setup(self) -> None:
        super().setup()
        self.line = Line(self.connection, self.server.closing)

    def handle_one_request(self) -> None:
        """Wait for a first byte, then read, record and answer one request."""
        try:
            begun = bool(self.rfile.peek(1))
            at = Moment.now()
            self.raw_requestline = self.rfile.readline(65537) if begun else b""
        except OSError:
            self.raw_requestline = b""
        self.close_connection = True
        if not self.raw_requestline:
            return
        if f" {CONTROL}".encode() in self.raw_requestline:
            self._control()
        else:
            self._recorded(at)

    def log_message(self, *args: Any) -> None:
        """Keep quiet; the history tells more."""

    def _control(self) -> None:
        request = self._read_request()
        with suppress(ClientGone):
            if request:
                self.line.send(self._whole(self.server.service.control(request)))

    def _recorded(self, at: Moment) -> None:
        recorder = self.server.service.recorder
        seen = recorder.begin(at, self.client_address[1], self.line.hung_up)
        self.line.sent = 0
        try:
            request = self._read_request(seen)
            # Headers cut short by a dying client can look complete; nobody waits for that answer.
            if self.line.hung_up():
                raise ClientGone
            if request is None:
                seen.status = HTTPStatus.BAD_REQUEST
            else:
                self._send(self.server.service.reply(request, seen, self.line), request, seen)
        except (ClientGone, OSError):
            self.close_connection = True
            seen.hold_until = seen.hold_until if self.line.sent else None
            recorder.end(seen, gone=True)
        finally:
            seen.bytes_sent = self.line.sent
            recorder.close_request(seen)

    def _read_request(self, seen: Seen | None = None) -> Request | None:
        if not self.parse_request():
            return None
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        form = self.headers.get_content_type() == "application/x-www-form-urlencoded"
        query = url.query + "&" * bool(url.query and form) + (body.decode("latin-1") if form else "")
        arguments = parse_qsl(query, keep_blank_values=True)
        if seen:
            seen.method, seen.path, seen.params = self.command, self.path, dict(arguments)
            seen.verb = seen.params.get("verb")
            seen.headers = {name: self.headers[name] for name in JUDGED_HEADERS if name in self.headers}
        return Request(self.command, url.path, arguments, dict(self.headers.items()), body)

    def _send(self, answer: Answer, request: Request, seen: Seen) -> None:
        if self.line.hung_up():
            raise ClientGone
        if answer.reset:
            self.close_connection = True
            self.server.service.recorder.end(seen)
            self.line.reset()
            return
        if _accepts_gzip(request.headers.get("Accept-Encoding", "")):
            answer = answer.gzipped()
        # A HEAD is refused with a body, which its client would take for the start of the next answer.
        self.close_connection |= answer.keep is not None or request.method == "HEAD"
        seen.status = answer.status
        rest = self._dripped(answer) if answer.drip else self._whole(answer)
        # Once the last bytes are out the client may act on them sooner than this thread goes on. So the
        # request ends, for the history, just before; and a short answer, on whose headers alone a client
        # may act, leaves in one piece.
        self.line.send(rest[:-_LAST_BYTES])
        seen.hold_until = answer.hold_until
        seen.bytes_sent = self.line.sent + len(rest[-_LAST_BYTES:])
        self.server.service.recorder.end(seen)
        self.line.send(rest[-_LAST_BYTES:])

    def _whole(self, answer: Answer) -> bytes:
        kept = answer.body if answer.keep is None else answer.body[: int(len(answer.body) * answer.keep)]
        return self._head(answer) + kept

    def _head(self, answer: Answer) -> bytes:
        # A cut answer must not announce its end.
        return answer.head(self.date_time_string(), self.close_connection and answer.keep is None)

    def _dripped(self, answer: Answer) -> bytes:
        """Send slowly until `end`; returns what is left to be sent at once."""
        head = self._head(answer)
        stop = time.monotonic() + answer.end
        if answer.drip == "body":
            self.line.send(head)
            position = self._drip(answer.body, b"", answer.interval, stop)
            return answer.body[position:]
        slow = head.removesuffix(b"\r\n")
        position = self._drip(slow, _FILLER_HEADER, answer.interval, stop)
        begun = (position - len(slow)) % len(_FILLER_HEADER) if position > len(slow) else 0
        rest_of_filler = _FILLER_HEADER[begun:] if begun else b""
        return slow[position:] + rest_of_filler + b"\r\n" + answer.body

    def _drip(self, data: bytes, filler: bytes, interval: float, stop: float) -> int:
        """Send `data`, then `filler` over and over, a byte at a time; returns how many bytes went out."""
        position = 0
        while time.monotonic() < stop and (filler or position < len(data)):
            beyond = position - len(data)
            self.line.send(filler[beyond % len(filler) :][:1] if beyond >= 0 else data[position : position + 1])
            position += 1
            self.line.wait(interval)
        return position


def _accepts_gzip(accepted: str) -> bool:
    choices = {name.strip(): weight.strip() for name, _, weight in (c.partition(";") for c in accepted.split(","))}
    return "gzip" in choices and choices["gzip"].replace(" ", "") not in ("q=0", "q=0.0")


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # its client may have been quicker
        connection.shutdown(socket.SHUT_RDWR)
