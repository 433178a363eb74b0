"""What real papers and 95 real books are found by, from the harvest to the search, as an operator runs it.

The soak has 10,000 papers, of which 500 must be among the first three for their title and for the last sentence of
their abstract; otherwise there are 600, of which 120 must.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.kits.doab import CONTACT, real_data
from tests.upstreams.books import FIRST_DATESTAMP, Book, Work, books_from_page, oai_dc
from tests.upstreams.oai import FakeOai

PAPERS, SAMPLES = (10_000, 500) if os.environ.get("TICKWORK_SOAK") else (600, 120)
TOP = 3
FIRST_HANDLE = 3_000_000
SETTINGS = """
contact = "{contact}"
allow_private = ["127.0.0.0/8"]
[doab]
base_url = "{url}"
interval_seconds = 0.0
jitter = 0.0
"""


@dataclass
class Service:
    """A deployment in a folder, driven by its console command."""

    home: Path

    def run(self, *arguments: str) -> str:
        """Run a command until it has no work left; gives what it printed."""
        options = ["--config", str(self.home / "tickwork.toml"), "--state", str(self.home / "state")]
        while True:
            done = subprocess.run(
                [sys.executable, "-m", "tickwork", *options, *arguments], check=False, capture_output=True, text=True
            )
            assert done.returncode in (0, 3), done.stderr
            if done.returncode == 0:
                return done.stdout

    def found(self, queries: dict[int, str], mode: str) -> float:
        """The share in per cent of papers that are among the first for their query."""
        path = self.home / "queries.txt"
        path.write_text("".join(f"{query}\n" for query in queries.values()))
        lines = self.run("search", "doab", "--queries", str(path), "--mode", mode, "--limit", str(TOP)).splitlines()
        assert len(lines) == len(queries)
        hits = [{hit["identifier"] for hit in json.loads(line)} for line in lines]
        return 100 * sum(identifier(n) in some for n, some in zip(queries, hits, strict=True)) / len(queries)


def papers() -> list[dict[str, Any]]:
    with gzip.open(real_data() / "papers_titles_abstracts.jsonl.gz", "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in islice(lines, PAPERS)]
    assert len(read) == PAPERS
    return read


def identifier(number: int) -> str:
    return f"oai:directory.doabooks.org:20.500.12854/{FIRST_HANDLE + number}"


def served(number: int, paper: dict[str, Any], *, titles: bool) -> Book:
    """A paper as the repository has it."""
    added = FIRST_DATESTAMP + timedelta(minutes=number)
    work = Work(
        handle=f"20.500.12854/{FIRST_HANDLE + number}",
        title=paper["title"] if titles else "",
        added=added.strftime("%Y-%m-%dT%H:%M:%SZ"),
        creators=paper["authors"],
        description=paper["abstract"],
        issued=str(paper["year"]),
        kind="chapter",
        language=["eng"],
        publisher=paper["venue"],
        doi=paper["doi"] or "",
    )
    return Book(identifier(number), work.handle, added, metadata_xml=oai_dc(work))


def last_sentence(paper: dict[str, Any]) -> str:
    return one_line(re.split(r"(?<=[.!?])\s+", paper["abstract"].strip())[-1])


def one_line(text: str) -> str:
    return " ".join(text.split())


def sample(read: list[dict[str, Any]]) -> list[int]:
    """Papers to look for: those whose last sentence is one."""
    long_enough = [n for n, paper in enumerate(read) if len(last_sentence(paper).split()) >= 6]
    return sorted(random.Random(7).sample(long_enough, SAMPLES))


def published(home: Path, *, titles: bool) -> Iterator[Service]:
    """Harvest, embed and publish the papers and the books."""
    read = papers()
    books = books_from_page(real_data() / "doab-check_test.xml")
    books += [served(number, paper, titles=titles) for number, paper in enumerate(read)]
    service = Service(home)
    home.mkdir()
    with FakeOai(books, page_size=500) as oai:
        (home / "tickwork.toml").write_text(SETTINGS.format(contact=CONTACT, url=oai.base_url))
        service.run("doab", "harvest", "--from", "2000-01-01", "--limit", "1000000")
    service.run("embed", "doab")
    service.run("publish", "doab")
    (generation,) = json.loads(service.run("generations", "verify", "doab", "--json"))
    assert (generation["total"], generation["vectors"]) == (PAPERS + 95, PAPERS + 95)
    yield service


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    yield from published(tmp_path_factory.mktemp("retrieval") / "whole", titles=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_papers_are_found_by_their_title_and_by_their_last_sentence(whole: Service) -> None:
    read = papers()
    titles = {n: one_line(read[n]["title"]) for n in sample(read)}
    sentences = {n: last_sentence(read[n]) for n in sample(read)}
    asked = [("title", "meaning"), ("title", "both"), ("last sentence", "words"), ("last sentence", "both")]
    figures = {(name, mode): whole.found(titles if name == "title" else sentences, mode) for name, mode in asked}
    print("\nshare among the first three, per cent")
    for (name, mode), share in figures.items():
        print(f"{name:14} {mode:8} {share:5.1f}")
    assert figures["title", "meaning"] >= 95
    assert figures["last sentence", "words"] >= 97
    assert figures["title", "both"] >= 97
    assert figures["last sentence", "both"] >= 97


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_book_is_found_among_the_papers_and_so_are_those_like_it(whole: Service) -> None:
    books = [book for book in books_from_page(real_data() / "doab-check_test.xml") if not book.deleted]
    found = 0
    for book in books[:10]:
        (hits,) = map(json.loads, whole.run("similar", "doab", book.identifier, "--json").splitlines())
        assert len(hits) == 10
        assert book.identifier not in {hit["identifier"] for hit in hits}
        found += sum(int(hit["identifier"].rpartition("/")[2]) < FIRST_HANDLE for hit in hits[:TOP])
    print(f"\nof the first three like a book, {found} of {TOP * 10} are books too")
    assert found >= 0.7 * TOP * 10


@pytest.mark.soak  # another 10,000 texts to embed
@pytest.mark.timeout(7200)
def test_titles_that_are_not_in_the_text_are_found_best_by_both(tmp_path: Path) -> None:
    read = papers()
    titles = {n: one_line(read[n]["title"]) for n in sample(read)}
    (service,) = published(tmp_path / "untitled", titles=False)
    shares = {mode: service.found(titles, mode) for mode in ("words", "meaning", "both")}
    print("\ntitles left out:", ", ".join(f"{mode} {share:.1f}" for mode, share in shares.items()))
    assert shares["both"] >= 88
    assert shares["both"] > max(shares["words"], shares["meaning"])
