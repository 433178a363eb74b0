"""A host has the packages of what runs there, and no others: nothing else breaks, and what lacks them says so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kits import vectors as vectors_kit

VECTORS = "faiss huggingface_hub numpy safetensors tokenizers torch transformers"
SERVE = "datasette jinja2 uvicorn"
ATPROTO = "brotli cryptography libipld zstandard"
WITHOUT = """
import sys
from importlib.machinery import PathFinder
gone, find = sys.argv[1].split(), PathFinder.find_spec
def found(name, path=None, target=None):
    return None if name.partition(".")[0] in gone else find(name, path, target)
PathFinder.find_spec = found
from tickwork.cli import main
main(sys.argv[2:])
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Some harvested books, of which nothing is embedded."""
    return vectors_kit.make_state(tmp_path / "state", 3)


def run(gone: str, state: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", WITHOUT, gone, "--state", str(state), *arguments]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return said.returncode, said.stdout + said.stderr


def test_the_packages_named_here_are_those_of_the_extras() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {
        re.split(r"[<=>\[]", line)[0] for extra in ("vectors", "cpu", "serve", "atproto") for line in extras[extra]
    }
    packages = {"faiss": "faiss-cpu", "huggingface_hub": "huggingface-hub"}
    listed = f"{VECTORS} {SERVE} {ATPROTO}".split()
    assert {packages.get(name, name) for name in listed} == declared - {"tickwork"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generations", "doab"], 0, "nothing of doab is published yet"),
        (["search", "doab", "law"], 2, "nothing of doab is published yet"),
        (["doab", "stats"], 0, "3 live"),
        (["status"], 0, "doab-harvest"),
        (["--help"], 0, "atproto"),
    ],
)
def test_without_any_extra_what_needs_none_works(state: Path, arguments: list[str], code: int, message: str) -> None:
    ended, said = run(f"{VECTORS} {SERVE} {ATPROTO}", state, *arguments)
    assert ended == code, said
    assert message in said


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["embed", "doab", "--limit", "1"], ["publish", "doab"]])
def test_other_sources_extras_are_not_missed(state: Path, arguments: list[str]) -> None:
    code, said = run(f"datasette uvicorn {ATPROTO}", state, *arguments)  # jinja2 comes with torch as well
    assert code in (0, 3), said


@pytest.mark.parametrize("arguments", [["embed", "doab"], ["publish", "doab"]])
def test_a_pass_without_its_packages_says_what_to_install(state: Path, arguments: list[str]) -> None:
    code, said = run(VECTORS, state, *arguments)
    assert code == 1
    assert "is not installed: install tickwork with the extra that brings it, such as tickwork[cpu]" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("gone", "arguments", "message"),
    [
        (ATPROTO, ["atproto", "stats"], "tickwork: libipld is not installed: pip install 'tickwork[atproto]'"),
        (SERVE, ["serve"], "install tickwork[serve]"),
    ],
)
def test_a_command_without_its_packages_says_what_to_install(
    gone: str, arguments: list[str], message: str, state: Path
) -> None:
    code, said = run(gone, state, *arguments)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
