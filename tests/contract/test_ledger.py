"""The ledger: one row a pass, closed by its pass or by the next one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tickwork.contract import processes
from tickwork.contract.ledger import Ledger
from tickwork.contract.outcomes import OperatorError, Outcome


def closed(ledger: Ledger, row: int, outcome: Outcome = Outcome.MORE, **figures: object) -> None:
    plain = {"units": 1, "items": 1, "size": 0, "backlog": None, "reason": ""}
    ledger.close_pass(row, outcome, **{**plain, **figures})  # type: ignore[arg-type]


def rows(path: Path) -> list[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM passes ORDER BY id").fetchall()


def alter(path: Path, **values: object) -> None:
    """Change the newest row, as if it had been written by another process."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assignments = ", ".join(f"{name} = ?" for name in values)
        connection.execute(
            f"UPDATE passes SET {assignments} WHERE id = (SELECT max(id) FROM passes)", (*values.values(),)
        )


def test_an_open_pass_is_running_and_a_closed_one_has_its_figures(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        row = ledger.open_pass("nightly", "a b", "host.example", "items=5")
        (running,) = ledger.running()
        assert (running.id, running.job, running.pid, running.locks, running.host) == (
            row,
            "nightly",
            os.getpid(),
            "a b",
            "host.example",
        )
        assert ledger.last("nightly") is None
        closed(ledger, row, Outcome.DRAINED, units=2, items=7, backlog=3, reason="why")
        assert ledger.running() == []
        last = ledger.last("nightly")
        assert last
        assert (last.outcome, last.units, last.items, last.backlog, last.reason) == ("drained", 2, 7, 3, "why")
        assert last.ended
        assert last.ended >= last.started


def test_the_row_of_a_killed_process_is_closed_by_the_next_pass_of_any_job(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    program = f"""
import os
from pathlib import Path
from tickwork.contract.ledger import Ledger
Ledger(Path({str(path)!r})).open_pass("victim", "", "", "")
print("open", flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (killed.stdout, killed.returncode) == ("open\n", -signal.SIGKILL)
    with Ledger(path) as ledger:
        assert ledger.running() == [], "a dead process is not running"
        assert ledger.last("victim") is None
        closed(ledger, ledger.open_pass("other", "", "", ""))
    first, second = rows(path)
    assert (first["outcome"], first["reason"]) == ("killed", "the process was gone")
    assert first["ended"]
    assert (second["job"], second["outcome"]) == ("other", "more")


def test_a_reused_pid_does_not_keep_a_killed_pass_open(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.open_pass("victim", "", "", "")
        # This process has the pid of the row, and began at another time.
        alter(path, pid_started=processes.started_at(os.getpid()) - 1)
        assert ledger.running() == []
        closed(ledger, ledger.open_pass("other", "", "", ""))
    assert rows(path)[0]["outcome"] == "killed"


@pytest.mark.parametrize("column", [{"boot": "an earlier boot"}, {"pid_started": 0}])
def test_a_pass_of_an_earlier_boot_is_not_running(tmp_path: Path, column: dict[str, object]) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.open_pass("victim", "", "", "")
        alter(path, **column)
        assert ledger.running() == []


def test_a_pass_that_runs_is_not_closed_by_another(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        first = ledger.open_pass("one", "a", "", "")
        closed(ledger, ledger.open_pass("two", "b", "", ""))
        assert [row.id for row in ledger.running()] == [first]


def test_a_row_is_closed_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        row = ledger.open_pass("one", "", "", "")
        closed(ledger, row, Outcome.HALTED, reason="first")
        closed(ledger, row, Outcome.DRAINED, reason="second")
        last = ledger.last("one")
        assert last
        assert (last.outcome, last.reason) == ("halted", "first")


def test_the_last_of_an_outcome_and_the_recent_ones_come_newest_first(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        for number, outcome in enumerate([Outcome.DRAINED, Outcome.MORE, Outcome.CRASHED, Outcome.KILLED]):
            done = outcome in (Outcome.DRAINED, Outcome.MORE)
            closed(ledger, ledger.open_pass("one", "", "", ""), outcome, items=number, success=done)
        closed(ledger, ledger.open_pass("two", "", "", ""), Outcome.DRAINED)
        good = ledger.last("one", success=True)
        assert good
        assert good.outcome == "more"
        assert [row.items for row in ledger.recent("one", 3)] == [3, 2, 1]
        assert ledger.jobs() == ["one", "two"]


def test_the_audit_keeps_who_did_what_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.record("one", "rearm", "first")
        ledger.record("one", "rearm", "second")
        ledger.record("two", "rearm", "other")
        found = [(row["who"], row["action"], row["why"]) for row in ledger.audit("one")]
    assert found == [("ada", "rearm", "second"), ("ada", "rearm", "first")]


def test_a_ledger_that_cannot_be_written_is_an_operators_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(OperatorError, match=r"cannot write the ledger .*ledger\.db"):
            ledger.open_pass("one", "", "", "")
        with pytest.raises(OperatorError, match="cannot write the ledger"):
            ledger.record("one", "rearm", "x")


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_ledger_is_an_operators_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(OperatorError, match=r"ledger\.db"):
        Ledger(tmp_path / "ledger.db")


def _passes(path: Path, count: int) -> None:
    with Ledger(path) as ledger:
        for _ in range(count):
            closed(ledger, ledger.open_pass("one", "", "", ""))


def test_many_processes_can_open_and_write_one_ledger_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_passes, args=(path, 10)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert [row["outcome"] for row in rows(path)] == ["more"] * 40
