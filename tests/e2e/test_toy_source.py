"""A source is an afternoon's work: that of CONTRIBUTING.md is built from its text, deployed and ticked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.playbook import TOOLS, play
from tests.kits.vectors import DOAB, config, make_state, tiny_model
from tests.kits.wrappers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COPIED = (
    "jobs",
    "roles",
    "playbooks",
    "templates",
    "inventory/demo",
    "scripts",
    "ansible.cfg",
    "constraints.txt",
    "pyproject.toml",
)


class Checkout:
    """A copy of this one in which the toy source of CONTRIBUTING.md was built."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, folder / name)
        text = (ROOT / "CONTRIBUTING.md").read_text()
        self.files = dict(re.findall(r"^```\w+\n# (\S+/toy/\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        cli = folder / "jobs/tickwork/cli.py"
        cli.write_text(re.sub(r"^SOURCES = \((.*)\)$", r'SOURCES = (\1, "toy")', cli.read_text(), flags=re.MULTILINE))

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder / "jobs"), "TICK_SCHEDULER": "hand"}

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def tickwork(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "tickwork", *arguments)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"))


def test_it_is_four_files_and_one_line(checkout: Checkout) -> None:
    assert sorted(checkout.files) == [
        "jobs/tickwork/sources/toy/__init__.py",
        "jobs/tickwork/sources/toy/commands.py",
        "roles/toy/defaults/main.yml",
        "roles/toy/meta/argument_specs.yml",
    ]
    changed = checkout.run("diff", ROOT / "jobs/tickwork/cli.py", "jobs/tickwork/cli.py").stdout
    assert [line[0] for line in changed.splitlines() if line[0] in "<>"] == ["<", ">"]


def test_its_imports_point_down_and_its_types_hold(checkout: Checkout) -> None:
    for command in (["lint-imports", "--no-cache"], ["mypy", "--no-error-summary"]):
        done = checkout.run(TOOLS / command[0], *command[1:])
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_of_its_role_is_written(checkout: Checkout) -> None:
    assert checkout.run(sys.executable, "roles/readme.py", "--check").returncode == 1
    assert checkout.run(sys.executable, "roles/readme.py").returncode == 0
    assert "| `toy_armed` |" in (checkout.folder / "roles/toy/README.md").read_text()


def test_a_role_without_argument_specs_is_told_of(checkout: Checkout) -> None:
    specs = checkout.folder / "roles/toy/meta/argument_specs.yml"
    kept = specs.rename(specs.with_name("kept"))
    try:
        done = checkout.run(sys.executable, "roles/readme.py", "--check")
        assert done.returncode == 1
        assert "roles/toy has no meta/argument_specs.yml: describe toy_armed, toy_ticks there" in done.stderr
    finally:
        kept.rename(specs)


def test_it_counts_to_its_end_by_the_ticks_of_its_deployment(checkout: Checkout, tmp_path: Path) -> None:
    """It has neither corpus nor settings, and its role has no rules."""
    done = play(tmp_path / "root", checkout=checkout.folder, tickwork_sources=["toy"])
    assert done.returncode == 0, done.stdout + done.stderr
    wrapper = tmp_path / "root/usr/local/lib/tickwork/jobs/toy-count"
    assert [checkout.run(wrapper).returncode for _ in range(3)] == [3, 3, 0]
    assert (tmp_path / "root/var/lib/tickwork/db/toy.txt").read_text() == "25"
    shown = checkout.run(tmp_path / "root/usr/local/bin/tickwork", "status")
    assert re.search(r"^toy-count +idle", shown.stdout, re.MULTILINE), shown


def test_the_other_sources_are_searched_as_before(checkout: Checkout, tmp_path: Path) -> None:
    """A source without a corpus once broke every other's."""
    state = make_state(tmp_path / "state", 20)
    settings = tmp_path / "tickwork.toml"
    settings.write_text(config(tiny_model(tmp_path / "model")))
    for command in (["embed", DOAB.name], ["publish", DOAB.name], ["search", DOAB.name, "the", "--mode", "words"]):
        done = checkout.tickwork("--config", str(settings), "--state", str(state), *command)
        assert done.returncode == 0, done
    assert done.stdout.strip()
    refused = checkout.tickwork("--state", str(state), "search", "toy", "x")
    assert "no corpus 'toy'; the corpora are: atproto, doab" in refused.stderr


def test_a_corpus_is_searched_without_importing_another_source(checkout: Checkout, tmp_path: Path) -> None:
    program = (
        "import sys; from tickwork import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('tickwork.sources.') and name.count('.') > 2))"
    )
    state = make_state(tmp_path / "state", 3)
    done = checkout.run(sys.executable, "-c", program, "--state", str(state), "search", "doab", "x")
    assert "nothing of doab is published yet" in done.stderr
    loaded = done.stdout.strip().splitlines()[-1]
    assert "tickwork.sources.doab.corpus" in loaded
    assert "tickwork.sources.atproto.corpus" not in loaded
    assert "tickwork.sources.toy.commands" not in loaded
