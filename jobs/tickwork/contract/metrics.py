"""The metrics of a pass, for node_exporter's textfile collector; the wrapper writes the metrics of ticks."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tickwork.contract import files

_DURATION = "tickwork_job_pass_duration_seconds"
_ITEMS = "tickwork_job_pass_items"
_END = "tickwork_job_pass_end_timestamp_seconds"
_BACKLOG = "tickwork_job_backlog"
_SUCCESS = "tickwork_job_last_success_timestamp_seconds"


def write_pass(
    folder: Path, job: str, *, success: bool, ended: float, seconds: float, items: int, backlog: int | None
) -> None:
    """Replace `FOLDER/JOB.pass.prom` atomically at the end of a pass (`ended` is unix time).

    A folder that is missing or full costs the metrics, never the pass.
    """
    values: dict[str, float] = {_DURATION: round(seconds, 3), _ITEMS: items, _END: ended}
    if backlog is not None:
        values[_BACKLOG] = backlog
    if succeeded := ended if success else _read(folder, job).get(_SUCCESS, 0.0):
        values[_SUCCESS] = succeeded
    _write(folder, job, values)


def update_pass(folder: Path, job: str, *, items: int, backlog: int | None) -> None:
    """Bring items and backlog of a pass under way up to date; end and success stay those of the passes before."""
    values = _read(folder, job) | {_ITEMS: items}
    if backlog is not None:
        values[_BACKLOG] = backlog
    _write(folder, job, values)


def _read(folder: Path, job: str) -> dict[str, float]:
    values: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in _path(folder, job).read_text(encoding="utf-8").splitlines():
            name, _, value = line.rpartition(" ")
            values[name.partition("{")[0]] = float(value)
    return values


def _write(folder: Path, job: str, values: dict[str, float]) -> None:
    path = _path(folder, job)
    text = "".join(f'{name}{{job="{job}"}} {value}\n' for name, value in values.items())
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with files.whole(path, lasts=False) as fresh:
            fresh.write_text(text, encoding="utf-8")
            fresh.chmod(0o644)  # whoever collects them is another user


def _path(folder: Path, job: str) -> Path:
    return folder / f"{job}.pass.prom"
