"""Help names every command, and what an operator asks loads nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.operate import JOB, Tickwork

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_help_names_the_sources_and_the_operators_commands(tickwork: Tickwork) -> None:
    said = tickwork("--help")
    assert said.code == 0
    for name in ("status", "explain", "run", "rearm", "holds", "manners", "logs", "doab"):
        assert re.search(rf"^\W*{name}\b", said.out, re.MULTILINE), name


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["status"], ["explain", JOB], ["holds"], ["--help", "status"]]
)
def test_what_an_operator_asks_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import sys; from tickwork.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, "--state", str(tmp_path), *arguments]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(said.stdout.splitlines()[-1].split()[1:])
    assert "tickwork" in loaded
    heavy = {"lxml", "requests", "urllib3", "torch", "sqlite_utils", "kombu", "numpy", "faiss", "psycopg", "jinja2"}
    assert not loaded & heavy
