"""A plain client of the fake network, for the tests of the fake itself."""

from __future__ import annotations

import http.client
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.kits.patience import PATIENCE_SECONDS

AGENT = "tickwork/0 (+https://operator.example/bot)"


@dataclass(frozen=True)
class Reply:
    """An answer: its header names are in lower case, its body is decoded if it was gzip."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """The status, and the name of the XRPC error."""
        return self.status, self.json.get("error", "")


def connect(url: str, timeout: float = PATIENCE_SECONDS) -> http.client.HTTPConnection:
    """A connection to a host."""
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)


def send(connection: http.client.HTTPConnection, path: str, verb: str = "GET", **headers: str) -> None:
    """Send a request; underscores in header names become hyphens, and an empty header is left out."""
    named = {name.replace("_", "-"): value for name, value in {"User_Agent": AGENT, **headers}.items() if value}
    connection.request(verb, path, headers={"Accept-Encoding": "identity", **named})


def receive(connection: http.client.HTTPConnection) -> Reply:
    """Read the answer whole."""
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    body = response.read()
    if headers.get("content-encoding") == "gzip":
        body = zlib.decompress(body, 16 + zlib.MAX_WBITS)
    return Reply(response.status, headers, body)


def get(url: str, path: str, verb: str = "GET", **headers: str) -> Reply:
    """Ask on a connection of its own."""
    connection = connect(url)
    try:
        send(connection, path, verb, **headers)
        return receive(connection)
    finally:
        connection.close()


def xrpc(method: str, **parameters: Any) -> str:
    """The path of a method."""
    return f"/xrpc/com.atproto.sync.{method}" + (f"?{urlencode(parameters)}" if parameters else "")


def repo(url: str, did: str, **headers: str) -> Reply:
    """Ask a host for a repository."""
    return get(url, xrpc("getRepo", did=did), **headers)


def pages(url: str, method: str, **parameters: Any) -> Iterator[Any]:
    """The pages of a list, as far as cursors lead."""
    cursor: dict[str, str] = {}
    while True:
        page = get(url, xrpc(method, **parameters, **cursor)).json
        yield page
        if "cursor" not in page:
            return
        cursor = {"cursor": page["cursor"]}
