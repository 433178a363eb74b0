"""The roles as an installed collection, used from a folder that is not the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.kits.wrappers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TOOLS = Path(sys.executable).parent


def run(tool: str, *arguments: str | Path, cwd: Path) -> str:
    """What a tool says that finds collections and roles beside `cwd` only, and deploys the demo there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(cwd / "collections"),
        "ANSIBLE_HOME": str(cwd / "home"),
        "TICKWORK_DEMO_PREFIX": str(cwd / "root"),
    }
    done = subprocess.run(
        [TOOLS / tool, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collection installed under `collections` and an inventory, far from the checkout."""
    checkout = tmp_path_factory.mktemp("checkout") / "tickwork"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "tests", "bench"))
    shutil.copytree(checkout / "inventory/production.example", checkout / "inventory/production", dirs_exist_ok=True)
    away = tmp_path_factory.mktemp("away")
    run("ansible-galaxy", "collection", "build", checkout, "--output-path", away, cwd=away)
    (archive,) = away.glob("tickwork-tickwork-*.tar.gz")
    run("ansible-galaxy", "collection", "install", "--offline", "-p", away / "collections", archive, cwd=away)
    shutil.rmtree(checkout)
    shutil.copytree(ROOT / "inventory/demo", away / "inventory")
    return away


def installed(away: Path) -> Path:
    return away / "collections/ansible_collections/tickwork/tickwork"


def test_a_second_run_changes_nothing_also_from_a_playbook_of_ones_own(away: Path) -> None:
    def play(playbook: str) -> str:
        # Fewer jobs: each takes seconds.
        return run("ansible-playbook", "-i", "inventory", "-e", '{"doab_vectors": false}', playbook, cwd=away)

    assert " changed=0 " not in play("tickwork.tickwork.site")
    own = {"hosts": "tickwork", "gather_facts": False, "roles": [{"role": "tickwork.tickwork.tickwork"}]}
    (away / "own.yml").write_text(yaml.safe_dump([own]))
    assert " changed=0 " in play("own.yml")

    wrapper = away / "root/usr/local/lib/tickwork/jobs/doab-harvest"
    assert str(ROOT / "roles") not in wrapper.read_text()
    assert "doab-harvest" in play("tickwork.tickwork.status")
    play("tickwork.tickwork.teardown")
    assert not wrapper.exists()


def test_it_brings_the_programs_and_no_inventory_of_production(away: Path) -> None:
    assert not (installed(away) / "inventory/production").exists()
    assert (installed(away) / "inventory/production.example").exists()

    def name(root: Path) -> str:
        release = root / "roles/tickwork/files/release.py"
        return subprocess.run(
            [sys.executable, release, "name", root, root / "constraints.txt"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert name(installed(away)) == name(ROOT)
