"""The operator's commands, at the top level of `tickwork`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from typing import Annotated

import typer

from tickwork.contract import times
from tickwork.contract.ledger import Ledger, operator
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import OperatorError, Outcome
from tickwork.deployment import Deployment
from tickwork.operate.board import Row, board, current_holds, slots
from tickwork.operate.tables import moment, table
from tickwork.options import AsJson

Why = Annotated[str, typer.Option(help="The reason; it is kept in the audit log.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", show_default=False)]

holds_app = typer.Typer(invoke_without_command=True, help="Show which upstreams must not be called, and until when.")


def register(app: typer.Typer) -> None:
    """Add the operator's commands to the top level."""
    for function in (status, explain, run, rearm, manners, logs, check):
        app.command()(function)
    app.add_typer(holds_app, name="holds")


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show all jobs: state, why, since when, last success, backlog, estimate, holds, locks, next tick."""
    rows = board(context.obj)
    if as_json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
        return
    head = ("JOB", "STATE", "SINCE", "LAST", "SUCCESS", "BACKLOG", "DRAINED BY", "HOLD", "NEXT TICK", "LOCK", "WHY")
    print(table(head, [_cells(row) for row in rows]))


def _cells(row: Row) -> tuple[str, ...]:
    backlog = "-" if row.backlog is None else str(row.backlog)
    return (
        *(row.job, row.state, moment(row.since), row.last_outcome or "-", moment(row.last_success), backlog),
        *(moment(row.eta), moment(row.hold_until), moment(row.next_tick), row.lock or "free", row.reason or "-"),
    )


def explain(context: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Say why a job is not running, and how to get it going again."""
    deployment: Deployment = context.obj
    row = next((row for row in board(deployment) if row.job == job), None)
    if row is None:
        deployment.job(job)
        raise OperatorError(f"{job} has never run and is not deployed; to run it: tickwork run {job}")
    mend = _mend(row)
    if as_json:
        print(json.dumps({**row.as_dict(), "mend": mend}, indent=1))
        return
    print(f"{row.job} is {row.state}{f' since {moment(row.since)}' if row.since else ''}.")
    if row.reason:
        print(f"Why: {row.reason}")
    if row.lock:
        print(f"Lock: {row.lock}")
    if row.next_tick:
        print(f"Next tick: {moment(row.next_tick)}")
    print(f"To do: {mend}")
    path = deployment.paths.database("ledger")
    if path.exists():
        with Ledger(path, read_only=True) as ledger:
            for entry in ledger.audit(job, 5):
                print(f"{entry['at'][:16]}Z {entry['who']} {entry['action']}: {entry['why']}")


def _mend(row: Row) -> str:
    """The command, or the patience, that mends the state."""
    held = f"nothing: it resumes by itself after {moment(row.hold_until)}"
    return {
        "halted": f'fix the cause, then run: tickwork rearm {row.job} --why "..."',
        "done": f'nothing; to run it again: tickwork rearm {row.job} --done --why "..."',
        "held": f'{held}. If the upstream agrees: tickwork holds clear HOST --why "..."',
        "failing": f"see: tickwork logs {row.job}. It halts by itself if it keeps failing",
        "running": "nothing: a pass is under way",
        "waiting": "nothing: the next tick tries again. A lock that stays busy for days halts the job",
        "disarmed": "arm the host in the inventory (tickwork_armed) and deploy again",
        "never ran": f"tickwork run {row.job}",
    }.get(row.state, "nothing: the last pass ended normally, and the next tick starts another")


def run(context: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Run one tick of a job now, as its schedule would: under its locks, honouring its markers; exits with its code."""
    deployment: Deployment = context.obj
    wanted = deployment.job(job)
    environment = dict(os.environ)
    if wanted.wrapper:
        # The wrapper's own exit code is for cron; this asks it for the outcome's, and to show what the job prints.
        command = [wanted.wrapper]
        environment |= {"TICK_SCHEDULER": "hand", "TICK_FOREGROUND": "1"}
    elif wanted.command:
        command = [sys.executable, "-m", "tickwork", *deployment.global_options, "--job", job, *wanted.command]
    else:
        raise OperatorError(f"{job} has no command; give it one in [jobs.{job}]")
    try:
        if not as_json:
            sys.stdout.flush()
            os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
        code = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
    except OSError as error:
        raise OperatorError(f"cannot run {command[0]}: {error.strerror}; deploy again") from error
    outcome = next((outcome.value for outcome in Outcome if outcome.exit_code == code), Outcome.CRASHED.value)
    print(json.dumps({"job": job, "exit_code": code, "outcome": outcome}))
    raise typer.Exit(code)


def rearm(
    context: typer.Context,
    job: JobName,
    why: Why,
    done: Annotated[bool, typer.Option("--done", help="Also clear .done, so that a drained job runs again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Clear a job's halt once its cause is fixed; the reason is kept in the audit log."""
    deployment: Deployment = context.obj
    _must_be_known(deployment, job)
    _must_say_why(why)
    markers = Markers(deployment.paths.job(job))
    if not markers.halted and not (done and markers.done):
        state = "done (use --done)" if markers.done else "not halted"
        raise OperatorError(f"{job} is {state}: there is nothing to re-arm")
    reason = markers.halted_reason()
    with Ledger(deployment.paths.database("ledger")) as ledger:
        ledger.record(job, "rearm", f"{why} (was: {reason})" if reason else why)
    removed = markers.rearm(done=done)
    print(
        json.dumps({"job": job, "removed": removed})
        if as_json
        else f"{job} is armed again: removed {', '.join(removed)}"
    )


@holds_app.callback()
def holds(context: typer.Context, as_json: AsJson = False) -> None:
    """Show which upstreams must not be called, and until when."""
    if context.invoked_subcommand:
        return
    found = current_holds(context.obj.paths)
    if as_json:
        rows = [
            {"host": h.host, "until": times.show(h.until), "since": times.show(h.since), "why": h.why} for h in found
        ]
        print(json.dumps(rows, indent=1))
    elif not found:
        print("no upstream is on hold")
    else:
        print(
            table(("HOST", "UNTIL", "SINCE", "WHY"), [(h.host, moment(h.until), moment(h.since), h.why) for h in found])
        )


@holds_app.command("clear")
def clear_hold(context: typer.Context, host: str, why: Why, as_json: AsJson = False) -> None:
    """Lift the hold on HOST, because its operator agreed; the reason is kept in the audit log."""
    _must_say_why(why)
    with slots(context.obj.paths, read_only=False) as opened:
        if opened is None:
            raise OperatorError(f"there is no hold on {host}: it was never called")
        cleared = opened.clear(host, operator(), why)
    print(json.dumps({"host": cleared, "cleared": True}) if as_json else f"{cleared} may be called again")


def manners(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, help="Days to look back.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Show this machine's traffic with each upstream, by day: requests, bytes, refusals, faults, holds."""
    with slots(context.obj.paths) as opened:
        found = opened.report(days) if opened else []
    names = ("day", "host", "requests", "bytes", "answers_429", "answers_503", "faults", "holds")
    rows = [tuple(str(getattr(entry, name)) for name in names) for entry in found]
    if as_json:
        plain = [{name: getattr(entry, name) for name in names} for entry in found]
        print(json.dumps(plain, indent=1, default=str))
    else:
        print(
            table([name.upper().replace("ANSWERS_", "") for name in names], rows) if rows else "no requests were sent"
        )


def logs(
    context: typer.Context,
    job: JobName,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="Number of lines to show.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Show the end of a job's log."""
    deployment: Deployment = context.obj
    _must_be_known(deployment, job)
    path = deployment.paths.log(job)
    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            tail = [line.rstrip("\n") for line in deque(log, maxlen=lines)]
    except OSError as error:
        raise OperatorError(f"cannot read the log {path}: {error.strerror}") from error
    print(json.dumps(tail, indent=1) if as_json else "\n".join(tail))


def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check this host's jobs: no job starves for a lock, passes end before the next tick, nothing is missing."""
    from tickwork.operate.schedule_rules import faults

    deployment: Deployment = context.obj
    deployment.jobs()  # reads the tables of all sources, so that a wrong key is found before a pass meets it
    found = faults(deployment.settings.jobs, deployment.paths)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(found) or f"no problems found; jobs checked: {len(deployment.settings.jobs)}")
    if found:
        raise typer.Exit(OperatorError.exit_code)


def _must_be_known(deployment: Deployment, job: str) -> None:
    """Raise OperatorError for a job nobody knows; one that is no longer deployed may still be halted, or have a log."""
    if not deployment.paths.job(job).is_dir():
        deployment.job(job)


def _must_say_why(why: str) -> None:
    if not why.strip():
        raise OperatorError("--why must not be empty: the reason is kept in the audit log")
