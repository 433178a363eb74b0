"""The unit of a job, rendered as the role would, is one that systemd takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

from tests.kits.wrappers import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def rendered(folder: Path, *, continues: bool) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    text = environment.from_string((ROOT / "templates/tick.service.j2").read_text()).render(
        ansible_managed="Managed by Ansible",
        tick_name="consume",
        tick_state=folder,
        tick_on_failure="",
        tick_continues=continues,
        _tick_wrapper="/bin/true",
        tick_user="daemon",
        tickwork_group="daemon",
        tick_lock_wait_seconds=0,
        tick_timeout_seconds=3600,
        tick_kill_after_seconds=120,
        tickwork_log_dir=folder,
        tick_metrics=folder,
        tick_writable=[],
        tick_devices=False,
        tick_memory_deny_write_execute=True,
    )
    (folder / "tickwork-consume.service").write_text(text)
    return text


@pytest.mark.parametrize("continues", [False, True])
def test_systemd_takes_it(tmp_path: Path, continues: bool) -> None:
    rendered(tmp_path, continues=continues)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / "tickwork-consume.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_to_start_a_job_that_continues_does_not_take_as_long_as_its_pass(tmp_path: Path) -> None:
    text = rendered(tmp_path, continues=True)
    assert "Type=exec\nRuntimeMaxSec=3780\n" in text
    assert "TimeoutStartSec" not in text
    assert "Type=oneshot\n" in rendered(tmp_path, continues=False)
