"""A tick runs with all its locks or is skipped, and a lock file is only ever locked."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import shell, taken, visitor
from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.wrapper import is_free, skips
from tests.kits.wrappers import Wrapper


def test_second_tick_is_skipped_while_the_first_holds_the_lock(tmp_path: Path) -> None:
    with Oracle() as oracle:
        first = Wrapper(tmp_path, visitor(oracle, 300), name="first")
        second = Wrapper(tmp_path, visitor(oracle, 0), name="second", scheduler="systemd")
        tick = first.start()
        oracle.wait_for("job")
        for count in (1, 2):
            answer = second.tick()
            assert (answer.returncode, answer.stdout, answer.stderr) == (75, "", "")
            assert skips(second)[:2] == [count, count]
        assert second.outcomes() == ["busy", "busy"]
        assert len(oracle.seen()) == 1, "a skipped tick started its job"
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)
        second.tick()
        assert skips(second) == [2, 0, 0]


def test_a_skipped_tick_starts_no_python(tmp_path: Path) -> None:
    started = tmp_path / "started"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"open({str(started)!r}, 'w').close()\n")
    job = Wrapper(
        tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], environment={"PYTHONPATH": str(tmp_path / "site")}
    )
    with taken(tmp_path / "lock" / "shared"):
        job.tick()
    assert job.outcomes() == ["busy"]
    assert not started.exists()
    job.tick()
    assert started.exists(), "the probe itself does not work"


def test_a_lock_file_is_never_created_changed_or_deleted(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    lock = tmp_path / "lock" / "shared"
    lock.write_text("who owns this\n")
    before = lock.stat()
    wrapper.tick()
    with taken(lock):
        wrapper.tick()
    after = lock.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_all_the_locks_are_held_while_the_job_runs(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = Wrapper(tmp_path, visitor(oracle, 300), locks=["a", "b", "c"])
        tick = wrapper.start()
        oracle.wait_for("job")
        assert [is_free(tmp_path / "lock" / name) for name in "abc"] == [False, False, False]
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)
        assert [is_free(tmp_path / "lock" / name) for name in "abc"] == [True, True, True]
