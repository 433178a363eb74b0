"""The metrics of a pass, for node_exporter's textfile collector; the wrapper writes the metrics of ticks."""

from __future__ import annotations

import contextlib
from pathlib import Path


def write_pass(
    folder: Path, job: str, *, success: bool, ended: float, seconds: float, items: int, backlog: int | None
) -> None:
    """Replace `FOLDER/JOB.pass.prom` atomically. A folder that is missing or full costs the metrics, never the pass."""
    path = folder / f"{job}.pass.prom"
    values: dict[str, float] = {
        "tickwork_job_pass_duration_seconds": round(seconds, 3),
        "tickwork_job_pass_items": items,
        "tickwork_job_pass_end_timestamp_seconds": ended,
    }
    if backlog is not None:
        values["tickwork_job_backlog"] = backlog
    succeeded = ended if success else _previous_success(path)
    if succeeded:
        values["tickwork_job_last_success_timestamp_seconds"] = succeeded
    text = "".join(f'{name}{{job="{job}"}} {value}\n' for name, value in values.items())
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)  # whoever collects them is another user
        fresh.replace(path)


def _previous_success(path: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("tickwork_job_last_success_timestamp_seconds"):
                return float(line.rsplit(" ", 1)[1])
    return 0.0
