"""The 10,858 books of DOAB's own export, served with faults on: the same as served without."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, Clock, Site, real_data, stored_by, well_mannered
from tests.upstreams.books import books_from_csv
from tests.upstreams.faults import Fault
from tests.upstreams.oai import FakeOai

FAULTS = (
    *(
        Fault(kind, verb="ListRecords", probability=0.02, seed=n, count=4)
        for n, kind in enumerate(("500", "html", "empty"))
    ),
    *(Fault(kind, probability=0.02, seed=10 + n, count=4) for n, kind in enumerate(("429", "503", "reset"))),
    *(
        Fault(kind, verb="ListRecords", probability=0.02, seed=20 + n, count=3)
        for n, kind in enumerate(
            (
                "truncate",
                "truncate-body",
                "expire-token",
                "early-end",
                "repeat-page",
                "loop",
                "illegal-char",
                "error-page",
            )
        )
    ),
    Fault("429", nth=20, via="date"),
    Fault("503", nth=40, via="none"),
)


@pytest.mark.slow
def test_the_real_books_harvested_over_faults_equal_the_uninterrupted_result(tmp_path: Path) -> None:
    path = real_data() / "doab_books_2018.csv"
    books = books_from_csv(path)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        titles = sorted((row["Title"] or "").strip() for row in csv.DictReader(lines))
    assert len(books) == len(titles) == 10_858
    with FakeOai(books, clock=Clock()) as oai:
        truth = Site(tmp_path / "truth", oai)
        assert truth.run("harvest", "--from", "2000-01-01").code == DRAINED
        expected = truth.canonical()
        assert truth.stamps() == stored_by(oai)
        assert sorted(row["title"] for row in expected) == titles
        plain = len(oai.history)
        well_mannered(oai)
    with FakeOai(books, clock=Clock(), faults=FAULTS) as oai:
        site = Site(tmp_path / "faults", oai)
        passes = 0
        while (code := site.run("harvest", "--from", "2000-01-01", "--limit", "4000").code) != DRAINED:
            passes += 1
            assert passes < 80
            if code == 4:
                assert site.run("rearm", "doab-harvest", "--why", "mended").code == 0
            for seen in oai.history:
                seen.hold_until = None  # lifted by hand
            site.lift_holds()
        assert site.canonical() == expected
        assert site.cursor() == truth.cursor()
        struck = sum(fault.fired for fault in FAULTS)
        print(f"\n{struck} faults, {passes + 1} passes, {len(oai.history)} requests where {plain} would do")
        assert struck > 15
        well_mannered(oai)
