"""Telling whether a process recorded earlier still runs, and is still the same one."""

from __future__ import annotations

from pathlib import Path


def started_at(pid: int) -> int:
    """Start time of the process `pid` in clock ticks since boot, 0 when there is no such process.

    Together with the pid it names one process: pids are used again, also after a reboot.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    # The command name is in brackets and may hold anything, so the fields are counted from the last bracket.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """An id that changes with every boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def is_running(pid: int, started: int, boot: str) -> bool:
    """True if the process recorded as (`pid`, `started`, `boot`) still runs."""
    return boot == boot_id() and started != 0 and started_at(pid) == started
