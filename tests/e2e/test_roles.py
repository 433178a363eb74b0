"""Deploying with the real roles into a folder: no root, nothing scheduled on this machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.kits.playbook import TOOLS, play
from tests.kits.wrappers import ROOT
from tickwork.sources.atproto.settings import AtprotoSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NO_VECTORS = {"doab_vectors": False}
"""Each job takes seconds."""
HARVEST = "doab-harvest"
BACKFILL = "doab-backfill"


class Deployment:
    """The demo inventory deployed into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def deploy(self, *options: str, **variables: Any) -> list[str]:
        """Deploy; gives the names of the tasks that changed something."""
        done = play(self.root, *options, **NO_VECTORS, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        tasks = done.stdout.split("\nTASK [")
        return [task.partition("]")[0] for task in tasks if "\nchanged: [localhost]" in task]

    def settings(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "etc/tickwork/tickwork.toml").read_text())

    @property
    def command(self) -> Path:
        return self.root / "usr/local/bin/tickwork"

    def wrapper(self, job: str) -> Path:
        return self.root / "usr/local/lib/tickwork/jobs" / job

    def state(self, job: str) -> Path:
        return self.root / "var/lib/tickwork/jobs" / job

    def entry(self, job: str) -> Path:
        return self.root / "etc/cron.d" / f"tickwork-{job}"

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")} if self.root.exists() else set()


# One deployment for all that follows, for each play takes long: first with both sources, then with one, then with none.

ODD = {"set": 'a "b" \\ c, ü and 😀', "interval_seconds": 1.5, "max_attempts": 7}
BOTH: dict[str, Any] = {
    "tickwork_scheduler": "cron",
    "tickwork_sources": ["doab", "atproto"],
    "doab_settings": ODD,
    "atproto_relays": ["https://relay.example.org"],
    "atproto_filter": {"mode": "filter", "signals": ["app.bsky.feed.*"]},
    "atproto_shard": "2/8",
    "atproto_settings": {"max_attempts": 3},
    "tickwork_vectors": {"top_k": 5},
    "tickwork_overrides": {HARVEST: {"schedule": "H H(1-5) * * *"}},
}


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """A folder of which nothing is there yet."""
    return Deployment(tmp_path_factory.mktemp("roles") / "root")


@pytest.fixture(scope="module")
def deployment(nothing: Deployment) -> Deployment:
    """Both sources are deployed and on the schedule."""
    assert nothing.deploy(**BOTH)
    return nothing


@pytest.fixture(scope="module")
def half_armed(deployment: Deployment) -> Deployment:
    """One source is left, one of its jobs is armed, and the metrics go into a folder that was there."""
    shared = deployment.root / "shared"
    shared.mkdir(mode=0o775)
    shared.chmod(0o775)
    (deployment.state(BACKFILL) / ".halted").write_text("kept")
    deployment.deploy(
        tickwork_scheduler="cron",
        tickwork_overrides={BACKFILL: {"armed": False}},
        tickwork_metrics_dir=str(shared),
    )
    return deployment


def test_check_mode_writes_nothing(nothing: Deployment) -> None:
    assert nothing.deploy("--check", **BOTH)
    assert nothing.files() == set()


def test_a_second_run_changes_nothing(deployment: Deployment) -> None:
    before = deployment.files()
    assert deployment.deploy("--diff", **BOTH) == []
    assert deployment.files() == before


def test_the_settings_say_what_is_deployed_and_every_value_is_the_one_that_was_given(deployment: Deployment) -> None:
    settings = deployment.settings()
    assert settings["doab"] == ODD
    assert settings["vectors"]["top_k"] == 5
    given = msgspec.convert(settings["atproto"], AtprotoSettings)
    assert (given.relays, given.shard, given.max_attempts) == (("https://relay.example.org",), "2/8", 3)
    assert given.filter.signals == ("app.bsky.feed.*",)
    assert set(settings["jobs"]) == {HARVEST, BACKFILL, "atproto-discover", "atproto-backfill"}
    assert {job["scheduler"] for job in settings["jobs"].values()} == {"cron"}
    assert re.fullmatch(r"\d+ [1-5] \* \* \*", settings["jobs"][HARVEST]["schedule"])
    assert settings["jobs"][BACKFILL]["command"] == ["doab", "backfill", "--limit", "500", "--seconds", "1080"]


def test_what_is_deployed_passes_its_check_and_its_scripts_are_clean(deployment: Deployment) -> None:
    checked = subprocess.run([deployment.command, "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    scripts = [deployment.command, deployment.wrapper(HARVEST), deployment.wrapper(BACKFILL)]
    for tool in (["shellcheck"], ["shfmt", "-d", "-i", "2", "-ci"]):
        done = subprocess.run([TOOLS / tool[0], *tool[1:], *scripts], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_armed_job_is_on_the_schedule(deployment: Deployment) -> None:
    entry = deployment.entry(BACKFILL)
    lines = entry.read_text().splitlines()
    assert entry.read_text().endswith("\n")
    assert entry.stat().st_mode & 0o777 == 0o644
    assert lines[-1].split()[:5] == ["*/30", "*", "*", "*", "*"]
    assert lines[-1].endswith(str(deployment.wrapper(BACKFILL)))


def test_everybody_may_read_the_metrics(deployment: Deployment) -> None:
    state = deployment.root / "var/lib/tickwork"
    assert modes(state, state / "metrics", state / "metrics/jobs.prom") == ["0o751", "0o755", "0o644"]


def test_a_folder_for_the_metrics_that_was_there_stays_as_it_was(half_armed: Deployment) -> None:
    state, shared = half_armed.root / "var/lib/tickwork", half_armed.root / "shared"
    prom = shared / f"{BACKFILL}.tick.prom"
    assert modes(state, shared, shared / "jobs.prom", prom) == ["0o750", "0o775", "0o644", "0o644"]


def test_an_unarmed_job_goes_off_the_schedule_and_can_be_run_by_hand(half_armed: Deployment) -> None:
    assert not half_armed.entry(BACKFILL).exists()
    assert not half_armed.settings()["jobs"][BACKFILL]["armed"]
    assert half_armed.wrapper(BACKFILL).exists()
    assert half_armed.entry(HARVEST).exists()


def test_by_its_tag_alone_each_part_does_all_that_is_its_own(half_armed: Deployment) -> None:
    deployment, run = half_armed, ("--tags", "run")
    backfill, harvest = deployment.entry(BACKFILL), deployment.entry(HARVEST)
    deployment.deploy(*run, tickwork_scheduler="cron", tickwork_overrides={HARVEST: {"armed": False}})
    assert backfill.exists()
    assert not harvest.exists()
    deployment.deploy(*run, tickwork_scheduler="manual")
    assert not backfill.exists()
    backfill.write_text("left behind\n")
    deployment.wrapper(HARVEST).unlink()
    deployment.deploy("--tags", "configure", tickwork_scheduler="cron")
    assert backfill.read_text() == "left behind\n"
    assert deployment.wrapper(HARVEST).exists()
    deployment.deploy(*run, tickwork_scheduler="cron")
    assert harvest.exists()


def test_jobs_that_cannot_live_together_are_not_scheduled(half_armed: Deployment) -> None:
    def scheduled() -> dict[str, str]:
        return {entry.name: entry.read_text() for entry in (half_armed.root / "etc/cron.d").iterdir()}

    # A backfill that does not wait for the lock which the harvest takes in the same minutes.
    together = {HARVEST: {"schedule": "*/30 * * * *"}}
    before = scheduled()
    done = play(half_armed.root, **NO_VECTORS, tickwork_scheduler="cron", tickwork_overrides=together)
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "doab-backfill does not wait for its locks, and at each of its ticks doab-harvest may hold them" in said
    assert scheduled() == before


def test_a_job_that_is_not_wanted_goes_away_and_its_state_stays(half_armed: Deployment) -> None:
    half_armed.deploy(tickwork_scheduler="cron", tickwork_sources=[])
    assert not half_armed.entry(HARVEST).exists()
    assert not half_armed.wrapper(HARVEST).exists()
    assert not half_armed.wrapper(BACKFILL).exists()
    assert not half_armed.wrapper("atproto-discover").exists()
    assert "jobs" not in half_armed.settings()
    assert (half_armed.state(BACKFILL) / ".halted").read_text() == "kept"
    assert half_armed.state(HARVEST).is_dir()


def modes(*paths: Path) -> list[str]:
    return [oct(path.stat().st_mode & 0o777) for path in paths]


# What is refused.


def job(**override: Any) -> dict[str, Any]:
    return {"tickwork_overrides": {BACKFILL: override}}


def network(**override: Any) -> dict[str, Any]:
    return {"tickwork_sources": ["atproto"], "atproto_relays": ["https://relay.example.org"], **override}


# What each host of one inventory has wrong, and what is said about it.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "late": (
        job(timeout="29m"),
        "doab-backfill may run 1740 s and 120 s more until it is killed, but ticks every 1800 s",
    ),
    "unknown": (
        job(timout="20m"),
        "doab-backfill: a name is lower-case letters, digits and dashes, and these keys are unknown: timout",
    ),
    "duration": (job(timeout="20 minutes"), "doab-backfill: timeout: '20 minutes' is not a duration"),
    "date": (job(schedule="0 0 30 2 *"), "doab-backfill: the schedule '0 0 30 2 *' never ticks"),
    "unscheduled": (job(schedule=""), "doab-backfill is armed; it needs a schedule"),
    "waiting": (job(lock_wait="30m"), "doab-backfill drains, so it comes back at the next tick and must not wait 30m"),
    "lock": (job(locks=["doab-oai", "../etc"]), "doab-backfill: a lock's name is lower-case letters"),
    "fleet": (
        job(locks=[{"name": "doab-oai", "scope": "fleet"}]),
        "doab-backfill: locks of scope fleet are not supported yet",
    ),
    "broken": (job(command=["doab", "two\nlines"]), "no word and no value of the environment has a line break"),
    "starving": (
        {"tickwork_overrides": {HARVEST: {"lock_wait": "22m"}}},
        "doab-harvest waits 1320 s for its locks, but doab-backfill may hold them for 1320 s in turn",
    ),
    "misspelt": (
        {"tickwork_overrides": {"doab-harvst": {"timeout": "30m"}}},
        "tickwork_overrides changes doab-harvst, but the jobs of misspelt are doab-backfill, doab-harvest",
    ),
    "twin": (
        {"tickwork_ticks": [{"name": HARVEST, "command": "doab harvest"}], "tickwork_armed": False},
        "Two jobs of twin have one name",
    ),
    "first": ({}, "doab-harvest is armed on first and second, which speak to one upstream"),
    "second": ({}, "doab-harvest is armed on first and second, which speak to one upstream"),
    "listless": (
        network(atproto_relays=[]),
        "atproto_relays and atproto_hosts of listless are empty, so there is nothing to discover",
    ),
    "fourth": (network(atproto_shard="4/3"), "atproto_shard of fourth is 4/3: write 2/8 for the second of eight hosts"),
    "unfiltered": (network(atproto_filter={"mode": "filter"}), "mode filter needs collections or signals"),
    "whole": (network(atproto_filter={"signals": ["app.bsky.*"]}), "mode full has neither"),
    "twice": (
        network(atproto_settings={"shard": "1/2"}),
        "atproto_settings has shard, which has a variable of its own: atproto_shard",
    ),
    "empty": (network(atproto_vectors=True, atproto_ephemeral=True), "atproto_ephemeral stores none; set one of them"),
    "unlocked": (
        network(atproto_ticks=[{"name": "mine", "command": "atproto backfill", "locks": ["mine"]}]),
        "whose command begins with atproto backfill must have the lock atproto-repos",
    ),
    # Shards of different counts share servers.
    "half": (
        network(atproto_shard="1/2", atproto_upstream="split"),
        "atproto-discover is armed on half and third, which speak to one upstream",
    ),
    "third": (
        network(atproto_shard="2/3", atproto_upstream="split"),
        "atproto-discover is armed on half and third, which speak to one upstream",
    ),
}


def exporting(upstream: str) -> dict[str, Any]:
    """A host with the job that inventory/production.example has in comments."""
    example = (ROOT / "inventory/production.example/group_vars/tickwork/main.yml").read_text()
    (commented,) = re.findall(r"^# tickwork_ticks:\n(?:#   .*\n)+", example, re.MULTILINE)
    return {"doab_upstream": upstream, **yaml.safe_load(re.sub(r"^# ", "", commented, flags=re.MULTILINE))}


OTHERS = {
    "exporter": exporting("an exporter's"),
    "another": exporting("another exporter's"),
    "elsewhere": {"doab_upstream": "another server"},
    "resting": {"doab_armed": False},
    "north": network(atproto_shard="1/2"),
    "south": network(atproto_shard="2/2"),
}


def test_what_cannot_work_is_refused_by_name_before_anything_is_installed(tmp_path: Path) -> None:
    # A host of each kind; their wrong jobs fail before their rivals are looked for, so `first` has just one.
    hosts = {
        name: {
            "tickwork_root": str(tmp_path / name),
            **({} if name in ("first", "second") else {"doab_upstream": name, "atproto_upstream": name}),
            **wrong,
        }
        for name, (wrong, _) in REFUSED.items()
    }
    hosts |= {name: {"tickwork_root": str(tmp_path / name), **variables} for name, variables in OTHERS.items()}
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "tickwork_become": False,
        "tickwork_sources": ["doab"],
        "tickwork_armed": True,
        "tickwork_scheduler": "manual",
        "tickwork_venv_existing": sys.prefix,
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"tickwork": {"hosts": hosts, "vars": common}}))
    # The first host alone must see the second, although the play is limited to one of them.
    said = " ".join(play(tmp_path, "--limit", "first", inventory=inventory, **NO_VECTORS).stdout.split())
    assert REFUSED["first"][1] in said
    # The rules alone: nobody waits for what those that keep them would have installed.
    done = play(tmp_path, "--limit", "all", "--check", "--tags", "always", inventory=inventory, **NO_VECTORS)
    said = " ".join(done.stdout.split())
    for name, (_, words) in REFUSED.items():
        assert re.search(rf"(fatal|failed): \[{name}\]", said), name
        assert words in said, name
        assert not (tmp_path / name).exists()
    for name in OTHERS:
        assert not re.search(rf"(fatal|failed): \[{name}\]", said), name
