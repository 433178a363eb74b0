"""Deploying with the real roles into a folder: no root, no scheduler, a few seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.wrappers import ROOT

pytestmark = pytest.mark.slow

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"


class Deployment:
    """The demo inventory deployed into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def play(self, book: str = "site.yml", *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TICKWORK_DEMO_PREFIX": str(self.root), "ANSIBLE_FORCE_COLOR": "0"}
        return subprocess.run(
            [PLAYBOOK, f"playbooks/{book}", "-i", "inventory/demo", "-e", json.dumps(variables), *options],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def deploy(self, *options: str, **variables: Any) -> int:
        """Deploy; gives the number of tasks that changed something."""
        done = self.play("site.yml", *options, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return int(re.search(r"changed=(\d+)", done.stdout)[1])

    def refused(self, **variables: Any) -> str:
        """Try to deploy what must be refused; gives what was said, on one line."""
        done = self.play("site.yml", **variables)
        assert done.returncode != 0, done.stdout
        return " ".join((done.stdout + done.stderr).split())

    def registry(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "etc/tickwork/tickwork.toml").read_text())["jobs"]

    def wrapper(self, job: str) -> Path:
        return self.root / "usr/local/lib/tickwork/jobs" / job

    def state(self, job: str) -> Path:
        return self.root / "var/lib/tickwork/jobs" / job

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")} if self.root.exists() else set()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "root")


def test_a_second_run_changes_nothing(deployment: Deployment) -> None:
    assert deployment.deploy("--check") > 0
    assert deployment.files() == set(), "check mode wrote something"
    assert deployment.deploy() > 0
    before = deployment.files()
    assert deployment.deploy() == 0
    assert deployment.deploy("--check") == 0
    assert deployment.files() == before


def test_the_registry_is_the_settings_that_tickwork_reads(deployment: Deployment) -> None:
    odd = {"quoted": 'a "b" \\ c', "list": ["ü", "😀"], "nested": {"deep": True, "number": 1.5}}
    deployment.deploy(doab_settings=odd, tickwork_overrides={"doab-harvest": {"schedule": "H H(1-5) * * *"}})
    document = tomllib.loads((deployment.root / "etc/tickwork/tickwork.toml").read_text())
    assert document["doab"] == odd
    assert set(document["jobs"]) == {"doab-harvest", "doab-backfill"}
    assert re.fullmatch(r"\d+ [1-5] \* \* \*", document["jobs"]["doab-harvest"]["schedule"])
    assert document["jobs"]["doab-backfill"]["command"] == ["doab", "backfill", "--limit", "500", "--seconds", "1080"]


def test_a_removed_job_loses_its_wrapper_and_keeps_its_state(deployment: Deployment) -> None:
    extra = {"name": "extra", "command": "doab harvest", "locks": ["doab-oai"], "schedule": "0 5 * * *"}
    deployment.deploy(tickwork_ticks=[extra])
    assert deployment.wrapper("extra").exists()
    (deployment.state("extra") / ".halted").write_text("kept")
    deployment.deploy()
    assert not deployment.wrapper("extra").exists()
    assert "extra" not in deployment.registry()
    assert (deployment.state("extra") / ".halted").read_text() == "kept"
    assert deployment.wrapper("doab-harvest").exists()


def test_a_job_goes_on_the_schedule_and_off_it(deployment: Deployment) -> None:
    entry = deployment.root / "etc/cron.d/tickwork-doab-backfill"
    deployment.deploy(tickwork_scheduler="cron")
    lines = entry.read_text().splitlines()
    assert entry.read_text().endswith("\n")
    assert entry.stat().st_mode & 0o777 == 0o644
    assert lines[-1].split()[:5] == ["*/30", "*", "*", "*", "*"]
    assert lines[-1].endswith(str(deployment.wrapper("doab-backfill")))
    (deployment.state("doab-backfill") / ".done").write_text("kept")

    deployment.deploy(tickwork_scheduler="cron", tickwork_overrides={"doab-backfill": {"armed": False}})
    assert not entry.exists()
    assert not deployment.registry()["doab-backfill"]["armed"]
    assert deployment.wrapper("doab-backfill").exists(), "an unarmed job can be run by hand"
    assert (deployment.state("doab-backfill") / ".done").read_text() == "kept"
    assert (deployment.root / "etc/cron.d/tickwork-doab-harvest").exists()

    deployment.deploy(tickwork_sources=[])
    assert not (deployment.root / "etc/cron.d/tickwork-doab-harvest").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"timeout": "29m"}, "may run 1740 s and 120 s more until it is killed, but ticks every 1800 s"),
        ({"timout": "20m"}, "these keys mean nothing: timout"),
        ({"timeout": "20 minutes"}, "timeout: '20 minutes' is not a duration"),
        ({"schedule": "0 0 30 2 *"}, "never ticks"),
        ({"schedule": ""}, "it needs a schedule"),
        ({"lock_wait": "30m"}, "must not wait 30m for its locks"),
        ({"locks": ["doab-oai", "../etc"]}, "a lock's name is"),
    ],
)
def test_a_job_that_cannot_work_is_refused_by_name_before_anything_is_installed(
    deployment: Deployment, override: dict[str, Any], words: str
) -> None:
    said = deployment.refused(tickwork_overrides={"doab-backfill": override})
    assert "doab-backfill" in said
    assert words in said
    assert deployment.files() == set()


def test_deployed_shell_is_clean(deployment: Deployment) -> None:
    deployment.deploy()
    tools = Path(sys.executable).parent
    scripts = [deployment.root / "usr/local/bin/tickwork", deployment.wrapper("doab-harvest")]
    for command in ([tools / "shellcheck"], [tools / "shfmt", "-d", "-i", "2", "-ci"]):
        done = subprocess.run([*command, *scripts], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
