"""The roles' own programs and documents: schedules, durations, defaults, READMEs."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import msgspec
import pytest
import yaml

from tests.kits.wrappers import ROOT, Wrapper
from tickwork import cli
from tickwork.cli import SOURCES
from tickwork.contract.jobs import Job, seconds
from tickwork.contract.paths import Paths
from tickwork.contract.settings import Settings
from tickwork.deployment import Deployment
from tickwork.operate.schedule_rules import faults
from tickwork.sources.atproto.settings import AtprotoSettings

ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plan = load("roles/tick/files/plan.py")
demo = load("scripts/demo.py")


@pytest.mark.parametrize(
    ("schedule", "cron", "calendar", "interval"),
    [
        ("30 4 * * *", "30 4 * * *", "*-*-* 04:30:00", 86400),
        ("*/30 * * * *", "*/30 * * * *", "*-*-* *:00,30:00", 1800),
        ("* * * * *", "* * * * *", "*-*-* *:*:00", 60),
        ("*/25 * * * *", "*/25 * * * *", "*-*-* *:00,25,50:00", 600),
        ("0 8-10 * * mon-fri", "0 8-10 * * 1,2,3,4,5", "Mon,Tue,Wed,Thu,Fri *-*-* 08,09,10:00:00", 3600),
        ("0 12 * * 5-7", "0 12 * * 5-7", "Sun,Fri,Sat *-*-* 12:00:00", 86400),
        ("0 0 * * 0", "0 0 * * 0", "Sun *-*-* 00:00:00", 7 * 86400),
        ("0 0 1 jan,JUL *", "0 0 1 1,7 *", "*-01,07-01 00:00:00", 181 * 86400),
        ("0 23,1 * * *", "0 23,1 * * *", "*-*-* 01,23:00:00", 7200),
        ("0 0 29 2 *", "0 0 29 2 *", "*-02-29 00:00:00", 1461 * 86400),
    ],
)
def test_a_schedule_means_the_same_to_cron_and_to_systemd(
    schedule: str, cron: str, calendar: str, interval: int
) -> None:
    planned = plan.plan({"schedule": schedule})
    assert planned["faults"] == []
    assert (planned["schedule"], planned["calendar"], planned["interval"]) == (cron, calendar, interval)


def test_an_open_minute_is_the_host_s_own_and_stays() -> None:
    minutes = set()
    for host in range(200):
        asked = {"schedule": "H/30 * * * *", "seed": f"host{host} job"}
        planned = plan.plan(dict(asked))
        assert host >= 20 or plan.plan(dict(asked)) == planned
        assert planned["interval"] == 1800
        minute = int(planned["schedule"].split(",")[0])
        assert planned["schedule"] == f"{minute},{minute + 30} * * * *"
        minutes.add(minute)
    assert minutes == set(range(30))
    hours = {plan.plan({"schedule": "H H(1-5) * * *", "seed": str(n)})["schedule"].split()[1] for n in range(100)}
    assert hours == {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * *",
        "60 * * * *",
        "*/0 * * * *",
        "5/10 * * * *",
        "9-5 * * * *",
        "0 0 1 * 1",
        "0 0 31 feb *",
        "0 0 H * *",
        "1, * * * *",
        "@daily",
    ],
)
def test_a_schedule_that_means_nothing_is_a_fault(schedule: str) -> None:
    planned = plan.plan({"schedule": schedule})
    assert planned["faults"]
    assert planned["interval"] == 0


@pytest.mark.parametrize(
    "text", ["90", "45s", "20m", "3h", "7d", "0", " 5m ", "", "m", "-5", "1.5h", "5 m", "٣m", "1w"]
)
def test_roles_and_programs_read_durations_alike(text: str) -> None:
    def outcome(function: object) -> int | str:
        try:
            return function(text)
        except ValueError as error:
            return str(error)

    assert outcome(plan.seconds) == outcome(seconds)


def test_a_job_has_the_same_defaults_in_the_role_and_in_the_programs() -> None:
    defaults = yaml.safe_load((ROOT / "roles/tick/defaults/main.yml").read_text())
    for field in msgspec.structs.fields(Job):
        found = re.search(r"\| default\((.*)\) }}", str(defaults.get(f"tick_{field.name}", "")))
        if found and "tickwork" not in found[1]:
            expected = field.default if not isinstance(field.default, tuple) else list(field.default)
            assert yaml.safe_load(found[1]) == expected, field.name


def read(role: str, file: str = "defaults") -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / file / "main.yml").read_text())


def ticks(source: str) -> list[dict[str, Any]]:
    """The jobs that a source's role has by default, those that embed and publish among them."""
    lists = [value for name, value in read(source).items() if name.startswith(f"{source}_ticks_of_")]
    return [tick for each in lists for tick in each]


def deployed(*sources: str) -> dict[str, Job]:
    """The jobs of a host with these sources, all of whose corpora are embedded."""

    def lookup(_: str, name: str, default: object) -> object:
        return True if name.endswith("_vectors") else default

    templates = jinja2.Environment()
    templates.filters["bool"] = bool
    internal = read("tickwork", "vars")["_tickwork_publish_wait"]
    wait = templates.from_string(internal).render(tickwork_sources=sources, lookup=lookup)
    jobs = {}
    for tick in itertools.chain.from_iterable(map(ticks, sources)):
        job = {key: value for key, value in tick.items() if key in Job.__struct_fields__ and key != "armed"}
        job["command"] = tick["command"].split()
        job["lock_wait"] = tick.get("lock_wait", "0").replace("{{ _tickwork_publish_wait }}", wait)
        job["schedule"] = plan.plan({"schedule": tick["schedule"], "seed": "host"})["schedule"]
        jobs[tick["name"]] = msgspec.convert(job, Job)
    return jobs


@pytest.mark.parametrize(
    "sources", [chosen for count in (1, 2) for chosen in itertools.combinations(SOURCES, count)], ids=" and ".join
)
def test_the_jobs_of_the_sources_can_live_on_one_host(sources: tuple[str, ...], tmp_path: Path) -> None:
    assert faults(deployed(*sources), Paths.under(tmp_path)) == []


def test_the_jobs_of_the_demo_can_live_together(tmp_path: Path) -> None:
    jobs = {job["name"]: msgspec.convert({**job, "command": job["command"].split()}, Job) for job in demo.jobs()}
    assert len(jobs) == 5
    assert faults(jobs, Paths.under(tmp_path)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_role_deploys_the_jobs_that_its_programs_have_in_every_key(source: str) -> None:
    """The programs have them for whoever runs them by hand, the role has them as the operator's document."""
    chosen = cli.source(source)
    known = {job.name: job for job in chosen.jobs(Deployment(Settings(), Paths.under(Path("/")), {}).section(chosen))}
    scheduled = {name: job for name, job in known.items() if job.schedule}
    keys = ("command", "locks", "lock_wait", "drains", "timeout", "kill_after")
    assert {name: {key: getattr(job, key) for key in keys} for name, job in deployed(source).items()} == {
        name: {key: getattr(job, key) for key in keys} for name, job in scheduled.items()
    }
    # Programs know no host, so they have no minute that is seeded by one.
    schedules = {tick["name"]: tick["schedule"].replace("H/", "*/") for tick in ticks(source)}
    assert schedules == {name: job.schedule for name, job in scheduled.items()}


@pytest.mark.parametrize("source", SOURCES)
def test_a_pass_ends_by_its_own_bound_before_its_timeout(source: str) -> None:
    for job in deployed(source).values():
        if "--seconds" in job.command:
            assert int(job.command[job.command.index("--seconds") + 1]) < seconds(job.timeout), job.name


def test_a_setting_has_the_same_default_in_the_role_and_in_the_programs() -> None:
    variables = read("atproto")
    for name in read("atproto", "vars")["_atproto_named"]:
        given = msgspec.convert({name: variables[f"atproto_{name}"]}, AtprotoSettings)
        assert getattr(given, name) == getattr(AtprotoSettings(), name), name


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a file, those in blocks among them with the tags of the block."""

    def within(found: list[dict[str, Any]], tags: set[str]) -> Iterator[dict[str, Any]]:
        for task in found:
            own = tags | words(task.get("tags", []))
            yield {**task, "tags": own}
            for part in ("block", "rescue", "always"):
                yield from within(task.get(part, []), own)

    yield from within(yaml.safe_load(path.read_text()) or [], set())


def words(tags: str | list[str]) -> set[str]:
    return {tags} if isinstance(tags, str) else set(tags)


def included(path: Path, task: dict[str, Any]) -> tuple[set[str], list[Path]]:
    """The tags that a dynamic include hands on, and the files that it may include."""
    for module in ("include_tasks", "include_role"):
        given = task.get(f"ansible.builtin.{module}")
        if given is None:
            continue
        given = {"file": given} if isinstance(given, str) else given
        name = re.sub(r"\{\{.*?\}\}", "*", given["file"] if module == "include_tasks" else given["name"])
        if module == "include_tasks":
            files = list(path.parent.glob(name))
        else:
            files = list(ROOT.glob(f"roles/{name}/tasks/{given.get('tasks_from', 'main')}.yml"))
        assert files, (path, task["name"])
        return words(given.get("apply", {}).get("tags", [])), files
    return set(), []


def test_what_is_included_as_the_play_runs_is_not_left_out_by_its_tag() -> None:
    # Other than what is imported, it does not inherit the tags of the task that includes it.
    tagged = 0
    for path in ROOT.glob("roles/*/tasks/*.yml"):
        for task in tasks(path):
            applied, files = included(path, task)
            tagged += bool(task["tags"] and files)
            for file in files:
                for inner in tasks(file):
                    missing = (task["tags"] - applied) if not inner["tags"] and not applied else set()
                    assert not missing, f"{path.parent.parent.name}: {task['name']}: {inner['name']}"
    assert tagged > 5


def test_a_version_s_name_tells_of_the_host_s_python_and_of_torch() -> None:
    def name(*given: str) -> str:
        release = ROOT / "roles/tickwork/files/release.py"
        constraints = ROOT / "constraints.txt"
        done = subprocess.run(
            [sys.executable, release, "name", ROOT, constraints, *given], capture_output=True, text=True, check=True
        )
        return done.stdout

    assert (
        len({name("cpu"), name("cpu", "python3.11"), name("cpu", "python3.13"), name("cpu", "torch==2.13.0+cpu")}) == 4
    )
    assert name("cpu", "python3.11") == name("python3.11", "cpu")
    asked = read("tickwork", "vars")["_tickwork_name_command"]
    for variable in ("_tickwork_all_extras", "_tickwork_torch", "tickwork_python", "_tickwork_python_version.stdout"):
        assert variable in asked


def test_everybody_may_read_the_metrics_and_nobody_what_else_a_pass_leaves(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    wrapper = Wrapper(tmp_path, ["/bin/sh", "-c", f"echo >{metrics}/job.pass.prom; echo >{tmp_path}/data; exit 3"])
    wrapper.tick()
    found = {path.name: path.stat().st_mode & 0o777 for path in [*metrics.iterdir(), tmp_path / "data", wrapper.log]}
    assert found == {"job.tick.prom": 0o644, "job.pass.prom": 0o644, "data": 0o640, "job.log": 0o640}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_has_a_default_and_a_sentence(role) -> None:
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert set(options) == set(defaults)
    assert all(option["description"].endswith(".") for option in options.values())


def test_readmes_say_what_the_specifications_say() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "roles/readme.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
