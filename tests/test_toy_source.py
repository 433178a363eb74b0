"""The source that CONTRIBUTING.md has one make works without a deployment; e2e/test_toy_source.py deploys it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kits.wrappers import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def files() -> dict[str, str]:
    """The files of the source as the text has them: path to content."""
    found = re.findall(r"^```(?:python|yaml)\n# ([\w/.]+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return {path: content for path, content in found if "toy" in path}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the programs with the source added as the text says."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "jobs", checkout / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    for path, content in files().items():
        assert not (checkout / path).exists()
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(content)
    cli = checkout / "jobs/tickwork/cli.py"
    sources, changed = re.subn(r"^(SOURCES = \(.*)\)$", r'\1, "toy")', cli.read_text(), flags=re.MULTILINE)
    assert changed == 1, "the one line elsewhere"
    cli.write_text(sources)
    return checkout


@pytest.fixture
def run(checkout: Path, tmp_path: Path) -> Any:
    """`tickwork` of that checkout, over one state folder: exit code and what it said."""

    def run(*arguments: str, state: Path = tmp_path / "state") -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tickwork", "--state", state, *arguments],
            env={**os.environ, "PYTHONPATH": str(checkout / "jobs")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_its_job_goes_on_from_pass_to_pass_until_it_is_drained(run: Any) -> None:
    (command,) = re.findall(r"^tickwork --state ./state (toy .*?) *#", TEXT, re.MULTILINE)
    assert [run(*shlex.split(command))[0] for _ in range(3)] == [3, 3, 0]
    code, said = run("status")
    assert code == 0, said
    assert re.search(r"^toy-count +idle .* drained ", said, re.MULTILINE), said
    assert run("run", "toy-count")[0] == 0
    assert "toy" in run("--help")[1]


def test_its_role_has_the_jobs_that_its_programs_have(checkout: Path) -> None:
    script = (
        "import json, msgspec; from tickwork.sources.toy import SOURCE;"
        "print(json.dumps(msgspec.to_builtins(SOURCE.jobs(None))))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(checkout / "jobs")},
        capture_output=True,
        text=True,
        check=True,
    )
    (ours,) = yaml.safe_load(said.stdout)
    (theirs,) = yaml.safe_load(files()["roles/toy/defaults/main.yml"])["toy_ticks"]
    assert theirs.pop("armed") == "{{ toy_armed }}"
    assert {**theirs, "command": theirs["command"].split()} == {key: ours[key] for key in theirs}
