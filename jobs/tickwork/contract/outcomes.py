"""How a pass ends, and the exceptions with which a job says so.

The exit codes are the interface between a job, its wrapper and an operator; they never change meaning.
"""

from __future__ import annotations

import datetime as dt
import enum

from tickwork.contract import times


class Outcome(enum.Enum):
    """The ways a pass can end, in the words used by the ledger, the log and the operator."""

    DRAINED = "drained"
    MORE = "more"
    HALTED = "halted"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    CRASHED = "crashed"
    KILLED = "killed"

    @property
    def exit_code(self) -> int:
        """Exit status of a pass with this outcome; a killed pass has none of its own and gives 1."""
        return _EXIT_CODES.get(self, 1)


_EXIT_CODES = {
    Outcome.DRAINED: 0,
    Outcome.MORE: 3,
    Outcome.HALTED: 4,
    Outcome.UNREACHABLE: 69,
    Outcome.BUSY: 75,
}


class PassEnd(Exception):  # noqa: N818 - these end a pass in good order, they are not errors of the program
    """Base of the ends a job announces by raising; the message is the reason shown to the operator."""

    outcome = Outcome.MORE


class Held(PassEnd):
    """A hold is in force: this upstream must not be called before `until`."""

    def __init__(self, host: str, until: dt.datetime, why: str) -> None:
        super().__init__(f"{host} is on hold until {times.show(until)}: {why}")
        self.host = host
        self.until = until
        self.why = why
        self.answered = False
        """True if it is an answer to a request of ours, rather than the refusal to send one."""


class Transient(PassEnd):
    """An upstream fault that the next tick may find gone: 5xx, network, an unreadable answer."""


class Interrupted(PassEnd):
    """The pass was asked to stop (TERM, or its budget is spent) while it waited for something."""


class Halt(PassEnd):
    """A human must look: the circuit breaker opened, or only a human may decide. Name figures and the mend."""

    outcome = Outcome.HALTED


class OperatorError(Exception):
    """An expected fault of input, settings or machine: shown as one clear line, never as a traceback."""

    exit_code = 2


class Busy(OperatorError):  # noqa: N818 - names the state, like the outcome
    """Another pass holds a lock this one needs."""

    exit_code = Outcome.BUSY.exit_code


def missing_package(error: ModuleNotFoundError) -> str:
    """One line about a package that is not installed; empty where the module is one of ours, and the fault too."""
    package = (error.name or "tickwork").partition(".")[0]
    if package == "tickwork":
        return ""
    return f"{package} is not installed: install tickwork with the extra that brings it, such as tickwork[cpu]"
