"""Markers: anything called .halted halts, the reserve makes halting possible, re-arming never opens a gap."""

from __future__ import annotations

import datetime as dt
import errno
import os
from pathlib import Path

import pytest

from tickwork.contract import markers as module
from tickwork.contract.markers import RESERVE_BYTES, Markers
from tickwork.contract.outcomes import OperatorError


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    made = Markers(tmp_path / "jobs" / "nightly")
    made.ready()
    return made


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_ready_makes_folder_reserve_and_counters(markers: Markers) -> None:
    assert (markers.folder / ".reserve").read_bytes() == b" " * RESERVE_BYTES
    assert (markers.failures(), markers.skips()) == (0, (0, 0))
    assert not markers.halted
    assert not markers.done
    assert not list(markers.folder.glob(".reserve.*"))


def test_ready_leaves_a_full_reserve_and_the_counters_alone(markers: Markers) -> None:
    (markers.folder / ".tally").write_text("000000000002 000000000000 000000000009\n")
    before = (markers.folder / ".reserve").stat()
    markers.ready()
    assert (markers.folder / ".reserve").stat().st_ino == before.st_ino
    assert markers.failures() == 2


@pytest.mark.parametrize("content", [None, b"", b" " * (RESERVE_BYTES - 1), b"x" * (RESERVE_BYTES - 1)])
def test_a_reserve_that_is_not_whole_is_made_anew(markers: Markers, content: bytes | None) -> None:
    reserve = markers.folder / ".reserve"
    reserve.unlink()
    if content is not None:
        reserve.write_bytes(content)
    markers.ready()
    assert reserve.read_bytes() == b" " * RESERVE_BYTES


def test_a_halt_that_was_cut_short_before_the_rename_is_completed(markers: Markers) -> None:
    (markers.folder / ".reserve").write_bytes(b'reason="the breaker opened"'.ljust(RESERVE_BYTES))
    markers.ready()
    assert markers.halted
    assert markers.halted_reason() == "the breaker opened"


def test_without_room_for_the_reserve_the_job_may_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_write_through", full_disk)
    with pytest.raises(OperatorError, match="nightly cannot run: no room for the reserve"):
        Markers(tmp_path / "nightly").ready()


def test_halting_moves_the_reserve_and_keeps_its_size(markers: Markers) -> None:
    number = (markers.folder / ".reserve").stat().st_ino
    markers.halt('34 of "100"\nare gone')
    marker = markers.folder / ".halted"
    assert marker.stat().st_ino == number
    assert marker.stat().st_size == RESERVE_BYTES
    assert not (markers.folder / ".reserve").exists()
    assert markers.halted_reason() == "34 of 100 are gone"


def test_halting_twice_keeps_the_first_reason(markers: Markers) -> None:
    markers.halt("first")
    markers.halt("second")
    assert markers.halted_reason() == "first"


def test_halting_without_a_reserve_works_where_there_is_room(markers: Markers) -> None:
    (markers.folder / ".reserve").unlink()
    markers.halt("x")
    assert markers.halted_reason() == "x"


def test_a_reason_longer_than_the_reserve_is_cut(markers: Markers) -> None:
    markers.halt("ü" * 9000)
    assert (markers.folder / ".halted").stat().st_size == RESERVE_BYTES
    assert markers.halted


def test_a_halt_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"must halt \(x\) but cannot write"):
        Markers(tmp_path / "absent").halt("x")


@pytest.mark.parametrize("kind", ["file", "empty", "directory", "dangling link", "pipe", "link to a device"])
def test_rearming_removes_whatever_is_called_halted(markers: Markers, kind: str) -> None:
    marker = markers.folder / ".halted"
    {
        "file": lambda: marker.write_text("x"),
        "empty": marker.touch,
        "directory": marker.mkdir,
        "dangling link": lambda: marker.symlink_to("/nonexistent/target"),
        "pipe": lambda: os.mkfifo(marker),
        "link to a device": lambda: marker.symlink_to("/dev/zero"),
    }[kind]()
    assert markers.halted
    markers.halted_reason()
    assert markers.since(".halted") is not None
    assert markers.rearm(done=False) == [".halted"]
    assert not markers.halted
    assert (markers.folder / ".reserve").stat().st_size == RESERVE_BYTES


def test_rearming_never_removes_what_somebody_put_into_a_marker_folder(markers: Markers) -> None:
    (markers.folder / ".halted").mkdir()
    (markers.folder / ".halted" / "notes").touch()
    with pytest.raises(OperatorError, match="remove it by hand"):
        markers.rearm(done=False)
    assert markers.halted


def test_rearming_starts_the_counters_afresh_and_keeps_the_total_of_skips(markers: Markers) -> None:
    markers.halt("x")
    (markers.folder / ".tally").write_text("000000000003 000000000004 000000000005\n")
    (markers.folder / ".skips").write_text("000000000007 000000000002 000000000001\n")
    markers.rearm(done=False)
    assert markers.failures() == 0
    assert markers.skips() == (7, 0)
    assert (markers.folder / ".skips").read_text().split()[2] == "0" * 12, "the next halt would not be announced"
    progress = int((markers.folder / ".tally").read_text().split()[2])
    assert abs(progress - dt.datetime.now(dt.UTC).timestamp()) < 60


def test_rearming_on_a_full_disk_keeps_the_job_halted(markers: Markers, monkeypatch: pytest.MonkeyPatch) -> None:
    markers.halt("x")
    monkeypatch.setattr(module, "_write_through", full_disk)
    with pytest.raises(OperatorError, match="no room for the reserve"):
        markers.rearm(done=True)
    assert markers.halted


def test_done_is_removed_only_on_request(markers: Markers) -> None:
    markers.finish()
    markers.halt("x")
    assert markers.rearm(done=False) == [".halted"]
    assert markers.done
    assert markers.rearm(done=True) == [".done"]
    assert not markers.done


def test_done_that_cannot_be_written_is_an_error(markers: Markers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OperatorError, match=r"cannot write \.done"):
        markers.finish()
    assert not markers.done


def test_a_dangling_link_called_done_does_not_keep_a_job_from_running(markers: Markers) -> None:
    (markers.folder / ".done").symlink_to("/nonexistent/target")
    assert not markers.done


def test_counters_that_are_garbled_or_missing_count_as_nothing(markers: Markers) -> None:
    for content in (b"", b"\xff\xfe", b"no numbers here"):
        (markers.folder / ".tally").write_bytes(content)
        (markers.folder / ".skips").write_bytes(content)
        assert (markers.failures(), markers.skips()) == (0, (0, 0))
    (markers.folder / ".tally").unlink()
    assert markers.failures() == 0


def test_a_job_is_armed_when_its_reserve_is_made(markers: Markers) -> None:
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    os.utime(markers.folder / ".reserve", (moment.timestamp(),) * 2)
    assert markers.armed() == moment
    markers.halt("x")
    markers.rearm(done=False)
    assert markers.armed() > moment
