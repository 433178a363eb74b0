"""The reference of the commands is what the commands are, and no group of ours writes into a shell's start-up file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import pytest

from tests.kits.wrappers import ROOT
from tickwork import cli

SCRIPT = ROOT / "scripts/cli_reference.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_reference", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load()


def test_the_reference_is_what_the_commands_are() -> None:
    assert (ROOT / "docs/commands.md").read_text() == reference.page(), "run scripts/cli_reference.py"


def test_a_page_that_is_out_of_date_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "PAGE", ROOT / "README.md")
    monkeypatch.setattr(sys, "argv", ["cli_reference.py", "--check"])
    assert reference.main() == 1
    assert "out of date; run scripts/cli_reference.py" in capsys.readouterr().err


@pytest.mark.parametrize("environment", [{"COLUMNS": "40"}, {"COLUMNS": "300", "TYPER_USE_RICH": "0"}])
def test_the_reference_is_the_same_in_any_terminal(environment: dict[str, str]) -> None:
    said = subprocess.run(
        [sys.executable, SCRIPT, "--check"], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr


def test_every_command_of_every_group_has_a_section() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    for path in ("status", "holds clear", "embed", "generations roll-back", "similar", "serve"):
        assert f"\n## tickwork {path}\n" in page
    for source in cli.SOURCES:
        assert f"\n## tickwork {source} " in page
    assert "--no-lock" not in page, "hidden"
    assert "--job" not in page, "hidden"


def test_a_command_without_help_is_noticed() -> None:
    for command, context in reference.commands():
        assert command.help, context.command_path
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert parameter.help, f"{context.command_path} {parameter.opts}"


def test_no_group_of_ours_installs_a_completion() -> None:
    # It would write into ~/.bashrc what does not work.
    for command, context in reference.commands():
        names = {spelling for parameter in command.params for spelling in parameter.opts}
        assert not {name for name in names if "completion" in name}, context.command_path
    assert "completion" not in (ROOT / "docs/commands.md").read_text()


@pytest.mark.parametrize("group", [[], *([source] for source in cli.SOURCES), ["holds"], ["generations"], ["search"]])
def test_a_completion_that_is_asked_for_is_refused(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*group, "--install-completion"])
    assert end.value.code == 2
    assert "completion" not in capsys.readouterr().out
