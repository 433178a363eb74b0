"""The roles' own programs and documents: schedules, durations, defaults, READMEs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from types import ModuleType

import msgspec
import pytest
import yaml

from tests.wrappers import ROOT
from tickwork.contract.jobs import Job, seconds

ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan"] = module
    spec.loader.exec_module(module)
    return module


plan = load("roles/tick/files/plan.py")


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
        first, second = (plan.plan({"schedule": "H/30 * * * *", "seed": f"host{host} job"}) for _ in range(2))
        assert first == second
        assert first["interval"] == 1800
        minute = int(first["schedule"].split(",")[0])
        assert first["schedule"] == f"{minute},{minute + 30} * * * *"
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
