"""The operator's commands: what they print, what they change, and that an expected fault is one line."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tickwork import cli
from tickwork.contract.layout import Layout
from tickwork.contract.ledger import Ledger
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Outcome
from tickwork.upstream.slots import Slots

JOB = "doab-backfill"
HOST = "directory.doabooks.org"
KEYS = {
    *("job", "state", "reason", "since", "last_outcome", "last_success", "backlog", "eta", "hold_until", "lock"),
    "next_tick",
}
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Tickwork = Callable[..., Said]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICKWORK_CONFIG", "TICKWORK_STATE", "TICKWORK_WRAPPED", "TICKWORK_LOCK_FDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.under(tmp_path / "state")


@pytest.fixture
def tickwork(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tickwork:
    def run(*arguments: str, config: str | None = None) -> Said:
        options = ["--state", str(tmp_path / "state")]
        if config is not None:
            (tmp_path / "tickwork.toml").write_text(config)
            options += ["--config", str(tmp_path / "tickwork.toml")]
        code = 0
        try:
            cli.main([*options, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def passed(layout: Layout, outcome: Outcome = Outcome.MORE, *, job: str = JOB, **figures: Any) -> None:
    plain: dict[str, Any] = {"units": 5, "items": 5, "size": 0, "backlog": None, "reason": "bound reached: 5 items"}
    plain["success"] = outcome in (Outcome.DRAINED, Outcome.MORE)
    with Ledger(layout.database("ledger")) as ledger:
        ledger.close_pass(ledger.open_pass(job, "doab-oai", HOST, ""), outcome, **{**plain, **figures})


def markers(layout: Layout, job: str = JOB) -> Markers:
    made = Markers(layout.job(job))
    made.ready()
    return made


DEPLOYED = """
[jobs.doab-backfill]
command = ["doab", "backfill"]
locks = ["doab-oai"]
schedule = "*/30 * * * *"
wrapper = "/nonexistent/wrapper"
armed = {armed}
"""


class InState:
    """Bringing the job into each of the states there are."""

    @staticmethod
    def halted(layout: Layout) -> None:
        markers(layout).halt("34 of the last 100 are gone")

    @staticmethod
    def running(layout: Layout) -> None:
        with Ledger(layout.database("ledger")) as ledger:
            ledger.open_pass(JOB, "doab-oai", HOST, "")

    @staticmethod
    def done(layout: Layout) -> None:
        passed(layout, Outcome.DRAINED)
        markers(layout).finish()

    @staticmethod
    def held(layout: Layout) -> None:
        passed(layout)
        with Slots(layout.database("slots")) as slots:
            slots.hold(HOST, dt.datetime.now(dt.UTC) + dt.timedelta(hours=2), "answered 429")

    @staticmethod
    def failing(layout: Layout) -> None:
        passed(layout, Outcome.CRASHED, reason="KeyError: 'title'")
        markers(layout)
        (layout.job(JOB) / ".tally").write_text("000000000002 000000000000 000000000001\n")

    @staticmethod
    def waiting(layout: Layout) -> None:
        passed(layout)
        markers(layout)
        (layout.job(JOB) / ".skips").write_text("000000000009 000000000002 000000000000\n")

    @staticmethod
    def disarmed(layout: Layout) -> None:
        passed(layout)

    @staticmethod
    def never_ran(layout: Layout) -> None:
        markers(layout)

    @staticmethod
    def idle(layout: Layout) -> None:
        passed(layout)


STATES = {
    "halted": "tickwork rearm doab-backfill --why",
    "running": "nothing: a pass is under way",
    "done": "tickwork rearm doab-backfill --done --why",
    "held": "tickwork holds clear",
    "failing": "tickwork logs doab-backfill",
    "waiting": "the next tick tries again",
    "disarmed": "arm the host in the inventory",
    "never ran": "tickwork run doab-backfill",
    "idle": "waits for its next tick",
}


def bring(layout: Layout, state: str) -> str:
    """Bring the job into the state; gives the settings it needs."""
    getattr(InState, state.replace(" ", "_"))(layout)
    return DEPLOYED.format(armed="false" if state == "disarmed" else "true")


# status


@pytest.mark.parametrize("state", STATES)
def test_status_gives_each_state_with_all_the_keys(tickwork: Tickwork, layout: Layout, state: str) -> None:
    config = bring(layout, state)
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


def test_status_without_anything_lists_the_jobs_there_are(tickwork: Tickwork, layout: Layout) -> None:
    said = tickwork("status", "--json")
    assert {row["state"] for row in said.json()} == {"never ran"}
    assert JOB in {row["job"] for row in said.json()}
    assert not layout.state.exists(), "looking changes nothing"


def test_status_tells_of_the_last_pass_the_backlog_and_the_hold(tickwork: Tickwork, layout: Layout) -> None:
    passed(layout, Outcome.MORE, items=50, backlog=100)
    InState.held(layout)
    passed(layout, Outcome.CRASHED, items=50, backlog=100)
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


def test_status_estimates_nothing_without_work_done(tickwork: Tickwork, layout: Layout) -> None:
    passed(layout, Outcome.MORE, items=0, backlog=100)
    (row,) = tickwork("status", "--json").json()
    assert row["eta"] is None


def test_status_knows_when_an_armed_job_ticks_next_and_a_halted_one_does_not(
    tickwork: Tickwork, layout: Layout
) -> None:
    passed(layout)
    (row,) = tickwork("status", "--json", config=DEPLOYED.format(armed="true")).json()
    tick = dt.datetime.fromisoformat(row["next_tick"])
    assert tick.minute in (0, 30)
    assert dt.timedelta(0) < tick - dt.datetime.now(dt.UTC) <= dt.timedelta(minutes=30)
    (row,) = tickwork("status", "--json", config=DEPLOYED.format(armed="false")).json()
    assert row["next_tick"] is None
    markers(layout).halt("x")
    (row,) = tickwork("status", "--json", config=DEPLOYED.format(armed="true")).json()
    assert row["next_tick"] is None


def test_status_names_who_holds_the_lock_of_all_jobs_that_share_it(tickwork: Tickwork, layout: Layout) -> None:
    InState.running(layout)
    passed(layout, job="doab-harvest")
    rows = {row["job"]: row for row in tickwork("status", "--json").json()}
    assert rows["doab-harvest"]["lock"] == f"doab-oai: {JOB} (pid {os.getpid()})"
    assert rows["doab-harvest"]["state"] == "idle"


def test_status_sees_a_lock_that_a_stranger_holds_and_never_takes_it(tickwork: Tickwork, layout: Layout) -> None:
    passed(layout)
    layout.lock_dir.mkdir()
    layout.lock("doab-oai").touch()
    assert tickwork("status", "--json").json()[0]["lock"] == ""
    with layout.lock("doab-oai").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert tickwork("status", "--json").json()[0]["lock"] == "doab-oai: held"


def test_status_does_not_call_a_dead_pass_running(tickwork: Tickwork, layout: Layout) -> None:
    program = "import os, sys; from pathlib import Path; from tickwork.contract.ledger import Ledger"
    program += "; Ledger(Path(sys.argv[1])).open_pass(sys.argv[2], 'doab-oai', '', ''); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", program, str(layout.database("ledger")), JOB]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    (row,) = tickwork("status", "--json").json()
    assert (row["state"], row["lock"]) == ("never ran", "")


@pytest.mark.parametrize("kind", ["directory", "dangling link", "binary", "pipe"])
def test_status_and_explain_bear_any_marker(tickwork: Tickwork, layout: Layout, kind: str) -> None:
    marker = markers(layout).folder / ".halted"
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


# explain


@pytest.mark.parametrize("state", STATES)
def test_explain_says_why_and_names_what_mends_each_state(tickwork: Tickwork, layout: Layout, state: str) -> None:
    config = bring(layout, state)
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


def test_explain_shows_what_operators_did(tickwork: Tickwork, layout: Layout) -> None:
    InState.halted(layout)
    tickwork("rearm", JOB, "--why", "the repository moved")
    assert "rearm: the repository moved (was: 34 of the last 100 are gone)" in tickwork("explain", JOB).out


# rearm


def test_rearming_removes_the_halt_and_is_audited(tickwork: Tickwork, layout: Layout) -> None:
    InState.halted(layout)
    said = tickwork("rearm", JOB, "--why", "looked at it", "--json")
    assert said.json() == {"job": JOB, "removed": [".halted"]}
    assert not Markers(layout.job(JOB)).halted
    with Ledger(layout.database("ledger"), read_only=True) as ledger:
        (entry,) = ledger.audit(JOB)
    assert (entry["action"], entry["why"]) == ("rearm", "looked at it (was: 34 of the last 100 are gone)")
    assert entry["who"]


def test_rearming_a_done_job_needs_done(tickwork: Tickwork, layout: Layout) -> None:
    InState.done(layout)
    refused = tickwork("rearm", JOB, "--why", "again")
    assert (refused.code, Markers(layout.job(JOB)).done) == (2, True)
    assert "done (use --done)" in refused.err
    assert tickwork("rearm", JOB, "--done", "--why", "again").out == f"{JOB} is armed again: removed .done\n"
    assert not Markers(layout.job(JOB)).done


@pytest.mark.parametrize("why", ["", "   "])
def test_rearming_without_a_reason_changes_nothing(tickwork: Tickwork, layout: Layout, why: str) -> None:
    InState.halted(layout)
    said = tickwork("rearm", JOB, "--why", why)
    assert said.code == 2
    assert "--why must say why" in said.err
    assert Markers(layout.job(JOB)).halted


def test_rearming_what_is_not_halted_is_an_error_without_a_trace(tickwork: Tickwork, layout: Layout) -> None:
    InState.idle(layout)
    said = tickwork("rearm", JOB, "--why", "x")
    assert (said.code, said.err) == (2, f"tickwork: {JOB} is not halted: there is nothing to re-arm\n")
    with Ledger(layout.database("ledger"), read_only=True) as ledger:
        assert not ledger.audit(JOB)


# holds, manners, logs


def test_holds_are_listed_and_cleared_with_a_reason(tickwork: Tickwork, layout: Layout) -> None:
    assert tickwork("holds").out == "no upstream is on hold\n"
    assert tickwork("holds", "--json").json() == []
    InState.held(layout)
    (row,) = tickwork("holds", "--json").json()
    assert set(row) == {"host", "until", "since", "why"}
    assert (row["host"], row["why"]) == (HOST, "answered 429")
    assert TIME.fullmatch(row["until"])
    assert HOST in tickwork("holds").out
    assert tickwork("holds", "clear", HOST, "--why", " ").code == 2
    assert tickwork("holds", "--json").json()
    assert tickwork("holds", "clear", HOST, "--why", "they agreed").out == f"{HOST} may be called again\n"
    assert tickwork("holds", "--json").json() == []
    again = tickwork("holds", "clear", HOST, "--why", "they agreed")
    assert (again.code, len(again.err.splitlines())) == (2, 1)


def test_clearing_a_hold_before_anything_was_asked_is_an_error(tickwork: Tickwork, layout: Layout) -> None:
    said = tickwork("holds", "clear", HOST, "--why", "x")
    assert said.code == 2
    assert "nothing was ever asked of it" in said.err
    assert not layout.database("slots").exists()


def test_manners_are_a_table_and_json(tickwork: Tickwork, layout: Layout) -> None:
    assert tickwork("manners").out == "no requests were sent\n"
    InState.held(layout)
    (row,) = tickwork("manners", "--json").json()
    assert (row["host"], row["holds"], row["requests"]) == (HOST, 1, 0)
    assert tickwork("manners").out.splitlines()[0].split()[:3] == ["DAY", "HOST", "REQUESTS"]


def test_logs_show_the_end_of_the_jobs_log(tickwork: Tickwork, layout: Layout) -> None:
    missing = tickwork("logs", JOB)
    assert (missing.code, len(missing.err.splitlines())) == (2, 1)
    layout.log_dir.mkdir(parents=True)
    layout.log(JOB).write_bytes(b"first\nsecond\n\xff third\n")
    assert tickwork("logs", JOB, "-n", "2").out == "second\n� third\n"
    assert tickwork("logs", JOB, "--json").json() == ["first", "second", "� third"]
    assert tickwork("logs", "nightly").code == 2


# run


def test_run_hands_the_jobs_own_command_the_same_deployment(tmp_path: Path, layout: Layout) -> None:
    InState.halted(layout)
    command = [sys.executable, "-m", "tickwork", "--state", str(layout.state), "run", JOB]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 4
    assert "34 of the last 100 are gone" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_run_goes_through_the_wrapper_where_one_is_deployed(tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\necho "$TICK_SCHEDULER $TICK_FOREGROUND"; exit 3\n')
    wrapper.chmod(0o755)
    (tmp_path / "t.toml").write_text(DEPLOYED.format(armed="true").replace("/nonexistent/wrapper", str(wrapper)))
    command = [sys.executable, "-m", "tickwork", "--config", str(tmp_path / "t.toml"), "run", JOB]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout) == (3, "hand 1\n")


# Expected faults, and what the program costs


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["status"], "stat = 1"),
        (["status"], "[jobs.x]\ntimeout = 'soon'"),
        (["status"], "not toml"),
        (["run", "nightly"], None),
        (["run", JOB], DEPLOYED.format(armed="true")),
        (["rearm", "nightly", "--why", "x"], None),
        (["doab", "export"], None),
        (["doab", "reconcile"], None),
        (["doab", "backfill", "--ids-file", "/nonexistent/ids"], None),
        (["--config", "/nonexistent/t.toml", "status"], None),
    ],
)
def test_an_expected_fault_is_one_line_and_no_traceback(
    tickwork: Tickwork, arguments: list[str], config: str | None
) -> None:
    said = tickwork(*arguments, config=config)
    assert said.code in (1, 2)
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert "Traceback" not in said.err


def test_a_damaged_ledger_is_one_line(tickwork: Tickwork, layout: Layout) -> None:
    layout.database("ledger").parent.mkdir(parents=True)
    layout.database("ledger").write_bytes(b"no database" * 500)
    said = tickwork("status")
    assert (said.code, len(said.err.splitlines())) == (2, 1)


def test_a_ledger_whose_maker_was_killed_at_once_is_an_empty_one(tickwork: Tickwork, layout: Layout) -> None:
    layout.database("ledger").parent.mkdir(parents=True)
    layout.database("ledger").touch()
    assert {row["state"] for row in tickwork("status", "--json").json()} == {"never ran"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["status"], ["explain", JOB], ["holds"], ["--help", "status"]]
)
def test_what_an_operator_asks_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import sys; from tickwork.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, "--state", str(tmp_path), *arguments]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(said.stdout.splitlines()[-1].split()[1:])
    assert "tickwork" in loaded
    heavy = {"lxml", "requests", "urllib3", "torch", "sqlite_utils", "kombu", "numpy", "faiss", "psycopg", "jinja2"}
    assert not loaded & heavy


def test_help_names_the_sources_and_the_operators_commands(tickwork: Tickwork) -> None:
    said = tickwork("--help")
    assert said.code == 0
    for name in ("status", "explain", "run", "rearm", "holds", "manners", "logs", "doab"):
        assert re.search(rf"^\W*{name}\b", said.out, re.MULTILINE), name
