"""Asked to stop, or stopped after any number of units: at once, in good order, and with the same end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kits.doab import (
    DRAINED,
    HARVEST_ALL,
    MORE,
    DoabNursery,
    Site,
    active_in,
    stored_by,
)
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(25, seed=12)
PAGE_SIZE = 4
ACTIVE = active_in(BOOKS)
COMMANDS = {"harvest": HARVEST_ALL, "discover": ("discover",), "backfill": ("backfill",)}


def end_state(site: Site, job: str) -> dict[str, Any]:
    """All that a job leaves and that does not depend on how it got there."""
    files = [site.snapshot(which) for which in ("active", "deleted")]
    return {
        "records": site.canonical(),
        "snapshot": [path.read_bytes() if path.exists() else b"" for path in files],
        "worklist": site.worklist(),
        "cursor": site.cursor(),
        "done": bool(site.marker(f"doab-{job}", ".done")),
    }


@pytest.mark.parametrize("units", [pytest.param(k, marks=() if k in (1, 3) else pytest.mark.slow) for k in range(1, 8)])
@pytest.mark.parametrize("job", COMMANDS)
def test_a_pass_can_stop_after_any_number_of_units(job: str, units: int, oai: FakeOai, tmp_path: Path) -> None:
    truth = Site(tmp_path / "truth", oai)
    assert truth.run(*COMMANDS[job]).code == DRAINED
    asked = len(oai.history)
    site = Site(tmp_path / "stopped", oai)
    codes: list[int] = []
    while not codes or codes[-1] == MORE:
        codes.append(site.by_units(units, *COMMANDS[job]).code)
        assert len(codes) < 60
    assert codes[-1] == DRAINED
    assert len(codes) > 25 // (4 * units)
    assert end_state(site, job) == end_state(truth, job)
    assert len(oai.history) - asked == asked, "to stop and go on costs no request"


@pytest.mark.slow
def test_a_stop_with_faults_in_between_changes_nothing_either(oai: FakeOai, tmp_path: Path) -> None:
    for number, kind in enumerate(("html", "500", "expire-token", "truncate-body")):
        oai.fault(kind, verb="ListRecords", every=5 + number, count=4)
    site = Site(tmp_path, oai, window_items=10)
    codes: list[int] = []
    while not codes or codes[-1] == MORE:
        codes.append(site.by_units(1, *HARVEST_ALL).code)
        assert len(codes) < 100
    assert site.stamps() == stored_by(oai)


SLOW: dict[str, dict[str, Any]] = {
    "slow": {"seconds": 300},
    "drip-headers": {"interval": 0.02},
    "drip-body": {"interval": 0.02},
    "429": {"via": "none"},  # no wait at all: told to go away, it goes
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["ListRecords", "GetRecord"])
@pytest.mark.parametrize("kind", ["slow", "drip-headers", "drip-body"])
def test_a_stop_during_a_slow_answer_is_obeyed_at_once(kind: str, verb: str, oai: FakeOai, tmp_path: Path) -> None:
    site = Site(tmp_path, oai)
    ids = tmp_path / "ids"
    ids.write_text("".join(f"{identifier}\n" for identifier in ACTIVE))
    oai.fault(kind, verb=verb, nth=3, **SLOW[kind])
    command = HARVEST_ALL if verb == "ListRecords" else ("backfill", "--ids-file", str(ids))
    with DoabNursery() as nursery:
        pid = nursery.start(site.command(*command))
        until(lambda: [seen.fault for seen in oai.history].count(kind))
        time.sleep(0.1)  # let some of it drip
        asked = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        code = nursery.ended()
        seconds = time.monotonic() - asked
    print(f"\n{kind} {verb}: ended {seconds * 1000:.0f} ms after TERM")
    assert code == MORE
    assert seconds < PATIENCE_SECONDS
    assert site.cursor() == ""
    assert len(site.stamps()) == (8 if verb == "ListRecords" else 2)
    assert site.run(*command).code == DRAINED
    assert site.live() == set(ACTIVE)


@pytest.mark.slow
def test_a_stop_during_the_silence_between_two_requests_is_obeyed_at_once(oai: FakeOai, tmp_path: Path) -> None:
    site = Site(tmp_path, oai, interval_seconds=300.0)
    with DoabNursery() as nursery:
        pid = nursery.start(site.command(*HARVEST_ALL))
        until(lambda: oai.history and oai.history[0].ended)
        time.sleep(0.1)
        asked = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert nursery.ended() == MORE
    assert time.monotonic() - asked < PATIENCE_SECONDS
    assert len(oai.history) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drip-headers", "drip-body", "slow"])
def test_an_answer_that_does_not_end_in_time_is_a_fault_and_never_an_empty_list(
    kind: str, oai: FakeOai, tmp_path: Path
) -> None:
    site = Site(tmp_path, oai, total_seconds=0.4)
    oai.fault(kind, verb="ListRecords", nth=3, count=None, **SLOW[kind])
    for _ in range(2):
        done = site.run(*HARVEST_ALL)
        assert done.code == MORE
        assert "was not answered in full within 0.4 s" in done.err
        assert len(site.stamps()) == 8
        assert site.cursor() == ""
    oai.switches.replace()
    site.set(total_seconds=60)
    assert site.run("harvest").code == DRAINED
    assert site.stamps() == stored_by(oai)


@pytest.mark.slow
def test_the_rate_is_kept_between_the_end_of_a_request_and_the_next(oai: FakeOai, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("".join(f"{identifier}\n" for identifier in ACTIVE[:15]))
    site = Site(tmp_path, oai, interval_seconds=0.2)
    oai.fault("slow", seconds=0.1, every=4, count=None)
    for limit in (5, 4, 6):  # also from one pass to the next
        site.run("backfill", "--ids-file", str(ids), "--limit", str(limit))
    assert len(oai.history) == 15
    assert oai.history.closest() >= 0.2
