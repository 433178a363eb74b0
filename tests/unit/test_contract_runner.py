"""The runner: how a pass ends, what it leaves in ledger and markers, and that it can stop anywhere."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tickwork.contract import database, locks
from tickwork.contract.jobs import Job
from tickwork.contract.layout import Layout
from tickwork.contract.ledger import Ledger, PassRow
from tickwork.contract.locks import INHERITED
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Busy, Halt, Held, OperatorError, Outcome, Transient
from tickwork.contract.runner import WRAPPED, Pass, Work, run_pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit

JOB = Job(name="nightly", locks=("a",), drains=True)
TODO = 20


@pytest.fixture(autouse=True)
def no_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (WRAPPED, INHERITED):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.under(tmp_path)


def last(layout: Layout) -> PassRow:
    with Ledger(layout.database("ledger"), read_only=True) as ledger:
        found = ledger.recent("nightly", 1)
    assert found
    return found[0]


def units(count: int) -> Work:
    def work(one_pass: Pass) -> Iterator[Unit]:
        for _ in range(count):
            yield Unit()

    return work


def ending_with(end: Exception, after: int = 1) -> Work:
    def work(one_pass: Pass) -> Iterator[Unit]:
        yield from units(after)(one_pass)
        raise end

    return work


class Store:
    """A worklist and what came of it, in one database: what a source's store is, in small."""

    def __init__(self, layout: Layout) -> None:
        self.connection = database.connect(layout.database("store"))
        self.connection.execute("CREATE TABLE IF NOT EXISTS results (item INTEGER PRIMARY KEY, value TEXT)")
        self.connection.execute("CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY, next INTEGER)")
        self.connection.execute("INSERT OR IGNORE INTO progress VALUES (1, 0)")

    def work(self, one_pass: Pass) -> Iterator[Unit]:
        while (item := self.connection.execute("SELECT next FROM progress").fetchone()[0]) < TODO:
            one_pass.backlog = TODO - item - 1
            with database.transaction(self.connection, "store") as connection:
                connection.execute("INSERT INTO results VALUES (?, ?)", (item, f"value {item}"))
                connection.execute("UPDATE progress SET next = ?", (item + 1,))
            yield Unit()

    def canonical(self) -> list[tuple[int, str]]:
        return [tuple(row) for row in self.connection.execute("SELECT item, value FROM results ORDER BY item")]


# How a pass ends


def test_an_exhausted_generator_is_drained_and_a_draining_job_is_done(layout: Layout) -> None:
    assert run_pass(JOB, units(3), Budget(), layout, host="h.example") is Outcome.DRAINED
    row = last(layout)
    assert (row.outcome, row.units, row.items, row.host, row.locks) == ("drained", 3, 3, "h.example", "a")
    assert Markers(layout.job("nightly")).done


def test_a_job_that_does_not_drain_is_never_done(layout: Layout) -> None:
    assert run_pass(Job(name="nightly"), units(1), Budget(), layout) is Outcome.DRAINED
    assert not Markers(layout.job("nightly")).done


def test_under_a_wrapper_done_is_the_wrappers_to_write(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WRAPPED, "nightly")
    assert run_pass(JOB, units(1), Budget(), layout) is Outcome.DRAINED
    assert not Markers(layout.job("nightly")).done


def test_a_done_job_is_not_run(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    run_pass(JOB, units(1), Budget(), layout)
    assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), layout) is Outcome.DRAINED
    assert "tickwork rearm nightly --done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(items=3), "bound reached: 3 items"),
        (Budget(seconds=0), "bound reached: 0 seconds"),
        (Budget(items=1), "bound reached: 1 items"),
    ],
)
def test_a_bound_ends_the_pass_with_more(layout: Layout, budget: Budget, reason: str) -> None:
    assert run_pass(JOB, units(50), budget, layout) is Outcome.MORE
    assert last(layout).reason == reason
    assert last(layout).items == (budget.items or 1)
    assert not Markers(layout.job("nightly")).done


@pytest.mark.parametrize(
    "end", [Transient("502 from h"), Held("h.example", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "answered 429")]
)
def test_a_fault_of_the_upstream_is_more_with_its_reason(layout: Layout, end: Exception) -> None:
    assert run_pass(JOB, ending_with(end), Budget(), layout) is Outcome.MORE
    assert last(layout).reason == str(end)
    assert last(layout).items == 1


def test_a_halt_writes_marker_and_row_and_nothing_runs_before_a_rearm(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_pass(JOB, ending_with(Halt("34 gone")), Budget(), layout) is Outcome.HALTED
    markers = Markers(layout.job("nightly"))
    assert markers.halted_reason() == "34 gone"
    assert (last(layout).outcome, last(layout).reason) == ("halted", "34 gone")
    for _ in range(2):
        assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), layout) is Outcome.HALTED
    assert "34 gone" in capsys.readouterr().err
    assert last(layout).id == 1, "a refused run opens no row"
    markers.rearm(done=False)
    assert run_pass(JOB, units(1), Budget(), layout) is Outcome.DRAINED


def test_halting_twice_is_harmless(layout: Layout) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        yield Unit()
        Markers(layout.job("nightly")).halt("by hand, meanwhile")
        raise Halt("by itself")

    assert run_pass(JOB, work, Budget(), layout) is Outcome.HALTED
    assert Markers(layout.job("nightly")).halted_reason() == "by hand, meanwhile"
    assert last(layout).reason == "by itself"


def test_a_halt_that_cannot_be_written_still_ends_with_4_and_a_closed_row(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(self: Markers, reason: str) -> None:
        raise OperatorError("nightly must halt but cannot write .halted: read-only file system")

    monkeypatch.setattr(Markers, "halt", refused)
    assert run_pass(JOB, ending_with(Halt("x")), Budget(), layout).exit_code == 4
    assert last(layout).outcome == "halted"
    assert "read-only file system" in capsys.readouterr().err


def test_a_reason_that_is_no_utf8_halts_like_any_other(layout: Layout) -> None:
    assert run_pass(JOB, ending_with(Halt("bad name \udcff\ud800")), Budget(), layout) is Outcome.HALTED
    assert Markers(layout.job("nightly")).halted
    assert last(layout).outcome == "halted"


def test_a_crash_is_recorded_with_its_reason_and_the_traceback_goes_to_the_log(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_pass(JOB, ending_with(KeyError("title")), Budget(), layout) is Outcome.CRASHED
    assert (last(layout).outcome, last(layout).reason) == ("crashed", "KeyError: 'title'")
    assert "Traceback" in capsys.readouterr().err
    assert not Markers(layout.job("nightly")).halted


def test_an_operators_error_inside_a_pass_has_no_traceback(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pass(JOB, ending_with(OperatorError("no such folder")), Budget(), layout) is Outcome.CRASHED
    assert last(layout).reason == "no such folder"
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_while_the_generator_is_closed_is_a_crash(layout: Layout) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        try:
            yield Unit()
            yield Unit()
        finally:
            raise RuntimeError("a thread would not end")

    assert run_pass(JOB, work, Budget(items=1), layout) is Outcome.CRASHED
    assert "a thread would not end" in last(layout).reason


@pytest.mark.parametrize("content", [b"no database" * 1000, b"damaged within"])
def test_a_damaged_database_halts(layout: Layout, content: bytes) -> None:
    path = layout.database("store")
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

    assert run_pass(JOB, work, Budget(), layout) is Outcome.HALTED
    assert "damaged" in Markers(layout.job("nightly")).halted_reason()


@pytest.mark.parametrize("error", ["closed connection", "no such table"])
def test_another_fault_of_a_database_is_a_crash(layout: Layout, error: str) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        connection = sqlite3.connect(":memory:")
        if error == "closed connection":
            connection.close()
        connection.execute("SELECT * FROM absent")
        yield Unit()

    assert run_pass(JOB, work, Budget(), layout) is Outcome.CRASHED
    assert last(layout).outcome == "crashed"


def test_a_unit_yielded_inside_a_transaction_is_a_crash_and_is_rolled_back(layout: Layout) -> None:
    store = Store(layout)

    def work(one_pass: Pass) -> Iterator[Unit]:
        with database.transaction(store.connection, "store") as connection:
            connection.execute("INSERT INTO results VALUES (1, 'half done')")
            yield Unit()

    assert run_pass(JOB, work, Budget(), layout) is Outcome.CRASHED
    assert "unit yielded inside a transaction of store" in last(layout).reason
    assert last(layout).units == 0
    assert store.canonical() == []
    assert database.open_transactions() == []


def test_what_a_job_warns_of_is_in_the_ledger_of_a_drained_pass(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        one_pass.warn("the server miscounts")
        yield Unit()

    run_pass(JOB, work, Budget(), layout)
    assert last(layout).reason == "the server miscounts"
    assert "nightly: warning: the server miscounts" in capsys.readouterr().err


# Progress


def test_progress_is_noted_for_units_that_are_progress(layout: Layout) -> None:
    def put_off(one_pass: Pass) -> Iterator[Unit]:
        yield Unit(items=0, progress=False)

    run_pass(Job(name="nightly"), put_off, Budget(), layout)
    assert not (layout.job("nightly") / ".progress").exists()
    run_pass(Job(name="nightly"), units(1), Budget(), layout)
    assert (layout.job("nightly") / ".progress").exists()


def test_a_job_knows_since_when_it_is_armed(layout: Layout) -> None:
    seen: list[dt.datetime] = []

    def work(one_pass: Pass) -> Iterator[Unit]:
        seen.append(one_pass.armed)
        yield Unit()

    run_pass(Job(name="nightly"), work, Budget(), layout)
    run_pass(Job(name="nightly"), work, Budget(), layout)
    assert seen[0] == seen[1]
    assert abs((dt.datetime.now(dt.UTC) - seen[0]).total_seconds()) < 60


# Stopping anywhere


@pytest.mark.parametrize("k", range(1, 9))
def test_a_pass_can_stop_after_any_k_units_and_the_end_state_is_the_same(
    layout: Layout, k: int, tmp_path: Path
) -> None:
    truth = Store(Layout.under(tmp_path / "truth"))
    assert run_pass(JOB, truth.work, Budget(), Layout.under(tmp_path / "truth")) is Outcome.DRAINED
    store, passes = Store(layout), 0
    while run_pass(JOB, store.work, Budget(items=k), layout) is Outcome.MORE:
        passes += 1
    assert store.canonical() == truth.canonical()
    assert len(truth.canonical()) == TODO
    assert passes == TODO // k
    assert last(layout).backlog in (None, 0)


@pytest.mark.parametrize("k", [1, 2, 7, TODO])
def test_a_pass_can_crash_after_any_k_units_and_the_end_state_is_the_same(layout: Layout, k: int) -> None:
    store = Store(layout)

    def work(one_pass: Pass) -> Iterator[Unit]:
        for count, unit in enumerate(store.work(one_pass), 1):
            yield unit
            if count == k:
                raise RuntimeError("pulled the plug")

    for _ in range(TODO):
        if run_pass(JOB, work, Budget(), layout) is Outcome.DRAINED:
            break
    assert [item for item, _ in store.canonical()] == list(range(TODO))


def test_a_killed_pass_is_taken_further_by_the_next_one(layout: Layout, tmp_path: Path) -> None:
    program = f"""
        import os, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.unit.test_contract_runner import JOB, Store
        from tickwork.contract.layout import Layout
        from tickwork.contract.runner import run_pass
        from tickwork.contract.units import Budget
        layout = Layout.under(Path({str(tmp_path)!r}))
        store = Store(layout)
        def work(one_pass):
            for count, unit in enumerate(store.work(one_pass), 1):
                yield unit
                if count == 7:
                    os.kill(os.getpid(), 9)
        run_pass(JOB, work, Budget(), layout)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = Store(layout)
    assert len(store.canonical()) == 7
    assert run_pass(JOB, store.work, Budget(), layout) is Outcome.DRAINED
    assert [item for item, _ in store.canonical()] == list(range(TODO))
    with Ledger(layout.database("ledger"), read_only=True) as ledger:
        assert [row.outcome for row in ledger.recent("nightly", 9)] == ["drained", "killed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_pass_after_the_unit_in_hand(layout: Layout, number: signal.Signals) -> None:
    store = Store(layout)

    def work(one_pass: Pass) -> Iterator[Unit]:
        for count, unit in enumerate(store.work(one_pass), 1):
            if count == 5:
                os.kill(os.getpid(), number)
            yield unit

    assert run_pass(JOB, work, Budget(), layout) is Outcome.MORE
    assert last(layout).reason == f"asked to stop by {number.name}"
    assert last(layout).units == 5 == len(store.canonical())


def test_a_signal_inside_a_wait_ends_the_pass_within_a_moment(layout: Layout) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        yield Unit()
        one_pass.stop.sleep(60)

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    assert run_pass(JOB, work, Budget(), layout) is Outcome.MORE
    assert time.monotonic() - began < 5
    assert last(layout).reason == "asked to stop by SIGTERM"


# Locks and markers by hand


def test_another_run_is_named_with_pid_and_since(layout: Layout) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        with pytest.raises(
            Busy, match=rf"another run is active: nightly \(pid {os.getpid()}, since 20[-\d]+T[\d:]+Z\)"
        ):
            run_pass(Job(name="other", locks=("a",)), units(1), Budget(), layout)
        yield Unit()

    assert run_pass(JOB, work, Budget(), layout) is Outcome.DRAINED
    assert last(layout).reason == ""


def test_a_lock_held_by_a_stranger_is_named(layout: Layout) -> None:
    with (
        locks.holding(["a"], layout, wait=0, stop=Stop()),
        pytest.raises(Busy, match="the lock a is busy"),
    ):
        run_pass(JOB, units(1), Budget(), layout)


def test_no_lock_is_taken_when_a_test_says_so(layout: Layout) -> None:
    with locks.holding(["a"], layout, wait=0, stop=Stop()):
        assert run_pass(JOB, units(1), Budget(), layout, take_locks=False) is Outcome.DRAINED


def test_a_job_is_handed_its_locks(layout: Layout) -> None:
    seen: list[tuple[int, ...]] = []

    def work(one_pass: Pass) -> Iterator[Unit]:
        seen.append(one_pass.locks)
        yield Unit()

    run_pass(Job(name="nightly", locks=("a", "b")), work, Budget(), layout)
    assert len(seen[0]) == 2


def test_a_run_that_waited_while_its_job_halted_does_not_run(layout: Layout) -> None:
    Markers(layout.job("nightly")).ready()

    def other_pass_ends(*_: object) -> None:
        Markers(layout.job("nightly")).halt("the other pass halted")
        other.close()

    # A handler of the main thread, so that it can end while run_pass waits there.
    before = signal.signal(signal.SIGUSR1, other_pass_ends)
    with contextlib.ExitStack() as other:
        other.enter_context(locks.holding(["a"], layout, wait=0, stop=Stop()))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        outcome = run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), layout, lock_wait=30)
    signal.signal(signal.SIGUSR1, before)
    assert outcome is Outcome.HALTED
    assert Markers(layout.job("nightly")).halted_reason() == "the other pass halted"


def test_term_while_waiting_for_a_lock_is_more_and_opens_no_row(layout: Layout) -> None:
    with locks.holding(["a"], layout, wait=0, stop=Stop()):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert run_pass(JOB, units(1), Budget(), layout, lock_wait=60) is Outcome.MORE
    assert not layout.database("ledger").exists() or not _rows(layout)


def _rows(layout: Layout) -> list[PassRow]:
    with Ledger(layout.database("ledger"), read_only=True) as ledger:
        return ledger.recent("nightly", 9)


def test_a_variable_that_outlived_its_wrapper_does_not_open_a_halted_job(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    Markers(layout.job("nightly")).ready()
    Markers(layout.job("nightly")).halt("x")
    monkeypatch.setenv(WRAPPED, "nightly")
    assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), layout) is Outcome.HALTED


def test_without_a_reserve_nothing_runs(layout: Layout) -> None:
    (layout.job("nightly") / ".reserve").mkdir(parents=True)
    with pytest.raises(OperatorError, match="no room for the reserve"):
        run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), layout)


# Figures for the machine


def test_the_metrics_of_a_pass_keep_the_last_success(layout: Layout) -> None:
    path = layout.metrics_dir / "nightly.pass.prom"

    def metric(name: str) -> float:
        (line,) = [line for line in path.read_text().splitlines() if line.startswith(f"tickwork_job_{name}{{")]
        assert 'job="nightly"' in line
        return float(line.split()[-1])

    store = Store(layout)
    run_pass(JOB, store.work, Budget(items=3), layout)
    success = metric("last_success_timestamp_seconds")
    assert abs(success - time.time()) < 60
    assert (metric("pass_items"), metric("backlog")) == (3, TODO - 3)
    run_pass(JOB, ending_with(RuntimeError()), Budget(), layout)
    assert metric("last_success_timestamp_seconds") == success
    assert metric("pass_end_timestamp_seconds") > success
    assert [entry.name for entry in layout.metrics_dir.iterdir()] == ["nightly.pass.prom"]


def test_a_metrics_folder_that_cannot_be_used_never_changes_an_outcome(layout: Layout) -> None:
    layout.state.mkdir(exist_ok=True)
    layout.metrics_dir.write_text("in the way")
    assert run_pass(JOB, units(1), Budget(), layout) is Outcome.DRAINED


def test_the_log_has_one_line_a_pass(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    run_pass(JOB, ending_with(Transient('it said "no"\nand hung up'), after=2), Budget(), layout)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("time=20")
    assert "job=nightly pass=more items=2 bytes=0 seconds=" in line
    assert line.endswith("""reason="it said 'no' and hung up\"""")
