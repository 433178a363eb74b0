"""The shell that is deployed: rendered with awkward values, it parses, is clean, and hands every word on unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.wrappers import LIBRARY, Wrapper

TOOLS = Path(sys.executable).parent

AWKWARD = [
    "two words",
    "it's",
    'a "quoted" word',
    "$HOME and `id` and $(id)",
    "100%",
    "back\\slash",
    "*",
    "~",
    "-n",
    "",
    "semi;colon & pipe | redirect >x",
    "tab\there",
    "ünïcode",
    "{{ braces }}",
    "#no comment",
]


def check(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def is_clean(script: Path) -> None:
    check("bash", "-n", script)
    check(TOOLS / "shellcheck", "--shell=bash", script)
    check(TOOLS / "shfmt", "-d", "-i", "2", "-ci", script)


@pytest.fixture
def awkward(tmp_path: Path) -> Wrapper:
    printing = "import os, sys; print([sys.argv[1:], [os.environ[f'ODD_{n}'] for n in range(len(sys.argv) - 1)]])"
    return Wrapper(
        tmp_path / "a folder with 'quotes', $HOME and 100%",
        [sys.executable, "-c", printing, *AWKWARD],
        environment={f"ODD_{number}": word for number, word in enumerate(AWKWARD)},
    )


@pytest.mark.parametrize("name", ["tick.sh", "tick-pass.sh"])
def test_the_library_is_clean(name: str) -> None:
    is_clean(LIBRARY.with_name(name))


@pytest.mark.parametrize("locks", [[], ["one"], ["one", "two"]])
@pytest.mark.parametrize("scheduler", ["cron", "systemd", "manual"])
def test_a_plain_wrapper_is_clean(tmp_path: Path, locks: list[str], scheduler: str) -> None:
    command = ["/usr/local/bin/tickwork", "doab", "backfill", "--limit", "500"]
    is_clean(Wrapper(tmp_path, command, locks=locks, scheduler=scheduler, drains=True, lock_wait=1800).path)


def test_a_wrapper_with_awkward_words_is_clean(awkward: Wrapper) -> None:
    is_clean(awkward.path)


def test_awkward_words_and_variables_reach_the_job_unchanged(awkward: Wrapper) -> None:
    done = awkward.tick()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert str([AWKWARD, AWKWARD]) in awkward.log.read_text().splitlines()


def test_a_wrapper_says_in_plain_sight_what_it_runs(tmp_path: Path) -> None:
    text = Wrapper(tmp_path, ["tickwork", "doab", "harvest"], locks=["doab-oai"], timeout=1200).path.read_text()
    assert "tick_lock doab-oai job.job\n" in text
    assert "tick_run tickwork doab harvest\n" in text
    assert "TICK_TIMEOUT=1200\n" in text
