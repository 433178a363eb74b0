"""A halt survives a killed wrapper, a full disk (bytes, inodes), odd markers; what could not halt does not run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.jobs.full import fill, make_room
from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import JOBS, lines, shell, taken
from tests.kits.patience import until
from tests.kits.wrappers import ROOT, Wrapper

FULL = pytest.mark.parametrize(
    "how", [pytest.param("bytes", marks=pytest.mark.slow), pytest.param("inodes", marks=pytest.mark.slow)]
)
PYTHON = {"PYTHONPATH": f"{ROOT / 'jobs'}:{ROOT}"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own for the state folder."""
    if os.geteuid() != 0:
        pytest.skip("a full disk is a tmpfs, and only root can mount one")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "tickwork-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def on(disk: Path, home: Path, script: str, **options: object) -> Wrapper:
    """A wrapper whose state is on the small disk, and its log is not."""
    return Wrapper(home, shell(script), state=disk, scheduler="systemd", **options)  # type: ignore[arg-type]


def contract_job(disk: Path, home: Path, how: str) -> Wrapper:
    command = [sys.executable, str(JOBS / "halting_job.py"), "job", str(disk), str(home / "lock"), how]
    return Wrapper(home, command, state=disk, scheduler="systemd", environment=PYTHON)


@pytest.mark.slow
def test_the_disk_of_these_tests_is_really_full(disk: Path) -> None:
    (disk / "before").write_text("x")
    fill(disk, "bytes")
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_text("x")
    make_room(disk)
    fill(disk, "inodes")
    with pytest.raises(OSError, match="No space left"):
        (disk / "another").touch()


@FULL
def test_a_halt_is_written_on_a_full_disk(disk: Path, tmp_path: Path, how: str) -> None:
    wrapper = on(disk, tmp_path, f"exit $(cat {tmp_path}/code)")
    (tmp_path / "code").write_text("3")
    wrapper.tick()
    fill(disk, how)
    (tmp_path / "code").write_text("4")
    answer = wrapper.tick()
    assert answer.returncode == 4
    assert len(lines(answer.stdout + answer.stderr)) == 1
    assert (wrapper.dir / ".halted").stat().st_size == 4096
    assert "asked to halt" in (wrapper.dir / ".halted").read_text()
    assert wrapper.tick().stdout == "", "announced twice"
    assert wrapper.outcomes() == ["more", "halted", "halted"]


@FULL
def test_a_job_halts_with_its_reason_on_a_disk_that_fills_under_it(disk: Path, tmp_path: Path, how: str) -> None:
    wrapper = contract_job(disk, tmp_path, how)
    answer = wrapper.tick()
    assert answer.returncode == 4
    assert "34 of the last 100 are gone" in answer.stdout
    assert "34 of the last 100 are gone" in (wrapper.dir / ".halted").read_text()
    assert "Traceback" not in wrapper.log.read_text()


@FULL
def test_a_halt_on_a_full_disk_survives_the_kill_of_its_wrapper(disk: Path, tmp_path: Path, how: str) -> None:
    ran = tmp_path / "ran"
    halt = "from pathlib import Path; from tickwork.contract.markers import Markers"
    halt += f"; Markers(Path('{disk}/jobs/job')).halt('34 gone')"
    script = f'echo x >>{ran}; [ -e {tmp_path}/halt ] || exit 3; {sys.executable} -c "{halt}"; sleep 300; exit 4'
    wrapper = on(disk, tmp_path, script, environment=PYTHON)
    wrapper.tick()
    fill(disk, how)
    (tmp_path / "halt").touch()
    tick = wrapper.start()
    until(lambda: wrapper.halted, "the job did not halt")
    group = _child(tick.pid)
    tick.kill()
    assert tick.communicate()[0] == ""
    os.killpg(group, signal.SIGKILL)
    said = [wrapper.tick() for _ in range(3)]
    assert [answer.returncode for answer in said] == [4, 4, 4]
    assert ["34 gone" in answer.stdout for answer in said] == [True, False, False]
    assert ran.read_text() == "x\nx\n"


def test_a_halt_survives_the_kill_of_its_wrapper_right_after_it(tmp_path: Path) -> None:
    # Also without a disk of its own, so that it is tested without root.
    # The wrapper is the parent of `timeout`, the job's parent. The job lives on and would answer 4, were it asked.
    wrapper_pid = (
        "read -ra words </proc/$PPID/stat; kill -KILL ${words[3]}; while [ -e /proc/${words[3]}/exe ]; do :; done"
    )
    script = f"echo x >>$STATE/ran; mv -T $STATE/.reserve $STATE/.halted; {wrapper_pid}; exit 4"
    wrapper = Wrapper(tmp_path, shell(script), scheduler="systemd")
    wrapper.environment["STATE"] = str(wrapper.dir)
    wrapper.path.write_text(wrapper.render())
    assert wrapper.tick().returncode == -signal.SIGKILL
    assert [wrapper.tick().returncode for _ in range(2)] == [4, 4]
    assert (wrapper.dir / "ran").read_text() == "x\n"


@FULL
def test_failures_in_a_row_are_counted_on_a_full_disk_and_halt(disk: Path, tmp_path: Path, how: str) -> None:
    wrapper = on(disk, tmp_path, f"exit $(cat {tmp_path}/code)", failures=3)
    (tmp_path / "code").write_text("3")
    wrapper.tick()
    fill(disk, how)
    (tmp_path / "code").write_text("1")
    assert [wrapper.tick().returncode for _ in range(4)] == [1, 1, 4, 4]
    assert "3 failures in a row" in (wrapper.dir / ".halted").read_text()


@FULL
def test_skips_are_counted_on_a_full_disk(disk: Path, tmp_path: Path, how: str) -> None:
    wrapper = on(disk, tmp_path, "exit 3")
    wrapper.tick()
    fill(disk, how)
    with taken(tmp_path / "lock" / "shared"):
        wrapper.tick()
        wrapper.tick()
    assert (wrapper.dir / ".skips").read_text().split()[:2] == ["000000000002"] * 2


@FULL
def test_removing_the_marker_by_hand_on_a_full_disk_lets_nothing_run(disk: Path, tmp_path: Path, how: str) -> None:
    ran = tmp_path / "ran"
    wrapper = on(disk, tmp_path, f"echo x >>{ran}; exit 4")
    wrapper.tick()
    fill(disk, how)
    (wrapper.dir / ".halted").unlink()
    fill(disk, how)  # what the marker had taken was free for a moment, and is taken again
    for _ in range(2):
        answer = wrapper.tick()
        assert answer.returncode == 1
        assert "no room for the reserve" in answer.stderr
    assert ran.read_text() == "x\n"
    make_room(disk)
    assert wrapper.tick().returncode == 4
    assert ran.read_text() == "x\nx\n", "with room again it runs, and may halt again"
    assert wrapper.halted


@FULL
def test_a_new_job_on_a_full_disk_does_not_run(disk: Path, tmp_path: Path, how: str) -> None:
    ran = tmp_path / "ran"
    wrapper = on(disk, tmp_path, f"echo x >>{ran}; exit 3")
    fill(disk, how)
    answer = wrapper.tick()
    assert answer.returncode == 1
    assert len(lines(answer.stderr)) == 1
    assert not ran.exists()
    make_room(disk)
    assert wrapper.tick().returncode == 3


@FULL
def test_a_job_by_hand_on_a_full_disk_says_so_in_one_line(disk: Path, tmp_path: Path, how: str) -> None:
    wrapper = contract_job(disk, tmp_path, "")
    fill(disk, how)
    answer = subprocess.run(
        wrapper.command, env={**os.environ, **PYTHON}, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 2
    assert len(lines(answer.stderr)) == 1
    assert "no room for the reserve" in answer.stderr


@FULL
def test_rearming_by_command_on_a_full_disk_leaves_the_job_halted(disk: Path, tmp_path: Path, how: str) -> None:
    wrapper = on(disk, tmp_path, "exit 4", name="doab-harvest")
    wrapper.tick()
    fill(disk, how)
    rearm = [sys.executable, "-m", "tickwork", "--state", str(disk), "rearm", "doab-harvest", "--why", "mended"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(rearm, capture_output=True, text=True, env={**os.environ, **PYTHON}, check=False)

    refused = run()
    assert refused.returncode == 2
    assert len(lines(refused.stderr)) == 1, refused.stderr
    assert wrapper.halted
    assert wrapper.tick().returncode == 4
    make_room(disk)
    assert run().returncode == 0
    assert not wrapper.halted
    assert wrapper.tick().returncode == 4, "it runs, and asks to halt again"


@pytest.mark.parametrize("kind", ["directory", "dangling link", "empty file"])
@FULL
def test_an_odd_marker_halts_on_a_full_disk_as_well(disk: Path, tmp_path: Path, how: str, kind: str) -> None:
    ran = tmp_path / "ran"
    wrapper = on(disk, tmp_path, f"echo x >>{ran}; exit 3")
    wrapper.tick()
    marker = wrapper.dir / ".halted"
    if kind == "directory":
        marker.mkdir()
    elif kind == "dangling link":
        marker.symlink_to("/nonexistent/target")
    else:
        marker.touch()
    fill(disk, how)
    said = [wrapper.tick() for _ in range(3)]
    assert [answer.returncode for answer in said] == [4, 4, 4]
    assert [len(lines(answer.stdout)) for answer in said] == [1, 0, 0]
    assert ran.read_text() == "x\n"


@FULL
def test_a_log_on_a_full_disk_costs_its_lines_and_not_the_pass(disk: Path, tmp_path: Path, how: str) -> None:
    command = [sys.executable, str(JOBS / "unit_job.py"), "job", str(tmp_path / "state"), str(tmp_path / "lock")]
    with Oracle() as oracle:
        wrapper = Wrapper(
            tmp_path, [*command, str(oracle.port), "2", "0.01", "0"], scheduler="systemd", environment=PYTHON
        )
        log = disk / "job.log"
        wrapper.path.write_text(wrapper.render().replace(str(wrapper.log), str(log)))
        log.touch()
        fill(disk, how)
        answer = wrapper.tick()
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert (wrapper.dir / ".tally").read_text().split()[0] == "0" * 12


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
