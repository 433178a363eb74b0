"""What an operator has learned of one source holds for all: the same verb, empty state and error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from tickwork.cli import SOURCES, main, source
from tickwork.source import load

ROWS = {
    "doab": ("export", "export --format csv"),
    "atproto": ("events", "repos", "repos --json", "repo did:plc:x", "records did:plc:x"),
}
"""The commands of each source that list what is stored."""


def commands(name: str) -> set[str]:
    group: Any = typer.main.get_group(load(source(name).commands))
    return set(group.commands)


WITH_STATS = [name for name in SOURCES if "stats" in commands(name)]


def run(state: Path, *arguments: str) -> int:
    try:
        main(["--state", str(state), *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def is_nought(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(is_nought, value.values()))
    return value in (0, [], "")


def test_the_commands_that_list_rows_are_known_here_for_every_source() -> None:
    assert ROWS.keys() == set(SOURCES)
    assert all({line.split()[0] for line in ROWS[name]} <= commands(name) for name in SOURCES)
    assert WITH_STATS


@pytest.fixture(params=["no file", "an empty file"])
def unused(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A state folder in which nothing is stored; an empty file is what a pass leaves that is killed at once."""
    if request.param == "an empty file":
        (tmp_path / "db").mkdir()
        for name in SOURCES:
            (tmp_path / "db" / f"{name}.db").touch()
    return tmp_path


@pytest.mark.parametrize("name", WITH_STATS)
def test_figures_before_any_data_are_nought_and_no_error(
    name: str, unused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(unused.rglob("*"))
    assert run(unused, name, "stats", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures
    assert is_nought(figures), figures
    assert run(unused, name, "stats") == 0
    said = capsys.readouterr()
    assert " 0" in said.out
    assert said.err == ""
    assert sorted(unused.rglob("*")) == before


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in ROWS for line in ROWS[name]])
def test_rows_before_any_data_are_an_error_that_names_the_command_to_run(
    name: str, line: str, unused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(unused, name, *line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"tickwork: nothing is stored yet; run: tickwork {name} ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name in ROWS for line in ("stats", "stats --json", *ROWS[name])]
)
def test_a_database_that_cannot_be_read_is_named(
    name: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "db" / f"{name}.db"
    path.parent.mkdir()
    path.write_text("not a database at all, but long enough to look like one" * 100)
    assert run(tmp_path, name, *line.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"tickwork: cannot read {path}: ")
    assert "Restore it from a copy" in said.err
