"""A disk that is full at any moment of a campaign: what is current stays, and with room again the campaign goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kits.publish import DRAINED, FAILED, MORE, Shelf, agrees, content, some
from tickwork.contract import files

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20
SHARES = range(2, 100, 7)
"""Per cent of what a campaign needs."""


@pytest.fixture
def resize(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Makes the folder of generations a disk of its own, of so many bytes, and larger or smaller afterwards."""
    if os.geteuid() != 0:
        pytest.skip("a full disk is a tmpfs, and only root can mount one")
    folder = tmp_path / "shelf" / "state" / "generations"
    mounted = []

    def mount(size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={size}" if not mounted else f"remount,size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tickwork-test", folder], check=False)
        if done.returncode:
            pytest.skip("this machine lets nobody mount a tmpfs")
        mounted.append(folder)

    try:
        yield mount
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def used(shelf: Shelf) -> int:
    disk = os.statvfs(shelf.generations.folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def peak(shelf: Shelf, *options: str) -> int:
    """What a campaign needs at most on top of what there is."""
    before, most = used(shelf), 0
    while shelf.run("publish", "doab", "--seconds", "0", *options).code == MORE:
        most = max(most, used(shelf) - before)
        if not shelf.generations.building.exists():
            return most
    return most


@pytest.mark.parametrize("options", [(), ("--full",)], ids=["increment", "full"])
def test_a_disk_too_small_by_any_share_leaves_what_is_current_and_is_made_up_for_by_room(
    tmp_path: Path, resize: Callable[[int], None], options: tuple[str, ...]
) -> None:
    shelf = Shelf(tmp_path / "shelf", factory="IVF16,Flat", nprobe=16)
    resize(256 * MEGABYTE)
    shelf.add(some(2000))
    shelf.publish()
    changed(shelf, 0)
    needs, failed = peak(shelf, *options), 0
    for share in SHARES:
        changed(shelf, share)
        before = shelf.current()
        resize(used(shelf) + needs * share // 100)
        code = shelf.run("publish", "doab", *options).code
        assert code in (DRAINED, FAILED)
        if code == FAILED:
            failed += 1
            # The last is what SQLite says of its log.
            assert any(word in shelf.reason() for word in ("No space left", "disk is full", "disk I/O error"))
            assert content(shelf.current()) == content(before)
        resize(256 * MEGABYTE)
        agrees(shelf, shelf.publish())
        assert not shelf.leftovers()
    print(f"\n{failed} of {len(SHARES)} campaigns met a full disk")
    assert failed > len(SHARES) // 2


def changed(shelf: Shelf, seed: int) -> None:
    shelf.change({identifier: some(1, seed + identifier)[0] for identifier in range(1, 40)})


@pytest.mark.parametrize("options", [(), ("--full",)], ids=["increment", "full"])
def test_a_disk_full_at_any_file_that_is_finished_leaves_what_is_current_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    shelf = Shelf(tmp_path / "shelf", factory="IVF4,SQfp16", nprobe=4)
    shelf.add(some(60))
    shelf.publish()
    changed(shelf, 1)
    before, settle = shelf.current().name, files.settle
    for last in range(100):
        left = [last]

        def full(partial: Path, path: Path, *, lasts: bool = True, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            settle(partial, path)

        with monkeypatch.context() as patch:
            patch.setattr(files, "settle", full)
            code = shelf.run("publish", "doab", *options).code
        if code == DRAINED:
            break
        assert code == FAILED
        assert "No space left" in shelf.reason()
        assert shelf.current().name == before
        # Begin anew, so that each number of files is reached from nothing.
        if last % 2:
            shelf.generations.remove(shelf.generations.building)
    assert last >= 3
    agrees(shelf, shelf.current())
    assert not shelf.leftovers()
