"""The circuit breaker of the backfill: what opens it, what it says, how it starts afresh."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.kits.doab import DRAINED, HALTED, MORE, Site, active_in
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai
from tickwork.contract.outcomes import Halt
from tickwork.sources.doab.circuit_breaker import CircuitBreaker
from tickwork.sources.doab.settings import DoabSettings

BOOKS = generated_books(300, seed=9)
ACTIVE = active_in(BOOKS)
JOB = "doab-backfill"


def refuses_to_go_on(site: Site, oai: FakeOai, *command: str) -> None:
    before = len(oai.history)
    assert site.run(*command).code == HALTED
    assert len(oai.history) == before, "after a halt not one request goes out"


def rearm(site: Site) -> None:
    assert site.run("rearm", JOB, "--why", "looked at").code == 0
    assert not site.marker(JOB)


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        (["gone"] * 30 + ["ok"] * 70, False),
        (["gone"] * 31 + ["ok"] * 69, True),
        (["gone"] * 99, False),
        (["ok"] * 300 + ["gone"] * 30, False),
        (["review"] * 2 + ["ok"] * 48, False),
        (["review"] * 3 + ["ok"] * 47, True),
        (["review"] * 49, False),
        (["ok"] * 300 + ["review"] * 5, False),
        (["ok"] * 300 + ["review"] * 6, True),
        (["retry", "present"] * 100, False),
        ([], False),
    ],
)
def test_the_breaker_opens_at_its_limits_and_not_before(outcomes: list[str], opens: bool) -> None:
    breaker = CircuitBreaker(DoabSettings(), [])
    with pytest.raises(Halt) if opens else nullcontext():
        for outcome in outcomes:
            breaker.saw(outcome)


@pytest.mark.slow
def test_too_many_gone_records_halt_with_figures_across_passes_and_afresh_after_a_rearm(
    site: Site, oai: FakeOai, tmp_path: Path
) -> None:
    ids = site.listed(ACTIVE)
    for identifier in ACTIVE[:100:2]:
        oai.remove(identifier)
    command = ("backfill", "--ids-file", ids, "--limit", "40")
    assert [site.run(*command).code for _ in range(3)] == [MORE, MORE, HALTED]
    assert "50 of the last 100 records are gone (limit 30%)" in site.marker(JOB)
    refuses_to_go_on(site, oai, *command)
    rearm(site)
    before = len(oai.history)
    assert site.run(*command).code == MORE, "what a human has judged does not count again"
    assert len(oai.history) == before + 40
    assert site.passes(*command)[-1] == DRAINED


def test_too_many_unusable_records_halt_with_figures(site: Site, oai: FakeOai, tmp_path: Path) -> None:
    ids = site.listed(ACTIVE)
    oai.fault("wrong-record", count=4)
    assert site.run("backfill", "--ids-file", ids).code == HALTED
    assert "4 of the last 50 records cannot be used (limit 5%)" in site.marker(JOB)
    assert len(oai.history) == 50
    refuses_to_go_on(site, oai, "backfill", "--ids-file", ids)
    rearm(site)
    assert site.run("backfill", "--ids-file", ids, "--limit", "20").code == MORE
    assert site.live() == set(ACTIVE[4:70])


@pytest.mark.parametrize(
    "kind", ["403-challenge", "404", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("403", "410", "400"))]
)
def test_a_refusal_halts_at_once_and_after_a_rearm_the_backfill_goes_on(
    kind: str, site: Site, oai: FakeOai, tmp_path: Path
) -> None:
    ids = site.listed(ACTIVE[:10])
    oai.fault(kind, verb="GetRecord", nth=3)
    done = site.run("backfill", "--ids-file", ids)
    assert done.code == HALTED
    assert f"answered {kind[:3]}" in site.marker(JOB)
    assert oai.base_url.rpartition("/oai")[0] in site.marker(JOB)
    assert ("challenge" in site.marker(JOB)) == (kind == "403-challenge")
    assert len(oai.history) == 3
    refuses_to_go_on(site, oai, "backfill", "--ids-file", ids)
    rearm(site)
    assert site.run("backfill", "--ids-file", ids).code == DRAINED
    # A refusal is meant for us, so its record is asked for again; an odd status is that record's, which a human sees.
    odd = set() if kind.startswith("403") else {ACTIVE[2]}
    assert site.live() == set(ACTIVE[:10]) - odd
    assert {identifier for identifier, state in site.worklist().items() if state == "review"} == odd


def test_a_refusal_during_discovery_halts_too(site: Site, oai: FakeOai) -> None:
    oai.fault("403-challenge", verb="ListIdentifiers")
    assert site.run("backfill").code == HALTED
    assert "challenge" in site.marker(JOB)
    rearm(site)
    assert site.run("backfill", "--limit", "8").code == MORE
    assert set() < site.live() < set(ACTIVE[:8]), "pages of the list count as requests"


def test_malformed_identifiers_halt_when_they_are_many_and_wait_for_review_when_they_are_few(
    site: Site, oai: FakeOai, tmp_path: Path
) -> None:
    ids = site.listed([*ACTIVE[:94], *(f"oai:other:{n}" for n in range(6))])
    assert site.run("backfill", "--ids-file", ids).code == HALTED
    assert "6 of 100 identifiers are malformed (limit 5%), the first is 'oai:other:0'" in site.marker(JOB)
    assert not oai.history
    rearm(site)
    site.listed([*ACTIVE[:95], *(f"oai:other:{n}" for n in range(5))])
    assert site.run("backfill", "--ids-file", ids).code == DRAINED
    assert sorted(set(oai.history.asked_for())) == sorted(ACTIVE[:95])
    assert sum(state == "review" for state in site.worklist().values()) == 5


def test_an_empty_list_halts(site: Site, oai: FakeOai, tmp_path: Path) -> None:
    ids = site.listed([])
    assert site.run("backfill", "--ids-file", ids).code == HALTED
    assert "empty" in site.marker(JOB)
    assert not site.marker(JOB, ".done")
    assert not oai.history


def test_a_list_that_shrank_halts_the_backfill_before_it_asks_for_anything(site: Site, oai: FakeOai) -> None:
    site.run("discover")
    for identifier in ACTIVE[:50]:
        oai.remove(identifier)
    site.set(snapshot_days=0)
    assert site.run("backfill").code == HALTED
    assert f"found {len(ACTIVE) - 50} active records where {len(ACTIVE)} were" in site.marker(JOB)
    assert "GetRecord" not in {seen.verb for seen in oai.history}


def test_a_kill_between_the_record_and_the_halt_only_puts_the_halt_off(
    site: Site, oai: FakeOai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    ids = site.listed(ACTIVE)
    oai.fault("wrong-record", count=10)
    with monkeypatch.context() as patch:
        patch.setattr(CircuitBreaker, "saw", lambda self, outcome: die() if outcome == "ok" else None)
        with pytest.raises(Killed):
            site.run("backfill", "--ids-file", ids)
    with monkeypatch.context() as patch:
        patch.setattr(CircuitBreaker, "saw", lambda self, outcome: None)
        patch.setattr(CircuitBreaker, "check", lambda self: None)
        assert site.run("backfill", "--ids-file", ids, "--limit", "49").code == MORE
    before = len(oai.history)
    assert before == 60
    assert not site.marker(JOB)
    assert site.run("backfill", "--ids-file", ids).code == HALTED
    assert "10 of the last 60 records cannot be used" in site.marker(JOB)
    assert len(oai.history) == before, "the halt comes before the first request"
