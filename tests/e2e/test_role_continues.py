"""A job that continues, deployed by the real role: taken off its schedule, or away, its pass is asked to end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.playbook import play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPT = "trap 'exit 3' TERM; : >\"$0\"; while :; do sleep 0.05; done"


def test_a_pass_under_way_ends_when_its_job_is_disarmed_or_removed(tmp_path: Path) -> None:
    root, ready = tmp_path / "root", tmp_path / "ready"
    job = {
        "name": "consume",
        "command": ["bash", "-c", SCRIPT, str(ready), "--seconds", "3300"],
        "schedule": "* * * * *",
        "timeout": "1h",
        "continues": True,
    }

    def deploy(*jobs: dict[str, Any]) -> None:
        done = play(root, tickwork_sources=[], tickwork_ticks=jobs, tick_program="/usr/bin/env")
        assert done.returncode == 0, done.stdout + done.stderr

    def begin() -> subprocess.Popen[bytes]:
        ready.unlink(missing_ok=True)
        wrapper = root / "usr/local/lib/tickwork/jobs/consume"
        tick = subprocess.Popen([wrapper], env={**os.environ, "TICK_SCHEDULER": "hand"})
        until(ready.exists, "the pass did not begin")
        return tick

    deploy(job)
    tick = begin()
    deploy(job)
    assert tick.poll() is None, "a deployment that changes nothing disturbs no pass"
    deploy({**job, "armed": False})
    assert tick.wait(PATIENCE_SECONDS) == 3
    tick = begin()
    deploy()
    assert tick.wait(PATIENCE_SECONDS) == 3
    assert not (root / "usr/local/lib/tickwork/jobs/consume").exists()
    assert "outcome=more" in (root / "var/log/tickwork/consume.log").read_text().splitlines()[-1]


def test_one_whose_passes_would_be_killed_is_refused_by_name(tmp_path: Path) -> None:
    job = {
        "name": "consume",
        "command": "doab harvest --seconds 3300",
        "schedule": "* * * * *",
        "timeout": "55m",
        "continues": True,
    }
    done = play(tmp_path / "root", tickwork_sources=[], tickwork_ticks=[job])
    assert done.returncode != 0
    assert "consume continues: it cannot drain as well, must not wait for its locks" in done.stdout
