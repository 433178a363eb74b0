"""A plain OAI-PMH client for the tests of the fake: no retries, no patience, no manners."""

import socket
import urllib.error
import urllib.parse
import urllib.request
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

NS = "{http://www.openarchives.org/OAI/2.0/}"
BOOKS = generated_books(250, seed=7)
PREFIX = {"metadataPrefix": "oai_dc"}
LIST = {"verb": "ListRecords", **PREFIX}


def fetch(server: FakeOai, arguments: dict[str, str], headers: dict[str, str] | None = None) -> bytes:
    """The body of a GET, over a connection of its own."""
    request = urllib.request.Request(f"{server.base_url}?{urllib.parse.urlencode(arguments)}", headers=headers or {})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        return response.read()


def ask(server: FakeOai, arguments: dict[str, str]) -> Element:
    """The answer's root element."""
    return ElementTree.fromstring(fetch(server, arguments))


def failure(server: FakeOai, arguments: dict[str, str] = LIST) -> urllib.error.HTTPError:
    """The HTTP error the request is answered with; AssertionError if there is none."""
    try:
        fetch(server, arguments)
    except urllib.error.HTTPError as error:
        return error
    raise AssertionError("the request succeeded")


def code(document: Element) -> str | None:
    """The code of the OAI-PMH error, None without one."""
    error = document.find(f"{NS}error")
    return None if error is None else error.get("code")


def identifiers(document: Element) -> list[str | None]:
    """The identifiers of a page."""
    return [each.findtext(f"{NS}identifier") for each in document.iter(f"{NS}header")]


def token(document: Element) -> Element | None:
    """The resumptionToken element."""
    return document.find(f".//{NS}resumptionToken")


def walk(server: FakeOai, arguments: dict[str, str] = LIST) -> list[Element]:
    """Every page of a list."""
    pages = [ask(server, arguments)]
    while (following := token(pages[-1])) is not None and following.text:
        pages.append(ask(server, {"verb": arguments["verb"], "resumptionToken": following.text}))
    return pages


def hanging_client(server: FakeOai) -> socket.socket:
    """A connection over which a request was sent and nothing was read."""
    known = len(server.history)
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(b"GET /oai/request?verb=Identify HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: len(server.history) > known)
    return client
