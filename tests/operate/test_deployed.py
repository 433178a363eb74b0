"""Jobs as a host deploys them: names, locks and folders of their own, and what a run by hand leaves behind."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits import deployment
from tests.kits.deployment import Said
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai
from tickwork.contract import settings
from tickwork.contract.jobs import Job
from tickwork.contract.markers import Markers
from tickwork.deployment import Deployment
from tickwork.operate.board import next_tick
from tickwork.sources.doab import SOURCE

RESERVE = 4096


pytestmark = pytest.mark.usefixtures("bare_environment")
BOOKS = generated_books(30, seed=5)


class Host:
    """A deployment whose folders are named by its settings file alone."""

    def __init__(self, home: Path, oai: FakeOai) -> None:
        self.home, self.state, self.config, self._oai = home, home / "state", home / "t.toml", oai

    def settings(self, jobs: str = "", folders: str = "") -> None:
        self.config.write_text(
            f'state = "{self.state}"\n{folders}\nallow_private = ["127.0.0.0/8"]\n'
            f'contact = "https://example.org/contact"\n'
            f'[doab]\nbase_url = "{self._oai.base_url}"\ninterval_seconds = 0.0\njitter = 0.0\n{jobs}'
        )

    def run(self, *arguments: str) -> Said:
        """A command in this process; what it starts itself is none of it."""
        return deployment.run("--config", str(self.config), *arguments)

    def start(self, *arguments: str) -> Said:
        """A command in a process of its own, which may become another."""
        command = [sys.executable, "-m", "tickwork", "--config", str(self.config), *arguments]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return Said(said.returncode, said.stdout, said.stderr)


@pytest.fixture
def host(tmp_path: Path, oai: FakeOai) -> Host:
    made = Host(tmp_path, oai)
    made.settings()
    return made


NIGHTLY = """
[jobs.nightly]
command = ["doab", "backfill", "--limit", "3"]
locks = ["mine"]
"""

# What a job is


@pytest.mark.parametrize("key", ['lock_wait = "5m"', "armed = true", 'schedule = "0 3 * * *"'])
def test_a_table_with_one_key_keeps_what_the_source_says_of_the_rest(host: Host, key: str) -> None:
    host.settings(f"[jobs.doab-backfill]\n{key}\n")
    loaded = settings.load(host.config, ("doab",))
    jobs = Deployment(loaded, loaded.paths(None), {"doab": SOURCE}).jobs()
    job = jobs["doab-backfill"]
    assert (job.name, job.command, job.locks, job.drains) == (
        "doab-backfill",
        ("doab", "backfill", "--limit", "500", "--seconds", "1080"),
        ("doab-oai",),
        True,
    )
    name, _, value = key.partition(" = ")
    assert getattr(job, name) == {"true": True}.get(value, value.strip('"'))
    assert "doab-harvest" in jobs


def test_a_table_may_take_away_what_the_source_says(host: Host) -> None:
    host.settings("[jobs.doab-backfill]\ndrains = false\n")
    loaded = settings.load(host.config, ("doab",))
    assert not Deployment(loaded, loaded.paths(None), {"doab": SOURCE}).jobs()["doab-backfill"].drains


def test_a_deployed_table_still_takes_the_lock_of_its_source(host: Host, oai: FakeOai) -> None:
    host.settings("[jobs.doab-backfill]\narmed = true\n")
    (host.state / "locks").mkdir(parents=True)
    with (host.state / "locks" / "doab-oai").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert host.run("doab", "backfill").code == 75
    assert not oai.history
    assert host.run("doab", "backfill").code == 0
    assert Markers(host.state / "jobs" / "doab-backfill").done


# A job under a name of its own


AS_NIGHTLY = ("--job", "nightly", "doab", "backfill", "--limit", "3")
"""What `tickwork run nightly` becomes, without the second that a new process takes."""


def test_a_job_of_another_name_has_markers_and_locks_of_its_own(host: Host, oai: FakeOai) -> None:
    host.settings(NIGHTLY)
    assert host.run(*AS_NIGHTLY).code == 3
    assert (host.state / "jobs" / "nightly" / ".progress").exists()
    assert not (host.state / "jobs" / "doab-backfill").exists()
    before = len(oai.history)
    assert before
    with (host.state / "locks" / "mine").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert host.run(*AS_NIGHTLY).code == 75
    assert len(oai.history) == before
    Markers(host.state / "jobs" / "nightly").halt("looked odd")
    assert host.run(*AS_NIGHTLY).code == 4
    assert len(oai.history) == before


def test_running_a_halted_job_of_another_name_sends_nothing(host: Host, oai: FakeOai) -> None:
    host.settings(NIGHTLY)
    Markers(host.state / "jobs" / "nightly").ready()
    Markers(host.state / "jobs" / "nightly").halt("looked odd")
    said = host.start("run", "nightly")
    assert said.code == 4
    assert "nightly is halted: looked odd" in said.err
    assert not oai.history


@pytest.mark.slow
def test_a_run_for_a_program_is_json_and_nothing_else(host: Host, oai: FakeOai) -> None:
    host.settings(NIGHTLY)
    said = host.start("run", "nightly", "--json")
    assert said.code == 3
    assert json.loads(said.out) == {"job": "nightly", "exit_code": 3, "outcome": "more"}
    assert oai.history
    Markers(host.state / "jobs" / "nightly").halt("looked odd")
    said = host.start("run", "nightly", "--json")
    assert (said.code, json.loads(said.out)["outcome"]) == (4, "halted")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_job_without_a_command_is_an_error_of_one_line(host: Host, options: list[str]) -> None:
    host.settings('[jobs.nightly]\nlocks = ["mine"]\n')
    said = host.run("run", "nightly", *options)
    assert (said.code, said.out) == (2, "")
    assert said.err == "tickwork: nightly has no command; give it one in [jobs.nightly]\n"


def test_clearing_a_hold_for_a_program_is_json(host: Host, oai: FakeOai) -> None:
    oai.fault("429")
    assert host.run("doab", "harvest").code == 3
    for seen in oai.history:
        seen.hold_until = None
    name = f"127.0.0.1:{oai.port}"
    said = host.run("holds", "clear", name, "--why", "they agreed", "--json")
    assert (said.code, json.loads(said.out)) == (0, {"host": name, "cleared": True})


# What must be there before anything is sent


def test_a_deployed_host_whose_state_folder_is_missing_runs_nothing(host: Host, oai: FakeOai) -> None:
    locks = host.home / "locks"
    locks.mkdir()
    for lock in ("doab-oai", "job.doab-harvest", "job.doab-backfill", "job.doab-discover"):
        (locks / lock).touch()
    host.settings(folders=f'lock_dir = "{locks}"')
    for command in ("harvest", "backfill", "discover"):
        said = host.run("doab", command)
        assert said.code == 2
        assert f"cannot run: the state folder {host.state / 'jobs' / f'doab-{command}'} is missing" in said.err
        assert len(said.err.splitlines()) == 1
    assert not oai.history
    assert not (host.state / "jobs").exists()
    (host.state / "jobs" / "doab-harvest").mkdir(parents=True)
    assert host.run("doab", "harvest").code == 0


@pytest.mark.parametrize("reason", ["34 of the last 100 are gone", "zu viele Bücher gelöscht – “alle”"])
def test_a_halt_that_was_cut_short_halts_the_next_run_before_its_first_unit(
    host: Host, oai: FakeOai, reason: str
) -> None:
    markers = Markers(host.state / "jobs" / "doab-harvest")
    markers.ready()
    line = f'time=2026-01-01T00:00:00Z job=doab-harvest reason="{reason}"'.encode()
    (markers.folder / ".reserve").write_bytes(line.ljust(RESERVE - 1) + b"\n")
    said = host.run("doab", "harvest")
    assert said.code == 4
    assert reason in said.err
    assert markers.halted_reason() == reason
    assert not (markers.folder / ".reserve").exists()
    assert not (host.state / "db").exists(), "no pass was opened, no unit done"
    assert not oai.history
    assert host.run("doab", "harvest").code == 4
    markers.rearm(done=False)
    assert host.run("doab", "harvest").code == 0


def test_a_halt_may_have_any_letters_in_its_reason(host: Host) -> None:
    """Four kilobytes of them, also when the last one does not fit whole."""
    for reason in ("ü" * 5000, "x" + "ü" * 5000):
        markers = Markers(host.state / "jobs" / "doab-harvest")
        markers.ready()
        markers.halt(reason)
        assert (markers.folder / ".halted").stat().st_size == RESERVE
        (markers.folder / ".halted").rename(markers.folder / ".reserve")
        assert host.run("doab", "harvest").code == 4
        assert markers.halted
        markers.rearm(done=False)


# The log of a run by hand


def test_a_run_by_hand_leaves_its_line_in_the_log(host: Host) -> None:
    said = host.run("doab", "harvest")
    assert said.code == 0
    (line,) = host.run("logs", "doab-harvest").out.splitlines()
    assert "job=doab-harvest pass=drained" in line
    assert line in said.err.splitlines()
    host.run("doab", "harvest")
    assert len(host.run("logs", "doab-harvest").out.splitlines()) == 2


def test_under_a_wrapper_the_line_is_the_wrappers_to_keep(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWORK_WRAPPED", "doab-harvest")
    assert host.run("doab", "harvest").code == 0
    assert not (host.state / "log" / "doab-harvest.log").exists()


def test_the_log_of_a_job_that_is_no_longer_deployed_is_shown(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.settings(NIGHTLY)
    monkeypatch.setenv("TICKWORK_WRAPPED", "")
    assert host.run(*AS_NIGHTLY).code == 3
    host.settings()
    said = host.run("logs", "nightly")
    assert said.code == 0
    assert "job=nightly pass=more items=3" in said.out
    assert host.run("logs", "never heard of").code == 2


# When it ticks next


def by_local_time(zone: str, schedule: str, now: str) -> str:
    program = (
        "import datetime as dt, sys; from tickwork.contract.jobs import Job\n"
        "from tickwork.operate.board import next_tick\n"
        "job = Job(name='x', armed=True, schedule=sys.argv[1], scheduler='cron')\n"
        "print(next_tick(job, dt.datetime.fromisoformat(sys.argv[2])).isoformat())"
    )
    command = [sys.executable, "-c", program, schedule, now]
    environment = {**os.environ, "TZ": zone}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=environment
    ).stdout.strip()


@pytest.mark.parametrize(
    ("zone", "tick"),
    [
        ("UTC", "2026-07-02T04:30:00+00:00"),
        ("Europe/Berlin", "2026-07-02T02:30:00+00:00"),
        ("America/New_York", "2026-07-01T08:30:00+00:00"),
        ("Asia/Kolkata", "2026-07-01T23:00:00+00:00"),
    ],
)
def test_the_next_tick_is_by_the_local_time_of_the_machine(zone: str, tick: str) -> None:
    moment = "2026-07-01T05:00:00+00:00"
    assert by_local_time(zone, "30 4 * * *", moment) == tick


@pytest.mark.parametrize(("scheduler", "ticks"), [("cron", True), ("systemd", True), ("", True), ("manual", False)])
def test_a_job_that_nobody_ticks_has_no_next_tick(scheduler: str, ticks: bool) -> None:
    job = Job(name="x", armed=True, schedule="*/30 * * * *", scheduler=scheduler)
    assert (next_tick(job, dt.datetime.now(dt.UTC)) is not None) == ticks
