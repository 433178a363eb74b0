"""The wrapper's metrics tell the last run and the markers, are replaced whole, and can fail without harm."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from tests.faults.jobs.proofs import shell, taken
from tests.kits.wrappers import Wrapper


def metrics(wrapper: Wrapper) -> dict[str, float]:
    """The wrapper's metrics, without their common prefix."""
    text = (wrapper.home / "metrics" / f"{wrapper.name}.tick.prom").read_text()
    found = re.findall(rf'^tickwork_job_(\w+)\{{job="{wrapper.name}"\}} (\d+)$', text, re.MULTILINE)
    assert len(found) == len(text.splitlines()), text
    return {name: float(value) for name, value in found}


def test_metrics_tell_the_exit_code_the_markers_and_the_skips(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell(f"exit $(cat {tmp_path}/code)"), drains=True)
    (tmp_path / "code").write_text("3")
    wrapper.tick()
    with taken(tmp_path / "lock" / "shared"):
        wrapper.tick()
    wrapper.tick()
    assert metrics(wrapper) == metrics(wrapper) | {"last_exit_code": 3, "halted": 0, "done": 0, "lock_skips_total": 1}
    assert metrics(wrapper)["interval_seconds"] == 1800
    assert abs(metrics(wrapper)["last_run_timestamp_seconds"] - time.time()) < 60
    (tmp_path / "code").write_text("0")
    wrapper.tick()
    assert metrics(wrapper) == metrics(wrapper) | {"last_exit_code": 0, "halted": 0, "done": 1}
    (wrapper.dir / ".done").unlink()
    (tmp_path / "code").write_text("4")
    wrapper.tick()
    assert metrics(wrapper) == metrics(wrapper) | {"last_exit_code": 4, "halted": 1, "done": 0}


def test_a_halt_found_by_a_later_tick_reaches_the_metrics_and_the_last_run_stays(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    ran = metrics(wrapper)
    (wrapper.dir / ".halted").touch()
    wrapper.tick()
    assert metrics(wrapper) == ran | {"halted": 1}


def test_a_halt_before_the_first_run_reaches_the_metrics(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    (wrapper.dir / ".halted").touch()
    answer = wrapper.tick()
    assert answer.stderr == ""
    assert metrics(wrapper) == {"halted": 1, "done": 0, "lock_skips_total": 0, "interval_seconds": 1800}


def test_metrics_are_replaced_whole(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    path = tmp_path / "metrics" / "job.tick.prom"
    with path.open() as old:
        wrapper.tick()
        # Whoever opened the file before keeps a whole one: it was replaced, not written into.
        assert len(old.readlines()) == 7
        assert os.fstat(old.fileno()).st_nlink == 0
    assert [entry.name for entry in (tmp_path / "metrics").iterdir()] == ["job.tick.prom"]


def test_metrics_that_cannot_be_written_never_change_the_outcome(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), scheduler="systemd")
    (tmp_path / "metrics").rmdir()
    answer = wrapper.tick()
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "", "")
