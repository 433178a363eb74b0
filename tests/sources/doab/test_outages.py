"""What the backfill makes of faults: one record's own, the server's, and too many of them."""

from __future__ import annotations

from tests.kits.doab import DRAINED, HALTED, MORE, Said, Site, active_in
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(150, seed=8)
ACTIVE = active_in(BOOKS)
JOB = "doab-backfill"


def after_the_hold(site: Site, oai: FakeOai, *command: str) -> Said:
    """Lift all holds, as waiting would, and run a command."""
    for seen in oai.history:
        seen.hold_until = None
    if (site.state / "db" / "slots.db").exists():
        site.lift_holds()
    return site.run(*command)


def test_a_record_that_always_answers_503_holds_up_nobody_else_and_ends_in_review(site: Site, oai: FakeOai) -> None:
    command = ("backfill", "--ids-file", site.listed(ACTIVE[:30]))
    oai.fault("503", verb="GetRecord", identifier=ACTIVE[0], count=None)
    assert site.run(*command).code == MORE
    assert site.worklist()[ACTIVE[0]] == "retry"
    assert after_the_hold(site, oai, *command).code == MORE
    assert site.live() == set(ACTIVE[1:30]), "all the others came with the second pass"
    codes = []
    while not codes or codes[-1] == MORE:
        codes.append(after_the_hold(site, oai, *command).code)
        assert len(codes) < 8
    assert codes[-1] == DRAINED
    assert site.worklist()[ACTIVE[0]] == "review"
    poisonous = [seen for seen in oai.history if seen.params.get("identifier") == ACTIVE[0]]
    assert len(poisonous) == 5
    (identify,) = [seen for seen in oai.history if seen.verb == "Identify"]
    assert identify.status == 200
    assert poisonous[3].seq < identify.seq < poisonous[4].seq, "given up only while the server answers"


def test_an_outage_of_503s_for_everything_gives_nothing_up(site: Site, oai: FakeOai) -> None:
    command = ("backfill", "--ids-file", site.listed(ACTIVE[:2]))
    oai.fault("503", count=None)
    for _ in range(14):
        before = len(oai.history)
        assert after_the_hold(site, oai, *command).code == MORE
        assert len(oai.history) == before + 1, "the pass ends with the first refusal"
    assert set(site.worklist().values()) <= {"todo", "retry"}
    assert not site.marker(JOB)
    oai.switches.replace()
    assert after_the_hold(site, oai, *command).code == DRAINED
    assert site.live() == set(ACTIVE[:2])


def test_every_second_record_failing_opens_the_breaker_with_figures(site: Site, oai: FakeOai) -> None:
    oai.fault("500", verb="GetRecord", every=2, count=None)
    assert site.run("backfill", "--ids-file", site.listed(ACTIVE)).code == HALTED
    assert "requests failed while others succeeded (limit 20%)" in site.marker(JOB)
    assert "25 of the last 50" in site.marker(JOB) or "of the last 51" in site.marker(JOB)
    assert len(oai.history) <= 100
    assert "review" not in site.worklist().values()


def test_a_fault_now_and_then_does_not_open_the_breaker(site: Site, oai: FakeOai) -> None:
    oai.fault("500", verb="GetRecord", every=10, count=None)
    assert site.run("backfill", "--ids-file", site.listed(ACTIVE)).code == MORE
    assert not site.marker(JOB)
    assert "records waiting for a retry" in site.run("backfill", "--ids-file", site.listed(ACTIVE)).err


def test_an_outage_ends_each_pass_after_three_records_and_never_halts(site: Site, oai: FakeOai) -> None:
    command = ("backfill", "--ids-file", site.listed(ACTIVE))
    assert site.run(*command, "--limit", "60").code == MORE
    oai.fault("500", count=None)
    for _ in range(20):
        before = len(oai.history)
        assert site.run(*command).code == MORE
        assert len(oai.history) - before <= 6
        site.ripen()
    assert not site.marker(JOB)
    assert "review" not in site.worklist().values()
    oai.switches.replace()
    assert site.passes(*command)[-1] == DRAINED
    assert site.live() == set(ACTIVE)


def test_an_odd_status_of_one_record_halts_and_after_a_rearm_all_the_others_come(site: Site, oai: FakeOai) -> None:
    command = ("backfill", "--ids-file", site.listed(ACTIVE[:20]))
    oai.fault("404", verb="GetRecord", identifier=ACTIVE[4], count=None)
    assert site.run(*command).code == HALTED
    assert site.live() == set(ACTIVE[:4])
    assert site.run("rearm", JOB, "--why", "looked at").code == 0
    assert site.run(*command).code == DRAINED
    assert site.live() == set(ACTIVE[:20]) - {ACTIVE[4]}
    assert oai.history.asked_for()[ACTIVE[4]] == 1
