"""Named locks in Python: inherited or taken, all or none, never trusted on a variable's word."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tickwork.contract.locks import INHERITED, holding
from tickwork.contract.outcomes import Busy, Interrupted, OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.stop import Stop


@pytest.fixture(autouse=True)
def nothing_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INHERITED, raising=False)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.under(tmp_path)


@contextmanager
def opened(paths: Paths, name: str, *, take: bool) -> Iterator[int]:
    """A descriptor of the lock, of which this block is the holder if `take`."""
    paths.lock(name).parent.mkdir(exist_ok=True)
    paths.lock(name).touch()
    descriptor = os.open(paths.lock(name), os.O_RDONLY)
    try:
        if take:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def is_free(paths: Paths, name: str) -> bool:
    with opened(paths, name, take=False) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_locks_are_held_inside_the_block_and_free_after_it(paths: Paths) -> None:
    with holding(["a", "b"], paths, wait=0, stop=Stop()) as descriptors:
        assert len(descriptors) == 2
        assert not is_free(paths, "a")
        assert not is_free(paths, "b")
    assert is_free(paths, "a")
    assert is_free(paths, "b")


def test_locks_are_free_after_a_block_that_failed(paths: Paths) -> None:
    with pytest.raises(ZeroDivisionError), holding(["a"], paths, wait=0, stop=Stop()):
        raise ZeroDivisionError
    assert is_free(paths, "a")


def test_a_busy_lock_is_named_and_none_of_the_others_is_kept(paths: Paths) -> None:
    with opened(paths, "b", take=True):
        with (
            pytest.raises(Busy, match="the lock b is busy") as caught,
            holding(["a", "b", "c"], paths, wait=0, stop=Stop()),
        ):
            pytest.fail("entered without the lock")
        assert caught.value.exit_code == 75
        assert is_free(paths, "a")
        assert is_free(paths, "c")


def test_no_lock_is_kept_while_waiting_for_another(paths: Paths) -> None:
    entered = threading.Event()

    def wait() -> None:
        with holding(["a", "b"], paths, wait=300, stop=Stop()):
            entered.set()

    with opened(paths, "b", take=True):
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.3)
        # `a` may be held for an instant while it is tried.
        until(lambda: is_free(paths, "a"))
        assert not entered.is_set()
    waiter.join(timeout=PATIENCE_SECONDS)
    assert entered.is_set()


def test_waiting_ends_with_busy_at_its_deadline(paths: Paths) -> None:
    began = time.monotonic()
    with opened(paths, "a", take=True), pytest.raises(Busy), holding(["a"], paths, wait=0.3, stop=Stop()):
        pytest.fail("entered without the lock")
    assert 0.3 <= time.monotonic() - began < PATIENCE_SECONDS


def test_a_stop_ends_the_waiting_at_once(paths: Paths) -> None:
    stop = Stop()
    threading.Timer(0.1, stop.request, ("enough",)).start()
    began = time.monotonic()
    with (
        opened(paths, "a", take=True),
        pytest.raises(Interrupted, match="enough"),
        holding(["a"], paths, wait=300, stop=stop),
    ):
        pytest.fail("entered without the lock")
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_the_wrappers_descriptor_is_used_and_stays_open(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(paths, "a", take=True) as mine:
        monkeypatch.setenv(INHERITED, f"a={mine}")
        with holding(["a"], paths, wait=0, stop=Stop()) as descriptors:
            assert descriptors == (mine,)
        os.fstat(mine)
        assert not is_free(paths, "a"), "the wrapper's lock was let go"


def test_a_descriptor_of_the_lock_that_does_not_hold_it_opens_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(paths, "a", take=True), opened(paths, "a", take=False) as other:
        monkeypatch.setenv(INHERITED, f"a={other}")
        with pytest.raises(Busy), holding(["a"], paths, wait=0, stop=Stop()):
            pytest.fail("a variable was believed")


@pytest.mark.parametrize("kind", ["closed", "other file", "garbage", "huge", "negative", "other name"])
def test_a_variable_that_outlived_its_wrapper_is_not_trusted(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with (tmp_path / "something").open("w") as something, opened(paths, "a", take=True) as mine:
        closed = os.dup(mine)
        os.close(closed)
        value = {
            "closed": f"a={closed}",
            "other file": f"a={something.fileno()}",
            "garbage": "a=x a==3 = ²",
            "huge": f"a={10**30}",
            "negative": "a=-1",
            "other name": f"b={mine}",
        }[kind]
        monkeypatch.setenv(INHERITED, value)
        with pytest.raises(Busy), holding(["a"], paths, wait=0, stop=Stop()):
            pytest.fail("a variable was believed")
    with holding(["a"], paths, wait=0, stop=Stop()):
        assert not is_free(paths, "a")


def test_a_child_that_was_handed_the_lock_keeps_it_when_we_let_go(paths: Paths) -> None:
    with holding(["a"], paths, wait=0, stop=Stop()) as descriptors:
        child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=descriptors)
    assert not is_free(paths, "a")
    child.communicate(b"\n", timeout=PATIENCE_SECONDS)
    assert is_free(paths, "a")


def test_a_child_that_was_not_handed_the_lock_does_not_have_it(paths: Paths) -> None:
    program = [sys.executable, "-S", "-c", "print('ready', flush=True); input()"]
    with holding(["a"], paths, wait=0, stop=Stop()):
        child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
    assert is_free(paths, "a")
    child.communicate(b"\n", timeout=PATIENCE_SECONDS)


def test_a_deployed_lock_that_is_missing_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    deployed = Paths.under(tmp_path, lock_dir=tmp_path / "lock")
    with pytest.raises(OperatorError, match="cannot open the lock"), holding(["a"], deployed, wait=0, stop=Stop()):
        pytest.fail("entered without a lock")
    assert not list((tmp_path / "lock").iterdir())


def test_a_lock_file_is_never_written(paths: Paths) -> None:
    paths.lock_dir.mkdir()
    paths.lock("a").write_text("note")
    with holding(["a"], paths, wait=0, stop=Stop()):
        pass
    assert paths.lock("a").read_text() == "note"
