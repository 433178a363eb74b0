"""A fault of the job itself is a crash: its reason is kept, and nothing half done stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from tests.kits.runner import JOB, Store, ending_with, last
from tickwork.contract import database
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import OperatorError, Outcome
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.units import Budget, Unit

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_a_crash_is_recorded_with_its_reason_and_the_traceback_goes_to_the_log(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_pass(JOB, ending_with(KeyError("title")), Budget(), paths) is Outcome.CRASHED
    assert (last(paths).outcome, last(paths).reason) == ("crashed", "KeyError: 'title'")
    assert "Traceback" in capsys.readouterr().err
    assert not Markers(paths.job("nightly")).halted


def test_an_operators_error_inside_a_pass_has_no_traceback(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pass(JOB, ending_with(OperatorError("no such folder")), Budget(), paths) is Outcome.CRASHED
    assert last(paths).reason == "no such folder"
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_while_the_generator_is_closed_is_a_crash(paths: Paths) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        try:
            yield Unit()
            yield Unit()
        finally:
            raise RuntimeError("a thread would not end")

    assert run_pass(JOB, work, Budget(items=1), paths) is Outcome.CRASHED
    assert "a thread would not end" in last(paths).reason


@pytest.mark.parametrize("error", ["closed connection", "no such table"])
def test_another_fault_of_a_database_is_a_crash(paths: Paths, error: str) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        connection = sqlite3.connect(":memory:")
        if error == "closed connection":
            connection.close()
        connection.execute("SELECT * FROM absent")
        yield Unit()

    assert run_pass(JOB, work, Budget(), paths) is Outcome.CRASHED
    assert last(paths).outcome == "crashed"


def test_a_unit_yielded_inside_a_transaction_is_a_crash_and_is_rolled_back(paths: Paths) -> None:
    store = Store(paths)

    def work(one_pass: Pass) -> Iterator[Unit]:
        with database.transaction(store.connection, "store") as connection:
            connection.execute("INSERT INTO results VALUES (1, 'half done')")
            yield Unit()

    assert run_pass(JOB, work, Budget(), paths) is Outcome.CRASHED
    assert "unit yielded inside a transaction of store" in last(paths).reason
    assert last(paths).units == 0
    assert store.canonical() == []
    assert database.open_transactions() == []
