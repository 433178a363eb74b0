"""What the tests of the operator's commands share: a job, each state it can be in, and how to bring it there."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from tests.kits.deployment import Said
from tickwork.contract.ledger import Ledger
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Outcome
from tickwork.contract.paths import Paths
from tickwork.upstream.slots import Slots

JOB = "doab-backfill"
HOST = "directory.doabooks.org"
KEYS = {
    *("job", "state", "reason", "since", "last_outcome", "last_success", "backlog", "eta", "hold_until", "lock"),
    "next_tick",
}
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


Tickwork = Callable[..., Said]


def passed(paths: Paths, outcome: Outcome = Outcome.MORE, *, job: str = JOB, **figures: Any) -> None:
    plain: dict[str, Any] = {"units": 5, "items": 5, "size": 0, "backlog": None, "reason": "bound reached: 5 items"}
    plain["success"] = outcome in (Outcome.DRAINED, Outcome.MORE)
    with Ledger(paths.database("ledger")) as ledger:
        ledger.close_pass(ledger.open_pass(job, "doab-oai", HOST, ""), outcome, **{**plain, **figures})


def markers(paths: Paths, job: str = JOB) -> Markers:
    made = Markers(paths.job(job))
    made.ready()
    return made


DEPLOYED = """
[jobs.doab-backfill]
command = ["doab", "backfill"]
locks = ["doab-oai"]
schedule = "*/30 * * * *"
wrapper = "/nonexistent/wrapper"
armed = {armed}
"""


class InState:
    """Bringing the job into each of the states there are."""

    @staticmethod
    def halted(paths: Paths) -> None:
        markers(paths).halt("34 of the last 100 are gone")

    @staticmethod
    def running(paths: Paths) -> None:
        with Ledger(paths.database("ledger")) as ledger:
            ledger.open_pass(JOB, "doab-oai", HOST, "")

    @staticmethod
    def done(paths: Paths) -> None:
        passed(paths, Outcome.DRAINED)
        markers(paths).finish()

    @staticmethod
    def held(paths: Paths) -> None:
        passed(paths)
        with Slots(paths.database("slots")) as slots:
            slots.hold(HOST, dt.datetime.now(dt.UTC) + dt.timedelta(hours=2), "answered 429")

    @staticmethod
    def failing(paths: Paths) -> None:
        passed(paths, Outcome.CRASHED, reason="KeyError: 'title'")
        markers(paths)
        (paths.job(JOB) / ".tally").write_text("000000000002 000000000000 000000000001\n")

    @staticmethod
    def waiting(paths: Paths) -> None:
        passed(paths)
        markers(paths)
        (paths.job(JOB) / ".skips").write_text("000000000009 000000000002 000000000000\n")

    @staticmethod
    def disarmed(paths: Paths) -> None:
        passed(paths)

    @staticmethod
    def never_ran(paths: Paths) -> None:
        markers(paths)

    @staticmethod
    def idle(paths: Paths) -> None:
        passed(paths)


STATES = {
    "halted": "tickwork rearm doab-backfill --why",
    "running": "nothing: a pass is under way",
    "done": "tickwork rearm doab-backfill --done --why",
    "held": "tickwork holds clear",
    "failing": "tickwork logs doab-backfill",
    "waiting": "the next tick tries again",
    "disarmed": "arm the host in the inventory",
    "never ran": "tickwork run doab-backfill",
    "idle": "the next tick starts another",
}


def bring(paths: Paths, state: str) -> str:
    """Bring the job into the state; gives the settings it needs."""
    getattr(InState, state.replace(" ", "_"))(paths)
    return DEPLOYED.format(armed="false" if state == "disarmed" else "true")
