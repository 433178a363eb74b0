"""`tickwork status`: one row a job with all its keys, whatever lies in its folder; looking changes nothing."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import subprocess
import sys

import pytest

from tests.kits.operate import DEPLOYED, JOB, KEYS, STATES, TIME, InState, Tickwork, bring, markers, passed
from tickwork.contract.outcomes import Outcome
from tickwork.contract.paths import Paths

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize("state", STATES)
def test_status_gives_each_state_with_all_the_keys(tickwork: Tickwork, paths: Paths, state: str) -> None:
    config = bring(paths, state)
    said = tickwork("status", "--json", config=config)
    assert said.code == 0
    (row,) = said.json()
    assert set(row) == KEYS
    assert (row["job"], row["state"]) == (JOB, state)
    for key in ("since", "last_success", "eta", "hold_until", "next_tick"):
        assert row[key] is None or TIME.fullmatch(row[key])
    table = tickwork("status", config=config).out.splitlines()
    assert len(table) == 2
    assert table[0].split()[:2] == ["JOB", "STATE"]
    assert state in table[1]


@pytest.mark.parametrize(
    ("count", "failing", "waiting"),
    [
        (1, "failed once: KeyError", "lock busy at the last tick"),
        (2, "2 failures in a row: KeyError", "lock busy at the last 2 ticks"),
    ],
)
def test_status_counts_what_happened_once_as_one(
    count: int, failing: str, waiting: str, tickwork: Tickwork, paths: Paths
) -> None:
    passed(paths, Outcome.CRASHED, reason="KeyError")
    markers(paths)
    tally = paths.job(JOB) / ".tally"
    tally.write_text(f"{count:012} {0:012} {1:012}\n")
    (row,) = tickwork("status", "--json").json()
    assert (row["state"], row["reason"]) == ("failing", failing)
    tally.write_text(f"{0:012} {0:012} {1:012}\n")
    passed(paths)
    (paths.job(JOB) / ".skips").write_text(f"{count:012} {count:012} {0:012}\n")
    (row,) = tickwork("status", "--json").json()
    assert (row["state"], row["reason"]) == ("waiting", waiting)


def test_status_without_anything_lists_the_jobs_there_are(tickwork: Tickwork, paths: Paths) -> None:
    said = tickwork("status", "--json")
    assert {row["state"] for row in said.json()} == {"never ran"}
    assert JOB in {row["job"] for row in said.json()}
    assert not paths.state.exists(), "looking changes nothing"


def test_status_tells_of_the_last_pass_the_backlog_and_the_hold(tickwork: Tickwork, paths: Paths) -> None:
    passed(paths, Outcome.MORE, items=50, backlog=100)
    InState.held(paths)
    passed(paths, Outcome.CRASHED, items=50, backlog=100)
    (row,) = tickwork("status", "--json").json()
    assert (row["last_outcome"], row["backlog"], row["state"], row["reason"]) == (
        "crashed",
        100,
        "held",
        "answered 429",
    )
    assert TIME.fullmatch(row["last_success"])
    assert TIME.fullmatch(row["hold_until"])
    assert TIME.fullmatch(row["eta"])


def test_status_estimates_nothing_without_work_done(tickwork: Tickwork, paths: Paths) -> None:
    passed(paths, Outcome.MORE, items=0, backlog=100)
    (row,) = tickwork("status", "--json").json()
    assert row["eta"] is None


def test_status_knows_when_an_armed_job_ticks_next_and_a_halted_one_does_not(tickwork: Tickwork, paths: Paths) -> None:
    passed(paths)
    (row,) = tickwork("status", "--json", config=DEPLOYED.format(armed="true")).json()
    tick = dt.datetime.fromisoformat(row["next_tick"])
    assert tick.minute in (0, 30)
    assert dt.timedelta(0) < tick - dt.datetime.now(dt.UTC) <= dt.timedelta(minutes=30)
    (row,) = tickwork("status", "--json", config=DEPLOYED.format(armed="false")).json()
    assert row["next_tick"] is None
    markers(paths).halt("x")
    (row,) = tickwork("status", "--json", config=DEPLOYED.format(armed="true")).json()
    assert row["next_tick"] is None


def test_status_names_who_holds_the_lock_of_all_jobs_that_share_it(tickwork: Tickwork, paths: Paths) -> None:
    InState.running(paths)
    passed(paths, job="doab-harvest")
    rows = {row["job"]: row for row in tickwork("status", "--json").json()}
    assert rows["doab-harvest"]["lock"] == f"doab-oai: {JOB} (pid {os.getpid()})"
    assert rows["doab-harvest"]["state"] == "idle"


def test_status_sees_a_lock_that_a_stranger_holds_and_never_takes_it(tickwork: Tickwork, paths: Paths) -> None:
    passed(paths)
    paths.lock_dir.mkdir()
    paths.lock("doab-oai").touch()
    assert tickwork("status", "--json").json()[0]["lock"] == ""
    with paths.lock("doab-oai").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert tickwork("status", "--json").json()[0]["lock"] == "doab-oai: held"


def test_status_does_not_call_a_dead_pass_running(tickwork: Tickwork, paths: Paths) -> None:
    program = "import os, sys; from pathlib import Path; from tickwork.contract.ledger import Ledger"
    program += "; Ledger(Path(sys.argv[1])).open_pass(sys.argv[2], 'doab-oai', '', ''); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", program, str(paths.database("ledger")), JOB]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    (row,) = tickwork("status", "--json").json()
    assert (row["state"], row["lock"]) == ("never ran", "")


@pytest.mark.parametrize("kind", ["directory", "dangling link", "binary", "pipe"])
def test_status_and_explain_bear_any_marker(tickwork: Tickwork, paths: Paths, kind: str) -> None:
    marker = markers(paths).folder / ".halted"
    if kind == "directory":
        marker.mkdir()
    elif kind == "dangling link":
        marker.symlink_to("/nonexistent/target")
    elif kind == "pipe":
        os.mkfifo(marker)
    else:
        marker.write_bytes(bytes(range(256)))
    (row,) = tickwork("status", "--json").json()
    assert row["state"] == "halted"
    assert row["reason"]
    assert tickwork("explain", JOB).code == 0
