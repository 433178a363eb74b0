"""An expected fault is one line, exit 1 or 2, and no traceback, whichever command meets it."""

from __future__ import annotations

import pytest

from tests.kits.operate import DEPLOYED, JOB, Tickwork
from tickwork.contract.paths import Paths

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["status"], "stat = 1"),
        (["status"], "[jobs.x]\ntimeout = 'soon'"),
        (["status"], "not toml"),
        (["run", "nightly"], None),
        (["run", JOB], DEPLOYED.format(armed="true")),
        (["rearm", "nightly", "--why", "x"], None),
        (["doab", "export"], None),
        (["doab", "reconcile"], None),
        (["doab", "backfill", "--ids-file", "/nonexistent/ids"], None),
        (["--config", "/nonexistent/t.toml", "status"], None),
    ],
)
def test_an_expected_fault_is_one_line_and_no_traceback(
    tickwork: Tickwork, arguments: list[str], config: str | None
) -> None:
    said = tickwork(*arguments, config=config)
    assert said.code in (1, 2)
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert "Traceback" not in said.err


def test_a_damaged_ledger_is_one_line(tickwork: Tickwork, paths: Paths) -> None:
    paths.database("ledger").parent.mkdir(parents=True)
    paths.database("ledger").write_bytes(b"no database" * 500)
    said = tickwork("status")
    assert (said.code, len(said.err.splitlines())) == (2, 1)


def test_a_ledger_whose_maker_was_killed_at_once_is_an_empty_one(tickwork: Tickwork, paths: Paths) -> None:
    paths.database("ledger").parent.mkdir(parents=True)
    paths.database("ledger").touch()
    assert {row["state"] for row in tickwork("status", "--json").json()} == {"never ran"}
