"""What the tests of the search service share: a deployment, the service in this process or as one, a judge of pages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from tests.kits.deployment import Deployment
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.vectors import DOAB, change_all, config, make_state, store_vectors, tiny_model
from tickwork.corpus.display import Display
from tickwork.generation.generations import Generation, Generations
from tickwork.serve.library import Library
from tickwork.serve.service import Service
from tickwork.sources.doab.display import DISPLAY
from tickwork.vectors.exact_search import Vectors
from tickwork.vectors.settings import VectorSettings

T = TypeVar("T")

# A deployment: a few books whose vectors are set by hand.

ABOUT = np.eye(8)
BEES, WASPS, SOIL, OTHER = ABOUT[:4]
BOOKS: dict[int, dict[str, Any]] = {
    1: {"title": "Bees", "description": "Bees and honey.", "year": 2010, "language": "eng", "vector": BEES},
    2: {"title": "Hives", "description": "Insects that make honey.", "year": 2020, "vector": BEES + 0.5 * WASPS},
    3: {"title": "Wasps", "description": "Bees have enemies.", "year": 2015, "language": "ger", "vector": WASPS},
    4: {"title": "Soil", "description": f"{'Of earth and worms. ' * 40}At last a word on bees.", "vector": SOIL},
    5: {"title": "Without vector", "description": "honey honey honey", "language": "eng"},
    6: {"title": "蜜蜂", "description": "蜜蜂" * 400, "publisher": "Ledizioni", "vector": OTHER},
}
QUERIES = {"bees": BEES, "honey": BEES, "insects": 0.8 * BEES + 0.6 * WASPS, "worms": SOIL}


class Catalogue(Deployment):
    """A deployment that publishes books; `config` is the text of its settings file."""

    def __init__(self, home: Path, config: str = "") -> None:
        super().__init__(home)
        self.config.write_text(config)
        self.generations = Generations(self.paths, "doab")

    def put(self, books: Mapping[int, Mapping[str, Any]], fingerprint: str = "by hand") -> None:
        """Store books, and the vectors of those that have one."""
        empty = {"subjects": [], "creators": [], "publisher": "", "year": None, "language": ""}
        rows = {number: {**empty, **columns} for number, columns in books.items()}
        for row in rows.values():
            row.pop("vector", None)
        change_all(self.state, rows)
        vectors = {number: columns["vector"] for number, columns in books.items() if "vector" in columns}
        if vectors:
            store_vectors(self.state, vectors, fingerprint)

    def publish(self, books: Mapping[int, Mapping[str, Any]] | None = None) -> Generation:
        """Publish, with these books stored before; gives what is current then."""
        self.put(books or {})
        self.good("publish", "doab")
        return self.current()

    def current(self) -> Generation:
        current = self.generations.current()
        assert current
        return current

    def copy(self, home: Path) -> Catalogue:
        """A deployment of the same, to be harmed."""
        other = Catalogue(home, self.config.read_text())
        shutil.copytree(self.state, other.state, symlinks=True)
        return other

    def library(self, settings: VectorSettings | None = None) -> Library:
        return Library(self.paths, [DOAB], settings or VectorSettings())


class ModelByHand:
    """Stands where the model of BOOKS would be; counts what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.loaded = 0
        self.may_load = threading.Event()
        self.may_load.set()
        monkeypatch.setattr("tickwork.vectors.model.load_for", self._load)

    def _load(self, *_: object) -> ModelByHand:
        assert self.may_load.wait(PATIENCE_SECONDS)
        self.loaded += 1
        return self

    def query(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        return np.array([QUERIES.get(text.lower(), ABOUT[7]) for text in texts], np.float16)


# The service in this process.


@dataclass(frozen=True)
class Answer:
    """An answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def page(self) -> Page:
        """Its HTML, judged."""
        assert self.headers["content-type"] == "text/html; charset=utf-8"
        return Page(self.text)


class Served:
    """A service in a thread of its own, asked without a socket: every byte of an address is ours to choose."""

    def __init__(self, library: Library, displays: dict[str, Display] | None = None, poll: float = 0.05) -> None:
        given = {"doab": DISPLAY} if displays is None else displays
        self.library = library
        self.service = Service(library, given, poll)
        self._loop = asyncio.new_event_loop()
        self._open, self._end = threading.Event(), asyncio.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._open.wait(PATIENCE_SECONDS)
        if self._failed:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def life() -> None:
            async with self.service.running():
                self._open.set()
                await self._end.wait()

        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(life())
        except BaseException as error:  # raised where it was started
            self._failed = error
            self._open.set()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def ask(
        self,
        target: str | bytes,
        method: str = "GET",
        headers: Sequence[tuple[bytes, bytes]] = (),
        reading: Callable[[], object] = bool,
    ) -> Answer:
        """The answer to a request for an address, whatever is in it; `reading` is called before each part is read."""
        return self.do(_ask(self.service.app, target, method, headers, reading))

    def health(self, corpus: str = "doab") -> dict[str, str]:
        said = self.ask("/-/health").json()
        return {"status": said["status"], **said["corpora"][corpus]}

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something to hold."""
        until(holds, lambda: self.health())

    def shows(self, generation: Generation) -> None:
        """Wait for a generation to be served."""
        self.until(lambda: self.health()["generation"] == generation.name)


async def _ask(
    app: Any,
    target: str | bytes,
    method: str,
    headers: Sequence[tuple[bytes, bytes]],
    reading: Callable[[], object],
) -> Answer:
    raw, _, query = (target.encode() if isinstance(target, str) else target).partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw.decode("latin-1")),
        "raw_path": raw,
        "query_string": query,
        "headers": [(b"host", b"test"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)
        await asyncio.to_thread(reading)

    await app(scope, receive, send)
    start, *parts = said
    assert start["type"] == "http.response.start"
    known = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], known, b"".join(part.get("body", b"") for part in parts))


# The service as a process.


class Process:
    """`tickwork serve` as an operator runs it, at a free port."""

    def __init__(
        self, deployment: Deployment, folder: Path, *options: str, python: str = "", poll: float = 0.2
    ) -> None:
        """`python` is run in the process before the command."""
        self._ready = folder / "ready"
        self._ready.unlink(missing_ok=True)
        self._log = (folder / "serve.log").open("w+")
        code = f"{python}\nfrom tickwork.cli import main; main()"
        ready = ("--ready-file", str(self._ready), "--poll", str(poll))
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *deployment.command("serve"), "--port", "0", *ready, *options],
            stdout=self._log,
            stderr=self._log,
        )
        self.pid = self._process.pid
        self.url = ""

    def __enter__(self) -> Process:
        until(lambda: self._is_ready() or self._process.poll() is not None, self.log)
        assert self._process.poll() is None, self.log()
        self.url = self._ready.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)
        self._log.close()

    def _is_ready(self) -> bool:
        return self._ready.exists() and bool(self._ready.read_text())

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def raw(self, sent: bytes) -> bytes:
        """What comes back when these bytes are sent, until the connection is closed."""
        with socket.create_connection(self.address, PATIENCE_SECONDS) as connection:
            connection.sendall(sent)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    received += part
            return received

    def get(self, target: str) -> tuple[int, bytes]:
        """Status and body of an address."""
        connection = HTTPConnection(*self.address, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def health(self) -> dict[str, str]:
        _, body = self.get("/-/health")
        said = json.loads(body)
        return {"status": said["status"], **said["corpora"]["doab"]}

    def until(self, holds: Callable[[dict[str, str]], bool]) -> None:
        """Wait until the service's health is such."""
        until(lambda: holds(self.health()), lambda: (self.health(), self.log()))

    def stop(self) -> int:
        """Tell it to stop; gives its exit code, negative for a signal."""
        self._process.terminate()
        return self._process.wait(PATIENCE_SECONDS)

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.findall(r"^VmRSS:\s+(\d+)", status, re.M)[0])


# Pages.

VOID = {"meta", "link", "input", "br", "img", "hr"}
ALLOWED = {"http", "https", ""}


class Page(HTMLParser):
    """A page of ours, parsed; making one asserts that it is well formed and can run nothing."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.links: list[tuple[str, str]] = []
        """Address and text of each."""
        self.headings: list[tuple[int, str]] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.marked: list[str] = []
        self._within: list[str] = []
        assert html.startswith("<!doctype html>")
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", html), "control characters"
        self.feed(html)
        self.close()
        assert self._within == [], f"not closed: {self._within}"
        assert len(self.ids) == len(set(self.ids))
        levels = [level for level, _ in self.headings]
        assert levels[:1] == [1], levels
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels

    @property
    def text(self) -> str:
        """All that can be read."""
        return "".join(self.texts)

    def titled(self, level: int) -> list[str]:
        """The texts of the headings of a level."""
        return [text for one, text in self.headings if one == level]

    def to(self, text: str) -> str:
        """The address of the first link with this text."""
        return next(url for url, said in self.links if said.strip() == text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "style", "iframe", "object", "embed", "svg", "img", "base"), tag
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), names
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name != "style"
            assert re.fullmatch(r"[a-z-]+", name), name
            if name in ("href", "src", "action"):
                assert value is not None
                assert urlsplit(value).scheme in ALLOWED, value
                assert not value.startswith(("//", "\\")), value
            if name == "id":
                self.ids.append(str(value))
            if name == "href" and tag == "a":
                self.links.append((str(value), ""))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag not in VOID:
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._within, tag
        assert self._within.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "a" in self._within:
            url, text = self.links[-1]
            self.links[-1] = (url, text + data)
        if any(re.fullmatch(r"h[1-6]", tag) for tag in self._within):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if "mark" in self._within:
            self.marked.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@contextlib.contextmanager
def served(home: Path, *, with_model: bool = True) -> Iterator[Served]:
    """The service over BOOKS, its model loaded."""
    deployment = Catalogue(home)
    deployment.publish(BOOKS)
    with pytest.MonkeyPatch.context() as patch:
        if with_model:
            ModelByHand(patch)
        with Served(deployment.library()) as service:
            if with_model:
                service.until(lambda: service.health()["meaning"] == "ready")
            yield service


@contextlib.contextmanager
def serving(home: Path, books: int) -> Iterator[Process]:
    """A service as a process, over `books` that were embedded with a tiny model and published; ready by meaning."""
    deployment = Catalogue(home, config(tiny_model(home / "model")))
    make_state(deployment.state, books)
    deployment.good("embed", "doab")
    deployment.good("publish", "doab")
    with Process(deployment, home) as service:
        service.until(lambda health: health["meaning"] == "ready")
        yield service


@contextlib.contextmanager
def slow_searches(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Searches for `slow` wait: `.begun` is set when one has begun, and it ends after `.go` is set."""
    from tickwork.search.searcher import Searcher

    search, gate = Searcher.search, SimpleNamespace(begun=threading.Event(), go=threading.Event())

    def slowly(self: Searcher, query: str, *arguments: Any, **more: Any) -> Any:
        if query == "slow":
            gate.begun.set()
            assert gate.go.wait(PATIENCE_SECONDS)
            query = "bees"
        return search(self, query, *arguments, **more)

    monkeypatch.setattr(Searcher, "search", slowly)
    try:
        yield gate
    finally:
        gate.go.set()
