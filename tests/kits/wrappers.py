"""Rendering the real wrapper template, for tests and benchmarks that run it without Ansible."""

from __future__ import annotations

import shlex
import signal
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "templates" / "wrapper.sh.j2"
LIBRARY = ROOT / "roles" / "tick" / "files" / "tick.sh"


@dataclass
class Wrapper:
    """One rendered wrapper under `home`: home/state, home/lock, home/log."""

    home: Path
    command: list[str]
    name: str = "job"
    locks: list[str] = field(default_factory=lambda: ["shared"])
    lock_wait: int = 0
    timeout: int = 60
    kill_after: int = 5
    drains: bool = False
    continues: bool = False
    failures: int = 3
    stalled: int = 0
    scheduler: str = "cron"
    state: Path | None = None
    library: Path = LIBRARY
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = self.state or self.home / "state"
        self.dir = self.state / "jobs" / self.name
        self.path = self.home / f"{self.name}.sh"
        self.log = self.home / "log" / f"{self.name}.log"
        for folder in (self.dir, self.home / "lock", self.log.parent, self.home / "metrics"):
            folder.mkdir(parents=True, exist_ok=True)
        for lock in (*self.locks, f"job.{self.name}"):
            (self.home / "lock" / lock).touch()
        self.path.write_text(self.render())
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def render(self) -> str:
        """The wrapper's text, as the role would install it."""
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
        environment.filters["quote"] = lambda value: shlex.quote(str(value))
        return environment.from_string(TEMPLATE.read_text()).render(
            ansible_managed="Managed by Ansible",
            tick_name=self.name,
            tick_command=self.command,
            tick_user="",
            tick_state=self.state,
            tick_lock_dir=self.home / "lock",
            tick_locks=self.locks,
            tick_lock_wait_seconds=self.lock_wait,
            tick_timeout_seconds=self.timeout,
            tick_kill_after_seconds=self.kill_after,
            tick_interval_seconds=1800,
            tick_drains=self.drains,
            tick_continues=self.continues,
            tick_halt_after_failures=self.failures,
            tick_halt_after_stalled_seconds=self.stalled,
            tick_log=self.log,
            tick_metrics=self.home / "metrics",
            tick_scheduler=self.scheduler,
            tick_environment=self.environment,
            tick_library=self.library,
        )

    def tick(self, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one tick to its end."""
        return subprocess.run([self.path], capture_output=True, text=True, timeout=timeout, check=False)

    def start(self) -> subprocess.Popen[str]:
        """Begin a tick and leave it running."""
        return subprocess.Popen(
            [self.path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_hear_interrupts
        )

    @property
    def halted(self) -> bool:
        """Whether the job's halt marker exists, as anything."""
        marker = self.dir / ".halted"
        return marker.exists() or marker.is_symlink()

    def outcomes(self) -> list[str]:
        """The outcome of every tick so far, from the log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split("outcome=")[1].split()[0] for line in lines if f"job={self.name} outcome=" in line]


def _hear_interrupts() -> None:
    """As cron starts it: who runs in the background or under nohup ignores these, and no shell can trap them then."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
