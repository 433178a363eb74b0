"""Markers and reserve decide, in their order, whether a job runs; removing a marker by hand arms it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.jobs import proofs
from tests.faults.jobs.proofs import lines, shell
from tests.kits.wrapper import tally
from tests.kits.wrappers import Wrapper


def test_a_halted_job_does_not_run(tmp_path: Path) -> None:
    proofs.a_halted_job_does_not_run(tmp_path)


def test_a_done_job_is_not_run_again_until_done_is_removed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    wrapper = Wrapper(tmp_path, shell(f"echo x >>{ran}"), drains=True, scheduler="systemd")
    assert [wrapper.tick().returncode for _ in range(3)] == [0, 0, 0]
    assert ran.read_text() == "x\n"
    (wrapper.dir / ".done").unlink()
    wrapper.tick()
    assert ran.read_text() == "x\nx\n"
    assert wrapper.outcomes() == ["drained", "done", "done", "drained"]


def test_nothing_runs_without_a_full_reserve(tmp_path: Path) -> None:
    proofs.nothing_runs_without_a_full_reserve(tmp_path)


def test_a_running_job_has_a_full_reserve(tmp_path: Path) -> None:
    proofs.a_run_leaves_a_full_reserve(tmp_path)


@pytest.mark.parametrize("content", [b"", b" " * 4095, b"\0" * 4096])
def test_a_reserve_that_is_short_or_was_never_written_is_made_anew(tmp_path: Path, content: bytes) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    (wrapper.dir / ".reserve").write_bytes(content)
    wrapper.tick()
    assert (wrapper.dir / ".reserve").read_bytes() == b" " * 4096


def test_a_pipe_called_halted_halts_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), scheduler="systemd")
    wrapper.tick()
    os.mkfifo(wrapper.dir / ".halted")
    assert wrapper.tick().returncode == 4


def test_halted_is_looked_at_before_done_and_done_before_the_lock(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 0"), scheduler="systemd")
    wrapper.tick()
    (tmp_path / "lock" / "shared").unlink()
    (wrapper.dir / ".done").touch()
    assert wrapper.tick().returncode == 0
    (wrapper.dir / ".halted").touch()
    assert wrapper.tick().returncode == 4
    (wrapper.dir / ".halted").unlink()
    (wrapper.dir / ".done").unlink()
    assert wrapper.tick().returncode == 66
    assert wrapper.outcomes() == ["drained", "done", "halted", "unable"]


def test_the_reserve_is_looked_at_before_the_lock(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 0"), scheduler="systemd")
    wrapper.tick()
    (tmp_path / "lock" / "shared").unlink()
    (wrapper.dir / ".reserve").unlink()
    (wrapper.dir / ".reserve").mkdir()
    answer = wrapper.tick()
    assert answer.returncode == 1
    assert "no room for the reserve" in answer.stderr


def test_a_halt_that_was_cut_short_before_the_rename_is_completed(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell(f"echo x >>{tmp_path}/ran; exit 3"))
    wrapper.tick()
    (wrapper.dir / ".reserve").write_bytes(b'reason="the breaker opened"'.ljust(4095) + b"\n")
    answer = wrapper.tick()
    assert answer.stdout == "tickwork: job halted: the breaker opened. Then: tickwork explain job\n"
    assert wrapper.halted
    assert (tmp_path / "ran").read_text() == "x\n"


def test_removing_the_marker_by_hand_rearms_with_a_new_reserve_and_fresh_counters(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 1"), failures=2)
    wrapper.tick()
    wrapper.tick()
    assert wrapper.halted
    (wrapper.dir / ".halted").unlink()
    wrapper.tick()
    assert not wrapper.halted
    assert (wrapper.dir / ".reserve").stat().st_size == 4096
    assert tally(wrapper)[0] == 1
    answer = wrapper.tick()
    assert wrapper.halted
    assert len(lines(answer.stdout)) == 1, "the second halt is announced too"
