"""The README's own commands do what they are there for, with a fake server in the place of the real one."""

from __future__ import annotations

import csv
import datetime as dt
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.wrappers import ROOT
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HARVESTED = 150
NOW = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
"""When the fake server believes to be: later than what the README harvests from."""


def commands(heading: str) -> list[list[str]]:
    """The arguments of every `tickwork` below a heading of the README."""
    section = re.search(rf"^## {heading}\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert section
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[1:] for each in words if each and each[0].rpartition("/")[2] == "tickwork"]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOai]:
    books = generated_books(400)
    with FakeOai(books, clock=lambda: NOW) as oai:
        for book in [book for book in books if not book.deleted][:HARVESTED]:
            oai.touch(book.identifier, NOW - dt.timedelta(days=10))
        yield oai


def run(arguments: list[str], folder: Path, server: FakeOai) -> str:
    """What a command of the README says, which must succeed; one that calls a server calls the fake one."""
    if arguments[2:4] == ["doab", "harvest"]:
        arguments = [*arguments, "--base-url", server.base_url, "--allow-private", "127.0.0.0/8"]
        arguments += ["--interval-seconds", "0.01"]
    done = subprocess.run(
        [sys.executable, "-m", "tickwork", *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def test_without_any_deployment_books_are_harvested_and_found(tmp_path: Path, server: FakeOai) -> None:
    typed = commands("Try it")
    assert [words[2] for words in typed] == ["doab", "doab", "status", "embed", "publish", "search"]
    said = [run(words, tmp_path, server) for words in typed]
    with (tmp_path / "books.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == HARVESTED
    assert re.search(r"^doab-harvest +idle .* drained ", said[2], re.MULTILINE)
    assert re.search(r"^  1\. .*\[\d\.\d+\]\n     https://directory.doabooks.org/handle/", said[5])

    # What the README shows of vectors and search, over the same books; `serve` would not end.
    shown = [["--state", "./state", *words] for words in commands("Vectors and search") if words != ["serve"]]
    assert [words[2] for words in shown] == ["embed", "publish", "search", "similar", "generations"]
    for words in shown:
        if words[2] == "similar":
            words[-1] = "1"  # an item that there is
        said = [*said, run(words, tmp_path, server)]
    assert "verified" in said[-1]
    assert not server.history.overlaps()


@pytest.mark.soak
def test_the_demo_ends_well(tmp_path: Path) -> None:
    for folder in ("jobs", "inventory", "playbooks", "roles", "scripts", "templates", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "production"))
    for file in ("ansible.cfg", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tmp_path)
    demo = [sys.executable, tmp_path / "scripts/demo.py"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "jobs")}
    try:
        done = subprocess.run(demo, env=environment, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Everything is in .demo/" in done.stdout
        (address,) = re.findall(r"^ +(http://127\.0\.0\.1:\d+/)$", done.stdout, re.MULTILINE)
        assert address
    finally:
        stopped = subprocess.run([*demo, "--stop"], env=environment, capture_output=True, text=True, timeout=60)
    assert "the search service has ended" in stopped.stdout
