"""A job run by hand and its wrapper share the lock, the markers and the reserve."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.faults.jobs.oracle import Oracle
from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.wrapper import unit_job
from tests.kits.wrappers import ROOT, Wrapper


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "jobs"), **more}


def _by_hand(wrapper: Wrapper, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        wrapper.command, env=_environment(**more), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_job_run_by_hand_takes_the_same_lock_and_says_who_has_it(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = unit_job(tmp_path, oracle, units=100_000)
        tick = wrapper.start()
        job = oracle.wait_for("job")
        by_hand = _by_hand(wrapper)
        assert by_hand.returncode == 75
        assert f"another run is active: job (pid {job.pid}, since 20" in by_hand.stderr
        assert len(oracle.seen()) == 1
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)


def test_a_tick_is_skipped_while_the_job_runs_by_hand(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = unit_job(tmp_path, oracle, units=100_000)
        with subprocess.Popen(wrapper.command, env=_environment(), stderr=subprocess.DEVNULL) as by_hand:
            oracle.wait_for("job")
            wrapper.tick()
            assert wrapper.outcomes() == ["busy"]
            by_hand.terminate()
            assert by_hand.wait(timeout=PATIENCE_SECONDS) == 3


def test_a_job_run_by_hand_honours_the_markers_of_its_wrapper(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = unit_job(tmp_path, oracle, units=1)
        (wrapper.dir / ".halted").write_text('time=t job=job reason="a human must look"\n')
        by_hand = _by_hand(wrapper)
        assert by_hand.returncode == 4
        assert "a human must look" in by_hand.stderr
        assert "tickwork rearm job" in by_hand.stderr
        # Also when a variable says that a wrapper has looked already: it may have outlived that wrapper.
        assert _by_hand(wrapper, TICKWORK_WRAPPED="job").returncode == 4
        (wrapper.dir / ".halted").unlink()
        (wrapper.dir / ".done").touch()
        assert _by_hand(wrapper).returncode == 0
        assert not oracle.seen()


def test_a_job_run_by_hand_and_its_wrapper_agree_on_the_reserve(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = unit_job(tmp_path, oracle, units=1)
        assert _by_hand(wrapper).returncode == 0
        made = (wrapper.dir / ".reserve").stat()
        wrapper.tick()
        assert wrapper.outcomes() == ["drained"]
        assert _by_hand(wrapper).returncode == 0
        kept = (wrapper.dir / ".reserve").stat()
        assert (kept.st_ino, kept.st_mtime_ns, kept.st_size) == (made.st_ino, made.st_mtime_ns, 4096)
