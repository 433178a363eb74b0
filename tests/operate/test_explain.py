"""`tickwork explain`: why a job is in its state, what mends it, and what operators did about it."""

from __future__ import annotations

import re

import pytest

from tests.kits.operate import JOB, KEYS, STATES, InState, Tickwork, bring
from tickwork.contract.paths import Paths

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize("state", STATES)
def test_explain_says_why_and_names_what_mends_each_state(tickwork: Tickwork, paths: Paths, state: str) -> None:
    config = bring(paths, state)
    said = tickwork("explain", JOB, config=config)
    assert said.code == 0
    assert said.out.startswith(f"{JOB} is {state}")
    assert STATES[state] in said.out
    found = tickwork("explain", JOB, "--json", config=config).json()
    assert set(found) == KEYS | {"mend"}
    assert STATES[state] in found["mend"]
    if state == "halted":
        assert "34 of the last 100 are gone" in said.out


def test_explain_of_a_job_nobody_knows_lists_the_jobs_there_are(tickwork: Tickwork) -> None:
    said = tickwork("explain", "nightly")
    assert said.code == 2
    assert re.fullmatch(r"tickwork: there is no job 'nightly'; the jobs are: .*doab-backfill.*\n", said.err)


def test_explain_shows_what_operators_did(tickwork: Tickwork, paths: Paths) -> None:
    InState.halted(paths)
    tickwork("rearm", JOB, "--why", "the repository moved")
    assert "rearm: the repository moved (was: 34 of the last 100 are gone)" in tickwork("explain", JOB).out
