"""HTTP messages of the fake network: requests as read, answers as sent, and the connection between."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import select
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

CODINGS = tuple(
    name
    for name, package in (("gzip", "zlib"), ("zstd", "zstandard"), ("br", "brotli"))
    if importlib.util.find_spec(package)
)
ERRORS = {
    "RepoNotFound": 400,
    "RepoTakendown": 400,
    "RepoSuspended": 400,
    "RepoDeactivated": 400,
    "InvalidRequest": 400,
    "AuthenticationRequired": 401,
    "InternalServerError": 500,
    "MethodNotImplemented": 501,
    "UpstreamFailure": 502,
}
"""The names of XRPC errors, and the status each comes with."""
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A request; header names are in lower case, `path` is decoded, `target` is as it was sent."""

    verb: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def arguments(self) -> list[tuple[str, str]]:
        """What the query says, in its order."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    def accepts(self, coding: str) -> bool:
        """Whether the client takes bodies encoded like this."""
        for part in self.headers.get("accept-encoding", "").split(","):
            name, _, weight = part.strip().partition(";")
            if name.strip().lower() == coding:
                return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
        return False


@dataclass(frozen=True)
class Answer:
    """An answer and how it is sent.

    `encoded` caches the encoded forms of the body; without it the body goes as it is. `codings` are what the server
    can do, in the order it likes. `keep` is the share of the encoded body sent: of a `stated` length that is a
    connection cut, else it passes for the whole. `stream` takes the body's place. `delivered` is called when all is
    sent. `instead` of an answer the connection may be reset, or hear nothing at all.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    encoded: dict[str, bytes] | None = None
    codings: tuple[str, ...] = ()
    chunked: bool = False
    keep: float | None = None
    stated: bool = True
    stream: Callable[[Line], Awaitable[None]] | None = None
    hold_until: float | None = None
    instead: Literal["", "reset", "silence"] = ""
    delivered: Callable[[], None] | None = None

    def in_coding(self, request: Request) -> tuple[str, bytes]:
        """The coding chosen for the client, empty for none, and the body in it."""
        coding = next((name for name in self.codings if request.accepts(name)), "")
        if not coding or self.encoded is None or not self.body:
            return "", self.body
        if coding not in self.encoded:
            self.encoded[coding] = encode(coding, self.body)
        return coding, self.encoded[coding]


def json_answer(value: Any, status: int = 200, **more: Any) -> Answer:
    """A value as JSON."""
    return Answer(status, json.dumps(value).encode(), **more)


def xrpc_error(name: str, message: str = "") -> Answer:
    """An error as XRPC has them."""
    return json_answer({"error": name, "message": message or f"this is {name}"}, ERRORS[name])


def encode(coding: str, body: bytes) -> bytes:
    """A body in a content coding."""
    if coding == "gzip":
        packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return packer.compress(body) + packer.flush()
    if coding == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(body)
    import brotli  # type: ignore[import-not-found,unused-ignore]

    return bytes(brotli.compress(body, quality=1))


class Line:
    """The connection to one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.sent = 0
        # So that draining means that the kernel has it all.
        writer.transport.set_write_buffer_limits(high=0)

    async def write(self, data: bytes) -> None:
        """Send bytes as fast as the client takes them. Raises ConnectionError once it has gone."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            self._writer.write(piece)
            self.sent += len(piece)
            await self._writer.drain()
            if len(piece) == _PIECE:
                await asyncio.sleep(0)  # draining alone lets nobody else on when the client is quick

    async def gone(self, within: float | None = None) -> bool:
        """Wait until the client hangs up; False if it has not after so many seconds."""
        try:
            # A client that sends on without waiting for its answer will not get one either.
            await asyncio.wait_for(self._reader.read(1), within)
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def hung_up(self) -> bool:
        """Whether the client has closed its end, even if this has not been read yet."""
        number = self._writer.get_extra_info("socket").fileno()
        if number < 0:
            return True
        poll = select.poll()
        poll.register(number, select.POLLRDHUP)
        return bool(poll.poll(0))

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def head_of(answer: Answer, coding: str, length: dict[str, str], stays: bool) -> bytes:
    """Status line and headers, with the empty line."""
    fields = {
        "Date": formatdate(usegmt=True),
        "Content-Type": answer.content_type,
        **({"Content-Encoding": coding} if coding else {}),
        **length,
        **answer.headers,
        **({} if stays else {"Connection": "close"}),
    }
    phrase = next((each.phrase for each in HTTPStatus if each == answer.status), "Unknown")
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def in_chunks(body: bytes, ended: bool) -> bytes:
    """A body in chunks; one that is not ended lacks the last."""
    pieces = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if ended else b"")


def parsed(head: bytes) -> Request:
    """A request from its head."""
    line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    verb, target, _ = [*line.split(" "), "", "", ""][:3]
    named = (text.partition(":") for text in fields)
    return Request(verb, target, {name.strip().lower(): value.strip() for name, _, value in named})
