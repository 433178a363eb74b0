"""Where things lie on this machine: one state folder, and the folders an operator may have moved elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders of one deployment; everything is under `state` unless the settings say otherwise."""

    state: Path
    lock_dir: Path
    log_dir: Path
    metrics_dir: Path
    makes_locks: bool
    """True when the lock folder is our own, so a lock file may be made; deployed locks belong to root."""

    @classmethod
    def under(
        cls,
        state: Path,
        lock_dir: Path | None = None,
        log_dir: Path | None = None,
        metrics_dir: Path | None = None,
    ) -> Paths:
        """The paths below `state`, with the folders given elsewhere."""
        return cls(
            state,
            lock_dir or state / "locks",
            log_dir or state / "log",
            metrics_dir or state / "metrics",
            makes_locks=lock_dir is None,
        )

    def database(self, name: str) -> Path:
        """The SQLite file of a source, or of one of our own stores."""
        return self.state / "db" / f"{name}.db"

    def job(self, name: str) -> Path:
        """The state folder of a job: its markers and counters."""
        return self.state / "jobs" / name

    def log(self, name: str) -> Path:
        """The log file of a job."""
        return self.log_dir / f"{name}.log"

    def lock(self, name: str) -> Path:
        """The file of a lock."""
        return self.lock_dir / name

    def snapshots(self) -> Path:
        """Where crawls leave files that other machines may use."""
        return self.state / "snapshots"
