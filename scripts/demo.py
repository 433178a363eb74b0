"""The tour behind ./demo.sh: deploy, tick, respect a hold, halt, re-arm, drain; then embed, publish and search."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREFIX = ROOT / ".demo"
BIN = PREFIX / "usr/local/bin/tickwork"
JOBS = PREFIX / "usr/local/lib/tickwork/jobs"
STATE = PREFIX / "var/lib/tickwork"
PID = PREFIX / "search.pid"
OUTCOMES = {0: "drained", 3: "more", 4: "halted", 75: "busy"}
LEFT_FOR_THE_BACKFILL = 900
BOOKS = 3000
HOLD_SECONDS = 6
EMBEDDED = 400
SEARCHES = (("forests and climate", "words"), ("how people lived in the Middle Ages", "meaning"), ("law", "both"))

sys.path.insert(0, str(ROOT))


class Server:
    """The fake OAI-PMH server, in a process of its own, and what it thinks of our manners."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._root = base_url.removesuffix("/oai/request")

    def judgement(self) -> dict[str, object]:
        with urllib.request.urlopen(f"{self._root}/-/judgement") as answer:
            return dict(json.load(answer))

    def requests(self) -> int:
        with urllib.request.urlopen(f"{self._root}/-/history") as answer:
            return len(json.load(answer))

    def faults(self, *faults: dict[str, object]) -> None:
        request = urllib.request.Request(f"{self._root}/-/faults", json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request).close()


@contextmanager
def server(data: Path | None) -> Iterator[Server]:
    """Start the fake and stop it at the end."""
    source = (
        ["--csv", str(data / "doab_books_2018.csv"), "--page", str(data / "doab-check_test.xml")]
        if data
        else ["--books", str(BOOKS)]
    )
    ready = PREFIX / "upstream.url"
    command = [sys.executable, "-m", "tests.upstreams.oai", "--port", "0", "--ready-file", str(ready), *source]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit("the fake server did not start")
            time.sleep(0.05)
        yield Server(ready.read_text().strip())
    finally:
        process.terminate()
        process.wait()


def window_days(data: Path | None) -> int:
    """A rolling window that leaves the oldest records to the backfill."""
    from tests.upstreams.books import books_from_csv, books_from_page, generated_books

    if data:
        books = [*books_from_csv(data / "doab_books_2018.csv"), *books_from_page(data / "doab-check_test.xml")]
    else:
        books = generated_books(BOOKS)
    stamps = sorted(book.datestamp for book in books)
    return (datetime.now(UTC) - stamps[LEFT_FOR_THE_BACKFILL]).days


def deploy(settings: dict[str, object], ticks: list[dict[str, object]]) -> None:
    """Run the real playbook into the prefix."""
    variables = PREFIX / "variables.json"
    loopback = ["127.0.0.0/8"] if "base_url" in settings else []
    variables.write_text(
        json.dumps({"doab_settings": settings, "doab_ticks": ticks, "tickwork_allow_private": loopback}, indent=1)
    )
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "playbooks/site.yml",
            "-i",
            "inventory/demo",
            "-e",
            f"@{variables}",
        ],
        cwd=ROOT,
        env={**os.environ, "TICKWORK_DEMO_PREFIX": str(PREFIX), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the deployment failed:\n{done.stdout}{done.stderr}")
    print(done.stdout.rstrip().splitlines()[-1])


def tick(job: str) -> int:
    """One tick through the installed wrapper, as cron would do it; prints what cron would mail, and the outcome."""
    before = len(log(job))
    done = subprocess.run(
        [JOBS / job], env={**os.environ, "TICK_SCHEDULER": "hand"}, capture_output=True, text=True, check=False
    )
    passes = [line.split("pass=", 1)[1] for line in log(job)[before:] if f"job={job} pass=" in line]
    detail = passes[-1] if passes else "no pass was made"
    print(f"   tick {job}: exit {done.returncode} ({OUTCOMES.get(done.returncode, 'crashed')})  {detail}")
    for line in (done.stdout + done.stderr).splitlines():
        print(f"   mailed: {line}")
    return done.returncode


def until_drained(job: str, ticks: int = 40) -> None:
    """Tick while there is more to do, but not for ever: a server that has died is no end."""
    for _ in range(ticks):
        if tick(job) != 3:
            return
    raise SystemExit(f"{job} is not drained after {ticks} ticks; see its log in {PREFIX}")


def log(job: str) -> list[str]:
    path = PREFIX / "var/log/tickwork" / f"{job}.log"
    return path.read_text().splitlines() if path.exists() else []


def tickwork(*arguments: str) -> None:
    """Show an operator's command and what it says."""
    shown = " ".join(f'"{word}"' if " " in word else word for word in arguments)
    print(f"   $ tickwork {shown}", flush=True)
    done = subprocess.run([BIN, *arguments], capture_output=True, text=True, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"   {line}")


def start_service() -> str:
    """Start the service in a process of its own; gives its address."""
    ready = PREFIX / "search.url"
    with (PREFIX / "search.log").open("wb") as output:
        process = subprocess.Popen(
            [BIN, "serve", "--port", "0", "--ready-file", ready], stdout=output, stderr=output, start_new_session=True
        )
    PID.write_text(str(process.pid))
    for _ in range(600):
        if ready.exists() and (address := ready.read_text()):
            return address
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the service did not start; see {PREFIX / 'search.log'}")


def stop_service() -> bool:
    """End the service of a demo before; gives whether there was one."""
    try:
        pid = int(PID.read_text())
        ours = b"--ready-file" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    PID.unlink()
    if ours:
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.1)
    return ours


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def jobs() -> list[dict[str, object]]:
    """The jobs of the tour, for the roles."""
    # Nothing is scheduled here; but the times are such that with cron none would keep another from its lock for good.
    lock = {"locks": ["doab-oai"], "armed": True}
    vectors = {"locks": ["vectors"], "armed": True}
    return [
        {"name": "doab-discover", "command": "doab discover", "schedule": "25 2 * * 6", **lock},
        {"name": "doab-harvest", "command": "doab harvest", "schedule": "30 4 * * *", "lock_wait": "60m", **lock},
        {
            "name": "doab-backfill",
            "command": "doab backfill --limit 350",
            "schedule": "*/30 * * * *",
            "drains": True,
            **lock,
        },
        {"name": "doab-embed", "command": f"embed doab --limit {EMBEDDED}", "schedule": "*/30 * * * *", **vectors},
        {
            "name": "doab-publish",
            "command": "publish doab",
            "schedule": "10 * * * *",
            "lock_wait": "60m",
            **vectors,
        },
    ]


def tour(fake: Server, data: Path | None) -> None:
    """The tour over the fake server."""
    say("Deploying into .demo with the real roles (playbooks/site.yml, inventory/demo)")
    deploy(
        {"base_url": fake.base_url, "interval_seconds": 0.01, "jitter": 0.0, "window_days": window_days(data)},
        jobs(),
    )
    say("The nightly harvest: what changed lately, page by page")
    until_drained("doab-harvest")
    say("Discovery: one crawl of all identifiers, into a snapshot that other machines may use")
    until_drained("doab-discover")
    tickwork("doab", "diff")
    say("The backfill: what is missing, newest first, at most 350 requests a pass")
    tick("doab-backfill")

    say(f"The server now answers 429, Retry-After: {HOLD_SECONDS}. The pass ends, and a hold keeps everybody away")
    fake.faults({"kind": "429", "verb": "GetRecord", "nth": 5, "after": HOLD_SECONDS})
    tick("doab-backfill")
    tickwork("holds")
    before = fake.requests()
    tick("doab-backfill")
    print(f"   requests sent by that tick: {fake.requests() - before}")
    time.sleep(HOLD_SECONDS + 1)

    say("The server now answers 403. Only a human can mend that: the job halts")
    fake.faults({"kind": "403", "verb": "GetRecord", "nth": 5})
    tick("doab-backfill")
    tickwork("explain", "doab-backfill")
    before = fake.requests()
    tick("doab-backfill")
    print(f"   requests sent by that tick: {fake.requests() - before}")
    tickwork("rearm", "doab-backfill", "--why", "the repository's operator let us in again")

    say("Two jobs of one lock: the second tick is skipped while the first holds it")
    first = subprocess.Popen([JOBS / "doab-backfill"], env={**os.environ, "TICK_SCHEDULER": "hand"})
    time.sleep(1)
    tick("doab-discover")
    first.wait()

    say("On until it is drained")
    until_drained("doab-backfill")
    tickwork("status")
    tickwork("doab", "stats")
    tickwork("manners")
    say("What the server thinks of us")
    for name, figure in fake.judgement().items():
        print(f"   {name}: {figure}")

    say(f"Vectors for the first {EMBEDDED} books; then all are published, searchable by words, and these by meaning")
    tick("doab-embed")
    until_drained("doab-publish")
    tickwork("generations", "doab")
    for query, mode in SEARCHES:
        tickwork("search", "doab", query, "--mode", mode, "--limit", "3")
    say("The search service, which stays: ./demo.sh --stop ends it")
    print(f"   {start_service()}")
    print(f"\nEverything is in {PREFIX.relative_to(ROOT)}/ ; try: {BIN.relative_to(ROOT)} status")


def live() -> None:
    """One small pass over the real repository."""
    say("Deploying for the real DOAB, one pass of at most 200 records")
    deploy(
        {},
        [
            {
                "name": "doab-harvest",
                "command": "doab harvest --limit 200 --seconds 60",
                "locks": ["doab-oai"],
                "schedule": "30 4 * * *",
                "armed": True,
            }
        ],
    )
    tick("doab-harvest")
    tickwork("doab", "stats")
    tickwork("holds")
    tickwork("status")


def main() -> None:
    parser = argparse.ArgumentParser(prog="./demo.sh", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--data", type=Path, metavar="DIR", help="real records: doab_books_2018.csv, doab-check_test.xml"
    )
    choice.add_argument("--live", action="store_true", help="the real DOAB, one small pass")
    choice.add_argument("--stop", action="store_true", help="end the search service of the demo")
    options = parser.parse_args()
    stopped = stop_service()
    if options.stop:
        print("the search service has ended" if stopped else "no search service is running")
        return
    shutil.rmtree(PREFIX, ignore_errors=True)
    PREFIX.mkdir()
    begun = time.monotonic()
    if options.live:
        live()
    else:
        with server(options.data) as fake:
            tour(fake, options.data)
    print(f"({time.monotonic() - begun:.0f} seconds)")


if __name__ == "__main__":
    main()
