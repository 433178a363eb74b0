"""A list as large as DOAB's, and larger: the pass stays small, and the list whole."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.doab import Clock
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

RECORDS = 120_000
MEBIBYTE = 1024  # ru_maxrss counts kibibytes


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_harvest_of_a_hundred_and_twenty_thousand_records_is_whole_and_stays_small(tmp_path: Path) -> None:
    books, clock = generated_books(RECORDS), Clock()
    with FakeOai(books, page_size=500, clock=clock) as oai:
        tickwork = [sys.executable, "-m", "tickwork", "--state", str(tmp_path), "--allow-private", "127.0.0.0/8"]
        bounds = ["--from", "2000-01-01", "--interval-seconds", "0", "--limit", "100000", "--seconds", "3600"]
        harvest = [*tickwork, "doab", "harvest", "--base-url", oai.base_url, *bounds]
        codes = []
        while not codes or codes[-1] == 3:
            codes.append(subprocess.run(harvest, check=False).returncode)
        assert codes[-1] == 0
        assert len(codes) > 1, "one pass took it all: the bound did not hold"
        stats = json.loads(subprocess.check_output([*tickwork, "doab", "stats", "--json"]))
        assert stats["live"] + stats["deleted"] == sum(book.datestamp <= clock() for book in books)
        assert not oai.history.overlaps()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 300 * MEBIBYTE
