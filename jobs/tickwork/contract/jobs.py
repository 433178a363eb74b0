"""What a job is: its name, its command, the locks it shares, whether it drains or continues, when it ticks."""

from __future__ import annotations

import msgspec

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Job(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One job; sources give the defaults, `[jobs.NAME]` of the settings file gives what is deployed.

    Durations are written like `90`, `20m`, `3h`, `7d`. `schedule` is a cron expression of five fields.
    """

    name: str = ""
    command: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    lock_wait: str = "0"
    drains: bool = False
    continues: bool = False
    """Its pass may outlast the interval: it is ticked often, and a tick during a pass ends without a word."""
    schedule: str = ""
    timeout: str = "20m"
    kill_after: str = "2m"
    halt_after_failures: int = 3
    halt_after_stalled: str = "7d"
    armed: bool = False
    scheduler: str = ""
    """What ticks it: cron, systemd, or manual for nobody."""
    wrapper: str = ""


def own_lock(job: str) -> str:
    """The name of the lock that each job has for itself; a declared lock has no dot in its name."""
    return f"job.{job}"


def seconds(duration: str) -> int:
    """Seconds of a duration such as `90`, `45s`, `20m`, `3h` or `7d`; ValueError for anything else."""
    text = duration.strip()
    unit = _UNIT_SECONDS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdigit():
        raise ValueError(f"{duration!r} is not a duration: write 90, 45s, 20m, 3h or 7d")
    return int(number) * (unit or 1)
