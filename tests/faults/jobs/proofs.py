"""Proofs of what the wrapper promises, each a plain function over a wrapper library.

The tests call them with the real `tick.sh`; the mutation check calls them with copies from which one thing was taken
away, and requires them to fail.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.jobs.oracle import Oracle
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.wrappers import LIBRARY, Wrapper

JOBS = Path(__file__).parent


def shell(script: str) -> list[str]:
    """A job that is a line of bash; `bash -c` would exec a lone command, hence the colon."""
    return ["bash", "-c", f"{script}; exit $?"]


def visitor(oracle: Oracle, seconds: float, exit_code: int = 3) -> list[str]:
    """A job in bash that talks to the oracle for some seconds and takes no lock of its own."""
    return shell(f"{_arrive(oracle)}; sleep {seconds}; exit {exit_code}")


def _arrive(oracle: Oracle) -> str:
    return f'exec 5<>/dev/tcp/127.0.0.1/{oracle.port}; echo "$$ job $$" >&5'


def visit(oracle: Oracle, run: str, role: str, seconds: float) -> str:
    """A command line, for bash, that keeps a worker with the oracle for some seconds."""
    return f"{sys.executable} -S -E {JOBS / 'visit.py'} {oracle.port} {run} {role} {seconds}"


def lines(text: str) -> list[str]:
    """The lines that cron would mail."""
    return text.splitlines()


@contextmanager
def taken(lock: Path) -> Iterator[None]:
    """Hold the lock while the block runs, as some other program would."""
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def two_wrappers_never_overlap(home: Path, library: Path = LIBRARY, fires: int = 12) -> None:
    """Two wrappers of one lock, fired at once again and again: the oracle never sees two jobs."""
    with Oracle() as oracle:
        pair = [Wrapper(home, visitor(oracle, 0.15), name=name, library=library) for name in ("one", "two")]
        ticks = [wrapper.start() for _ in range(fires // 2) for wrapper in pair]
        for tick in ticks:
            tick.communicate(timeout=PATIENCE_SECONDS)
        oracle.wait_until_alone()
        assert oracle.seen(), "nobody ran"
        assert not oracle.overlaps(), "two passes at once"
        # Nobody vanished: every tick ran or was skipped.
        outcomes = [outcome for wrapper in pair for outcome in wrapper.outcomes()]
        assert len(outcomes) == fires, outcomes
        assert set(outcomes) <= {"more", "busy"}
        assert outcomes.count("more") == len(oracle.seen())


def a_halted_job_does_not_run(home: Path, library: Path = LIBRARY) -> None:
    """Whatever is called .halted, not one more run before it is removed."""
    kinds = {
        "file": lambda marker: marker.write_text('time=x job=job reason="look"\n'),
        "empty": lambda marker: marker.touch(),
        "directory": lambda marker: marker.mkdir(),
        "link": lambda marker: marker.symlink_to("/nonexistent/target"),
    }
    for kind, make in kinds.items():
        ran = home / f"ran-{kind}"
        wrapper = Wrapper(home / kind, shell(f"echo x >>{ran}"), library=library)
        wrapper.tick()
        make(wrapper.dir / ".halted")
        wrapper.tick()
        wrapper.tick()
        assert ran.read_text() == "x\n", f"ran although halted by a {kind}"
        assert wrapper.outcomes() == ["drained", "halted", "halted"]


def nothing_runs_without_a_full_reserve(home: Path, library: Path = LIBRARY) -> None:
    """A reserve that cannot be made, for whatever reason, means that the job could not halt: it does not run."""
    for kind in ("directory in its place", "no way to write it"):
        ran = home / f"ran-{kind.split()[0]}"
        wrapper = Wrapper(home / kind.split()[0], shell(f"echo x >>{ran}"), library=library)
        wrapper.tick()
        reserve = wrapper.dir / ".reserve"
        reserve.unlink(missing_ok=True)
        if kind.startswith("directory"):
            (reserve / "kept").mkdir(parents=True)
        else:
            (wrapper.dir / ".tally").unlink(missing_ok=True)
            (wrapper.dir / ".tally").mkdir()
        answer = wrapper.tick()
        assert ran.read_text() == "x\n", f"ran without a reserve: {kind}"
        assert "no room for the reserve" in answer.stderr
        assert not wrapper.halted


def a_run_leaves_a_full_reserve(home: Path, library: Path = LIBRARY) -> None:
    """While a job runs, its reserve is there at full size."""
    folder = home / "state" / "jobs" / "job"
    wrapper = Wrapper(home, shell(f"cat {folder}/.reserve >{folder}/copy"), library=library)
    wrapper.tick()
    assert (folder / "copy").stat().st_size == 4096, "no full reserve while it ran"


def a_tick_that_waited_while_its_own_job_halted_does_not_run(home: Path, library: Path = LIBRARY) -> None:
    """The markers are looked at again under the lock: whoever had it may have halted this very job."""
    with Oracle() as oracle:
        job = shell(f"{_arrive(oracle)}; {_wait_for(home)}; exit 4")
        wrapper = Wrapper(home, job, lock_wait=300, scheduler="systemd", library=library)
        ticks = [wrapper.start()]
        oracle.wait_for("job")
        ticks.append(wrapper.start())
        until(lambda: _waits_for_a_lock(ticks[1].pid), "the second tick did not wait for the lock")
        (home / "go-on").touch()
        said = [tick.communicate(timeout=PATIENCE_SECONDS)[0] for tick in ticks]
        assert len(oracle.seen()) == 1, "the halted job ran once more"
        assert [tick.returncode for tick in ticks] == [4, 4]
        assert sum(len(lines(text)) for text in said) == 1, "the halt is announced once"


def what_a_job_leaves_behind_is_dead_before_the_lock_is_free(home: Path, library: Path = LIBRARY) -> None:
    """A worker that outlives its job, and ignores TERM, is gone when the next tick can have the lock."""
    with Oracle() as oracle:
        run = shell(f"{visit(oracle, 'first', 'grandchild', 300)} & {_wait_for(home)}; exit 3")
        wrapper = Wrapper(home, run, library=library)
        first = wrapper.start()
        worker = oracle.wait_for("grandchild")
        (home / "go-on").touch()
        first.communicate(timeout=PATIENCE_SECONDS)
        try:
            assert not _lives(worker.pid), "the worker outlived the pass"
            assert wrapper.outcomes() == ["more"]
        finally:
            if oracle.alive("grandchild"):
                os.kill(worker.pid, signal.SIGKILL)
                until(lambda: not oracle.alive(), "the worker cannot be killed")


def _lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and was not buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _waits_for_a_lock(tick: int) -> bool:
    """Whether a tick has begun to wait. /proc/locks would not tell in a container: there it leaves out the locks of
    processes that have ended, which every lock of a wrapper is (locks_show in the kernel's fs/locks.c).
    """
    children = Path(f"/proc/{tick}/task/{tick}/children").read_text().split()
    try:
        return any(b"-w" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in children)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for(home: Path) -> str:
    return f"while ! [ -e {home}/go-on ]; do sleep 0.01; done"


def random_fires(
    home: Path, fires: int, seed: int, *, library: Path = LIBRARY, grandchild: float = 0.4
) -> dict[str, int]:
    """Fire two wrappers of one lock at random, killing wrapper, job or grandchild at random; gives the counts.

    Fails when the oracle saw two passes at once, or when a started pass has not exactly one closed row in the ledger.
    """
    from tests.faults.jobs.storm import Storm

    with Oracle() as oracle:
        storm = Storm(home, oracle, random.Random(seed), library, grandchild)
        storm.rage(fires)
        storm.calm()
        storm.judge()
        return storm.counts
