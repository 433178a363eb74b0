"""Files that are there whole or not at all: killed, out of room, with something in their way."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tickwork.contract import files


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made to last from now on, and what is renamed, in order."""
    happened: list[str] = []
    fsync, rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        happened.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", renamed)
    return happened


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_is_before_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = synced(monkeypatch)
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a").exists()
    assert happened == ["a.partial", "rename", tmp_path.name]
    assert (tmp_path / "a").read_text() == "new"


def test_a_file_that_is_replaced_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("broken", ["the writing", "fsync", "rename"])
def test_a_file_that_fails_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    (tmp_path / "a").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken != "the writing":
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"), files.whole(tmp_path / "a") as partial:  # noqa: PT012
        partial.write_text("new")
        if broken == "the writing":
            fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_what_a_killed_writer_left_is_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_text("half of it, and much longer than the new content")
    with files.whole(tmp_path / "a") as partial, partial.open("a") as file:
        file.write("new")
    assert (tmp_path / "a").read_text() == "new"


def no_kernel_copy(*_: object) -> int:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def in_small_steps(read: int, write: int, count: int) -> int:
    return os.write(write, os.read(read, min(count, 1000)))


def only_the_beginning(read: int, write: int, count: int) -> int:
    return in_small_steps(read, write, count) if os.lseek(read, 0, os.SEEK_CUR) < 3000 else 0


@pytest.mark.parametrize("kernel", [os.copy_file_range, no_kernel_copy, in_small_steps, only_the_beginning])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_copy_is_whole_however_much_the_kernel_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., int], size: int
) -> None:
    (tmp_path / "a").write_bytes(content := os.urandom(size))
    (tmp_path / "b").write_bytes(b"x" * 200_000)
    monkeypatch.setattr(os, "copy_file_range", kernel)
    files.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_a_copy_onto_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"x" * 100)
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space"):
        files.copy(tmp_path / "a", tmp_path / "b")


def test_a_database_in_the_kernel_copied_is_the_same_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a")) as db, db:
        db.execute("CREATE TABLE t AS SELECT 1 AS x")
    files.copy(tmp_path / "a", tmp_path / "b")
    assert files.digest(tmp_path / "a") == files.digest(tmp_path / "b")


def test_a_file_that_need_not_last_is_whole_as_well_and_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = synced(monkeypatch)
    with files.whole(tmp_path / "a", lasts=False) as partial:
        partial.write_text("new")
        assert not (tmp_path / "a").exists()
    assert happened == ["rename"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("lasts", [True, False])
def test_a_writer_that_is_killed_half_way_leaves_the_old_file_and_the_next_one_tidies_up(
    tmp_path: Path, lasts: bool
) -> None:
    (tmp_path / "a").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from tickwork.contract import files\n"
        f"with files.whole(Path(sys.argv[1]), lasts={lasts}) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "old"
    with files.whole(tmp_path / "a", lasts=lasts) as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"


def test_a_disk_that_is_full_while_the_content_is_written_keeps_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    # The writing fails when the buffer is emptied, as it does for content of any size.
    with pytest.raises(OSError, match="No space"), files.whole(tmp_path / "a") as partial:  # noqa: PT012
        partial.write_text("hal")
        with Path("/dev/full").open("w") as full:
            full.write("f a line")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_database_that_fails_leaves_none_of_its_side_files(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.whole(tmp_path / "a.db") as partial:  # noqa: PT012
        connection = sqlite3.connect(partial, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        assert len(list(tmp_path.iterdir())) == 3
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    connection.close()


def test_a_folder_that_is_missing_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.whole(tmp_path / "missing" / "a") as partial:
        partial.write_text("new")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_the_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError, match="a"), files.whole(tmp_path / "a"):
        raise AssertionError("nothing may be written")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("leads_to", ["file", "folder", "nothing"])
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, leads_to: str) -> None:
    (tmp_path / "file").write_text("other")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to(leads_to)
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "file").read_text() == "other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file", "folder"]


def test_a_link_laid_in_the_way_of_the_writing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("not ours")
    (tmp_path / "a.partial").symlink_to("other")
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
    assert (tmp_path / "other").read_text() == "not ours"


def test_the_mode_is_the_one_that_the_writer_gave(tmp_path: Path) -> None:
    with files.whole(tmp_path / "a") as partial:
        partial.write_text("new")
        partial.chmod(0o604)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o604
