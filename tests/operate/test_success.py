"""When a job last got something done: what counts as a success, on the board and in the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, MORE, Site
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(60, seed=3)
PAGE_SIZE = 20
LONG_AGO = "2026-01-02T03:04:05Z"
JOB = "doab-harvest"


def last_success(site: Site) -> str | None:
    (row,) = [row for row in json.loads(site.run("status", "--json").out) if row["job"] == JOB]
    found: str | None = row["last_success"]
    return found


def metric(site: Site) -> float | None:
    lines = (site.state / "metrics" / f"{JOB}.pass.prom").read_text().splitlines()
    found = [line for line in lines if line.startswith("tickwork_job_last_success_timestamp_seconds")]
    return float(found[0].split()[-1]) if found else None


def age(site: Site) -> None:
    """As if all that happened so far were long ago."""
    with site.db("ledger") as db:
        db.execute("UPDATE passes SET started = ?, ended = ?", (LONG_AGO, LONG_AGO))


@pytest.mark.parametrize(
    ("kind", "verb"), [("429", "Identify"), ("503", "ListRecords"), ("500", "Identify"), ("html", "ListRecords")]
)
def test_a_pass_that_was_held_or_met_a_fault_is_no_success(site: Site, oai: FakeOai, kind: str, verb: str) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "20").code == MORE
    age(site)
    before = metric(site)
    assert before
    assert last_success(site) == LONG_AGO
    oai.fault(kind, verb=verb, count=None)
    for _ in range(3):  # answered so, and then not even asked
        assert site.run("harvest", "--from", "2001-01-01").code == MORE
        assert last_success(site) == LONG_AGO
        assert metric(site) == before


def test_a_job_that_only_met_faults_never_succeeded(site: Site, oai: FakeOai) -> None:
    oai.fault("500", count=None)
    assert site.run("harvest").code == MORE
    assert last_success(site) is None
    assert metric(site) is None


def test_records_that_are_all_put_off_are_no_success(site: Site, oai: FakeOai, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("oai:directory.doabooks.org:20.500.12854/1000001\n")
    oai.fault("500", verb="GetRecord", count=None)
    assert site.run("backfill", "--ids-file", str(ids)).code == MORE
    (row,) = [row for row in json.loads(site.run("status", "--json").out) if row["job"] == "doab-backfill"]
    assert row["last_success"] is None


@pytest.mark.parametrize("then", ["a bound", "a fault", "the end"])
def test_a_pass_with_progress_is_a_success_however_it_ended(site: Site, oai: FakeOai, then: str) -> None:
    assert site.run("harvest", "--from", "2000-01-01", "--limit", "20").code == MORE
    age(site)
    before = metric(site)
    assert before
    if then == "a fault":
        oai.fault("500", verb="ListRecords", nth=2, count=None)
    bound = ("--limit", "20") if then == "a bound" else ()
    assert site.run("harvest", "--from", "2000-01-01", *bound).code == (DRAINED if then == "the end" else MORE)
    assert (last_success(site) or "") > LONG_AGO
    assert (metric(site) or 0) > before
