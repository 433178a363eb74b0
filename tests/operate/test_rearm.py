"""`tickwork rearm`: a halt is removed for a reason that is audited; a done job needs `--done`."""

from __future__ import annotations

import pytest

from tests.kits.operate import JOB, InState, Tickwork
from tickwork.contract.ledger import Ledger
from tickwork.contract.markers import Markers
from tickwork.contract.paths import Paths

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_rearming_removes_the_halt_and_is_audited(tickwork: Tickwork, paths: Paths) -> None:
    InState.halted(paths)
    said = tickwork("rearm", JOB, "--why", "looked at it", "--json")
    assert said.json() == {"job": JOB, "removed": [".halted"]}
    assert not Markers(paths.job(JOB)).halted
    with Ledger(paths.database("ledger"), read_only=True) as ledger:
        (entry,) = ledger.audit(JOB)
    assert (entry["action"], entry["why"]) == ("rearm", "looked at it (was: 34 of the last 100 are gone)")
    assert entry["who"]


def test_rearming_a_done_job_needs_done(tickwork: Tickwork, paths: Paths) -> None:
    InState.done(paths)
    refused = tickwork("rearm", JOB, "--why", "again")
    assert (refused.code, Markers(paths.job(JOB)).done) == (2, True)
    assert "done (use --done)" in refused.err
    assert tickwork("rearm", JOB, "--done", "--why", "again").out == f"{JOB} is armed again: removed .done\n"
    assert not Markers(paths.job(JOB)).done


@pytest.mark.parametrize("why", ["", "   "])
def test_rearming_without_a_reason_changes_nothing(tickwork: Tickwork, paths: Paths, why: str) -> None:
    InState.halted(paths)
    said = tickwork("rearm", JOB, "--why", why)
    assert said.code == 2
    assert "--why must not be empty" in said.err
    assert Markers(paths.job(JOB)).halted


def test_rearming_what_is_not_halted_is_an_error_without_a_trace(tickwork: Tickwork, paths: Paths) -> None:
    InState.idle(paths)
    said = tickwork("rearm", JOB, "--why", "x")
    assert (said.code, said.err) == (2, f"tickwork: {JOB} is not halted: there is nothing to re-arm\n")
    with Ledger(paths.database("ledger"), read_only=True) as ledger:
        assert not ledger.audit(JOB)
