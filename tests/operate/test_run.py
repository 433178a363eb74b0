"""`tickwork run` and `logs`: a job by hand is the deployed one, and its log can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.operate import DEPLOYED, JOB, InState, Tickwork
from tickwork.contract.paths import Paths

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_run_hands_the_jobs_own_command_the_same_deployment(tmp_path: Path, paths: Paths) -> None:
    InState.halted(paths)
    command = [sys.executable, "-m", "tickwork", "--state", str(paths.state), "run", JOB]
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


def test_logs_show_the_end_of_the_jobs_log(tickwork: Tickwork, paths: Paths) -> None:
    missing = tickwork("logs", JOB)
    assert (missing.code, len(missing.err.splitlines())) == (2, 1)
    paths.log_dir.mkdir(parents=True)
    paths.log(JOB).write_bytes(b"first\nsecond\n\xff third\n")
    assert tickwork("logs", JOB, "-n", "2").out == "second\n� third\n"
    assert tickwork("logs", JOB, "--json").json() == ["first", "second", "� third"]
    assert tickwork("logs", "nightly").code == 2
