"""What unit tests ask for by name: a bare environment, an empty deployment, and its operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operate_kit import Said, Tickwork
from tickwork import cli
from tickwork.contract.layout import Layout


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a deployment, or of a wrapper, reaches the test."""
    for name in ("TICKWORK_CONFIG", "TICKWORK_STATE", "TICKWORK_WRAPPED", "TICKWORK_LOCK_FDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A deployment of which nothing is there yet."""
    return Layout.under(tmp_path / "state")


@pytest.fixture
def tickwork(tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> Tickwork:
    """Runs a command on the deployment of `layout`, with the text of a settings file if there is one."""

    def run(*arguments: str, config: str | None = None) -> Said:
        options = ["--state", str(layout.state)]
        if config is not None:
            (tmp_path / "tickwork.toml").write_text(config)
            options += ["--config", str(tmp_path / "tickwork.toml")]
        code = 0
        try:
            cli.main([*options, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run
