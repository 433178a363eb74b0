"""The wrapper and the operator's commands on one state folder: re-arming, and failures before Python begins."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.jobs.proofs import shell
from tests.kits.wrappers import Wrapper
from tickwork import cli
from tickwork.contract.ledger import Ledger
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Outcome

DAY = 86400
JOB = "doab-backfill"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICKWORK_CONFIG", "TICKWORK_STATE", "TICKWORK_WRAPPED", "TICKWORK_LOCK_FDS"):
        monkeypatch.delenv(name, raising=False)


def operator(wrapper: Wrapper, *arguments: str) -> int:
    try:
        cli.main(["--state", str(wrapper.state), *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def days_ago(wrapper: Wrapper, days: int) -> None:
    """As if all that lies in the job's folder had been written so long ago."""
    moment = time.time() - days * DAY
    (wrapper.dir / ".tally").write_text(f"{2:012d} {2:012d} {int(moment):012d}\n")
    (wrapper.dir / ".progress").touch()
    for path in wrapper.dir.iterdir():
        os.utime(path, (moment, moment))


def test_a_job_that_was_done_for_a_month_is_not_halted_as_stalled_when_it_is_armed_again(tmp_path: Path) -> None:
    wrapper = Wrapper(
        tmp_path, shell(f"exit $(cat {tmp_path}/code)"), name=JOB, drains=True, stalled=7 * DAY, scheduler="systemd"
    )
    (tmp_path / "code").write_text("0")
    assert wrapper.tick().returncode == 0
    assert (wrapper.dir / ".done").exists()
    days_ago(wrapper, 30)
    assert operator(wrapper, "rearm", JOB, "--done", "--why", "there is more now") == 0
    assert not (wrapper.dir / ".done").exists()
    # The upstream is away today: held or in trouble, pass after pass, without one unit done.
    for code, outcome in (("3", "more"), ("3", "more"), ("75", "busy"), ("3", "more"), ("1", "crashed")):
        (tmp_path / "code").write_text(code)
        wrapper.tick()
        assert wrapper.outcomes()[-1] == outcome
    assert not wrapper.halted
    assert int((wrapper.dir / ".tally").read_text().split()[0]) == 1, "the failures of a month ago do not count"


def test_arming_a_done_job_again_lets_the_breaker_look_back_no_further(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 0"), name=JOB, drains=True)
    wrapper.tick()
    days_ago(wrapper, 30)
    markers = Markers(wrapper.dir)
    assert time.time() - markers.armed().timestamp() > 29 * DAY
    assert operator(wrapper, "rearm", JOB, "--done", "--why", "again") == 0
    assert time.time() - markers.armed().timestamp() < 60
    assert markers.failures() == 0
    assert (wrapper.dir / ".reserve").read_bytes() == b" " * 4096


def test_without_re_arming_a_month_without_progress_is_a_stall(tmp_path: Path) -> None:
    """What the test above relies on: the same ticks do halt a job that nobody armed again."""
    wrapper = Wrapper(tmp_path, shell("exit 3"), name=JOB, stalled=7 * DAY)
    wrapper.tick()
    days_ago(wrapper, 30)
    for _ in range(3):
        wrapper.tick()
    assert wrapper.halted


# Failures before Python begins


def shown(wrapper: Wrapper, capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert operator(wrapper, *command, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("ran_before", [False, True])
def test_a_job_whose_command_is_missing_is_called_failing(
    tmp_path: Path, ran_before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapper = Wrapper(tmp_path, ["/nonexistent/tickwork", "doab", "backfill"], name=JOB, failures=9)
    if ran_before:
        (tmp_path / "state" / "db").mkdir()
        with Ledger(tmp_path / "state" / "db" / "ledger.db") as ledger:
            row = ledger.open_pass(JOB, "doab-oai", "", "")
            ledger.close_pass(row, Outcome.MORE, units=1, items=1, size=0, backlog=5, reason="bound", success=True)
    for _ in range(2):
        wrapper.tick()
    (row_shown,) = [row for row in shown(wrapper, capsys, "status") if row["job"] == JOB]
    explained = shown(wrapper, capsys, "explain", JOB)
    for found in (row_shown, explained):
        assert found["state"] == "failing"
        assert found["reason"].startswith("2 failures in a row")
        assert "the pass did not start" in found["reason"]
    assert f"tickwork logs {JOB}" in explained["mend"]
