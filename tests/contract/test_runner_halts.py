"""A halt leaves marker and row, nothing runs before a rearm, and what could not halt does not run."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator

import pytest

from tests.kits.runner import JOB, ending_with, last, units
from tickwork.contract import database, locks
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Halt, OperatorError, Outcome
from tickwork.contract.paths import Paths
from tickwork.contract.runner import WRAPPED, Pass, run_pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_a_halt_writes_marker_and_row_and_nothing_runs_before_a_rearm(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_pass(JOB, ending_with(Halt("34 gone")), Budget(), paths) is Outcome.HALTED
    markers = Markers(paths.job("nightly"))
    assert markers.halted_reason() == "34 gone"
    assert (last(paths).outcome, last(paths).reason) == ("halted", "34 gone")
    for _ in range(2):
        assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), paths) is Outcome.HALTED
    assert "34 gone" in capsys.readouterr().err
    assert last(paths).id == 1, "a refused run opens no row"
    markers.rearm(done=False)
    assert run_pass(JOB, units(1), Budget(), paths) is Outcome.DRAINED


def test_halting_twice_is_harmless(paths: Paths) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        yield Unit()
        Markers(paths.job("nightly")).halt("by hand, meanwhile")
        raise Halt("by itself")

    assert run_pass(JOB, work, Budget(), paths) is Outcome.HALTED
    assert Markers(paths.job("nightly")).halted_reason() == "by hand, meanwhile"
    assert last(paths).reason == "by itself"


def test_a_halt_that_cannot_be_written_still_ends_with_4_and_a_closed_row(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(self: Markers, reason: str) -> None:
        raise OperatorError("nightly must halt but cannot write .halted: read-only file system")

    monkeypatch.setattr(Markers, "halt", refused)
    assert run_pass(JOB, ending_with(Halt("x")), Budget(), paths).exit_code == 4
    assert last(paths).outcome == "halted"
    assert "read-only file system" in capsys.readouterr().err


def test_a_reason_that_is_no_utf8_halts_like_any_other(paths: Paths) -> None:
    assert run_pass(JOB, ending_with(Halt("bad name \udcff\ud800")), Budget(), paths) is Outcome.HALTED
    assert Markers(paths.job("nightly")).halted
    assert last(paths).outcome == "halted"


@pytest.mark.parametrize("content", [b"no database" * 1000, b"damaged within"])
def test_a_damaged_database_halts(paths: Paths, content: bytes) -> None:
    path = paths.database("store")
    path.parent.mkdir(parents=True)
    if content == b"damaged within":
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE records (x)")
            connection.executemany("INSERT INTO records VALUES (?)", [("y" * 500,)] * 200)
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096 * 5)
    else:
        path.write_bytes(content)

    def work(one_pass: Pass) -> Iterator[Unit]:
        connection = database.connect(path)
        connection.execute("SELECT count(*), max(x) FROM records").fetchall()
        yield Unit()

    assert run_pass(JOB, work, Budget(), paths) is Outcome.HALTED
    assert "damaged" in Markers(paths.job("nightly")).halted_reason()


def test_a_run_that_waited_while_its_job_halted_does_not_run(paths: Paths) -> None:
    Markers(paths.job("nightly")).ready()

    def other_pass_ends(*_: object) -> None:
        Markers(paths.job("nightly")).halt("the other pass halted")
        other.close()

    # A handler of the main thread, so that it can end while run_pass waits there.
    before = signal.signal(signal.SIGUSR1, other_pass_ends)
    with contextlib.ExitStack() as other:
        other.enter_context(locks.holding(["a"], paths, wait=0, stop=Stop()))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        outcome = run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), paths, lock_wait=30)
    signal.signal(signal.SIGUSR1, before)
    assert outcome is Outcome.HALTED
    assert Markers(paths.job("nightly")).halted_reason() == "the other pass halted"


def test_a_variable_that_outlived_its_wrapper_does_not_open_a_halted_job(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    Markers(paths.job("nightly")).ready()
    Markers(paths.job("nightly")).halt("x")
    monkeypatch.setenv(WRAPPED, "nightly")
    assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), paths) is Outcome.HALTED


def test_without_a_reserve_nothing_runs(paths: Paths) -> None:
    (paths.job("nightly") / ".reserve").mkdir(parents=True)
    with pytest.raises(OperatorError, match="no room for the reserve"):
        run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), paths)
