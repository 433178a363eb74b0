"""The markers of a job: halted, done, and the reserve that makes halting possible on a full disk.

The same folder is read and written by tick.sh, whose head lists the files. Everything fails closed: anything named
`.halted` halts, and without a full reserve nothing runs.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path

from tickwork.contract import files, times
from tickwork.contract.outcomes import OperatorError

RESERVE_BYTES = 4096


class Markers:
    """The markers in one job's state folder; a deployed one is not made anew when it is missing."""

    def __init__(self, folder: Path, *, makes_folder: bool = True) -> None:
        self.folder = folder
        self._makes_folder = makes_folder
        self.job = folder.name

    @property
    def halted(self) -> bool:
        """True if anything is called `.halted`: a file, a folder, a dangling link."""
        return os.path.lexists(self._path(".halted"))

    @property
    def done(self) -> bool:
        """True if the job drained and says it stays drained."""
        return self._path(".done").exists()

    def halted_reason(self) -> str:
        """Why the job is halted, as the marker tells it; an empty string if it does not."""
        return _reason(self._read(".halted"))

    def since(self, marker: str) -> dt.datetime | None:
        """When `.halted` or `.done` was written (UTC), None if it is not there."""
        try:
            changed = self._path(marker).lstat().st_mtime
        except OSError:
            return None
        return times.of_unix(changed)

    def armed(self) -> dt.datetime:
        """When the reserve was made (UTC): at the first run, and at each re-arming, by command or by hand."""
        return self.since(".reserve") or times.now()

    def skips(self) -> tuple[int, int]:
        """Ticks skipped for a busy lock: in all, and in a row."""
        numbers = [*map(int, re.findall(r"\d+", self._read(".skips"))), 0, 0]
        return numbers[0], numbers[1]

    def failures(self) -> int:
        """Failed passes in a row."""
        numbers = re.findall(r"\d+", self._read(".tally"))
        return int(numbers[0]) if numbers else 0

    def ready(self) -> None:
        """Make sure that the job could halt: a usable folder and a full reserve. Raises OperatorError."""
        try:
            if not self.folder.is_dir():
                if not self._makes_folder:
                    raise OperatorError(f"{self.job} cannot run: the state folder {self.folder} is missing")
                self.folder.mkdir(parents=True, exist_ok=True)
            reserve = self._bytes(".reserve")
            if len(reserve) == RESERVE_BYTES and reserve.strip():
                # A reason in it: whoever was halting was killed before the rename.
                self._path(".reserve").replace(self._path(".halted"))
                files.sync(self.folder)
                return
            if reserve == b" " * RESERVE_BYTES and self._path(".tally").exists():
                return
            fresh = self._path(f".reserve.{os.getpid()}")  # another run may be at it too
            _write_through(fresh, b" " * RESERVE_BYTES)
            now = int(times.now().timestamp())
            _write_through(self._path(".tally"), b"%012d %012d %012d\n" % (0, 0, now))
            _write_through(self._path(".skips"), b"%012d %012d %012d\n" % (self.skips()[0], 0, 0))
            fresh.replace(self._path(".reserve"))
            files.sync(self.folder)
        except OSError as error:
            self._path(f".reserve.{os.getpid()}").unlink(missing_ok=True)
            raise OperatorError(
                f"{self.job} cannot run: no room for the reserve in {self.folder}: {error.strerror}"
            ) from error

    def halt(self, reason: str) -> None:
        """Write `.halted` out of the reserve, which needs neither space nor an inode. Raises OperatorError."""
        if self.halted:
            return
        line = f'time={times.show(times.now())} job={self.job} reason="{_one_line(reason)}"'
        try:
            with os.fdopen(os.open(self._path(".reserve"), os.O_WRONLY | os.O_CREAT, 0o640), "wb") as reserve:
                reserve.write(line.encode(errors="replace")[: RESERVE_BYTES - 1].ljust(RESERVE_BYTES - 1) + b"\n")
                reserve.flush()
                os.fsync(reserve.fileno())
            self._path(".reserve").replace(self._path(".halted"))
            files.sync(self.folder)
        except OSError as error:
            if not self.halted:
                raise OperatorError(f"{self.job} must halt ({reason}) but cannot write .halted: {error}") from error

    def finish(self) -> None:
        """Write `.done`. Raises OperatorError."""
        try:
            with files.whole(self._path(".done")) as fresh:
                fresh.write_text(f"{times.show(times.now())} drained\n", encoding="utf-8")
        except OSError as error:
            raise OperatorError(f"{self.job} drained but cannot write .done: {error}") from error

    def progressed(self) -> None:
        """Note that a unit was committed, for the count of days without one."""
        self._path(".progress").touch()

    def failing_since(self) -> dt.datetime | None:
        """When the last of the failures in a row was counted (UTC), None if the last tick was none."""
        return self.since(".tally") if self.failures() else None

    def rearm(self, *, done: bool) -> list[str]:
        """Remove `.halted` (and with `done` also `.done`), count afresh; gives the markers removed.

        The new reserve is made while the old marker still stands: on a full disk the job stays halted.
        """
        cleared = [marker for marker in (".halted", ".done") if os.path.lexists(self._path(marker))]
        removed = [marker for marker in cleared if marker == ".halted" or done]
        if removed:
            self._path(".reserve").unlink(missing_ok=True)
            self.ready()
        for marker in removed:
            self._remove(marker)
        return removed

    def _remove(self, marker: str) -> None:
        path = self._path(marker)
        try:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
            files.sync(self.folder)
        except OSError as error:
            raise OperatorError(f"cannot remove {path}: {error.strerror}; look at it and remove it by hand") from error

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _read(self, name: str) -> str:
        return self._bytes(name).decode("utf-8", errors="replace")

    def _bytes(self, name: str) -> bytes:
        path = self._path(name)
        try:
            # A pipe or a device by that name would keep us reading for good.
            return path.read_bytes() if path.is_file() else b""
        except OSError:
            return b""


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _one_line(text: str) -> str:
    return re.sub(r'["\s]+', " ", text).strip()


def _reason(marker: str) -> str:
    """The reason within a marker: ours is quoted, an operator's own text is taken as it stands."""
    quoted = re.search(r'reason="([^"]*)"', marker)
    return quoted[1] if quoted else " ".join(marker.split())[:500]
