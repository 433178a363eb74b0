"""Each exit code of a job has its outcome, its place in the failure count, and its marker."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.jobs.proofs import lines, shell
from tests.kits.wrapper import set_tally, tally
from tests.kits.wrappers import Wrapper


@pytest.mark.parametrize(
    ("code", "outcome", "failures"),
    [
        (0, "drained", 0),
        (3, "more", 0),
        (69, "unreachable", 0),
        (75, "busy", 2),
        (1, "crashed", 3),
        (2, "crashed", 3),
        (124, "crashed", 3),
        (127, "crashed", 3),
        (137, "crashed", 3),
        (143, "crashed", 3),
        (255, "crashed", 3),
    ],
)
def test_each_exit_code_has_its_outcome_and_its_place_in_the_failure_count(
    tmp_path: Path, code: int, outcome: str, failures: int
) -> None:
    wrapper = Wrapper(tmp_path, shell(f"(exit {code})"), failures=99, scheduler="systemd")
    Wrapper(tmp_path, shell("true")).tick()
    set_tally(wrapper, 2, 0, time.time())
    wrapper.path.write_text(wrapper.render())
    answer = wrapper.tick()
    assert answer.returncode == code
    assert wrapper.outcomes()[-1] == outcome
    assert tally(wrapper)[0] == failures
    assert not wrapper.halted
    assert not (wrapper.dir / ".done").exists()


def test_exit_4_halts_although_the_job_wrote_no_marker(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 4"))
    answer = wrapper.tick()
    assert answer.returncode == 0
    assert wrapper.halted
    assert len(lines(answer.stdout + answer.stderr)) == 1
    assert "job halted" in answer.stdout
    assert "gave no reason" in answer.stdout
    assert (wrapper.dir / ".halted").stat().st_size == 4096
    assert not (wrapper.dir / ".reserve").exists()


def test_the_reason_the_job_gave_is_kept_and_told(tmp_path: Path) -> None:
    script = "printf 'time=t job=job reason=\"34 of 100 are gone\"\\n' >$STATE/.halted; exit 4"
    wrapper = Wrapper(tmp_path, shell(script), environment={"STATE": str(tmp_path / "state/jobs/job")})
    answer = wrapper.tick()
    assert "34 of 100 are gone" in answer.stdout
    assert "34 of 100" in (wrapper.dir / ".halted").read_text()


def test_a_marker_written_by_the_job_halts_whatever_the_exit_code(tmp_path: Path) -> None:
    script = "touch $STATE/.halted; exit 0"
    environment = {"STATE": str(tmp_path / "state/jobs/job")}
    wrapper = Wrapper(tmp_path, shell(script), drains=True, environment=environment, scheduler="systemd")
    assert wrapper.tick().returncode == 4
    assert not (wrapper.dir / ".done").exists()


@pytest.mark.parametrize("code", [0, 3, 1, 4, 69, 75])
@pytest.mark.parametrize("drains", [True, False])
def test_done_is_written_only_after_exit_0_of_a_job_that_drains(tmp_path: Path, code: int, drains: bool) -> None:
    wrapper = Wrapper(tmp_path, shell(f"exit {code}"), drains=drains)
    wrapper.tick()
    assert (wrapper.dir / ".done").exists() == (drains and code == 0)
