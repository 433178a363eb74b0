"""Proofs of two promises that Python keeps (the hold, the transaction), over commands in a process of their own.

`sabotage` is Python that runs in that process before `tickwork` does; the mutation check takes a promise away with it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.kits.wrappers import ROOT
from tests.upstreams.books import generated_books
from tests.upstreams.faults import Fault
from tests.upstreams.oai import FakeOai

NO_HOLD = """
import tickwork.upstream.slots as slots
assert callable(slots.Slots._held)
slots.Slots._held = lambda *anything: None
"""

NO_TRANSACTION = """
import contextlib
import tickwork.contract.database as database
assert callable(database.transaction)
@contextlib.contextmanager
def autocommit(connection, store):
    yield connection
database.transaction = autocommit
"""

_KILL_BETWEEN_DATA_AND_PROGRESS = """
import os, signal
from tickwork.sources.doab.crawl_state import CrawlState
_pages, _saw = [], CrawlState.saw
def saw(self, window, page):
    _pages.append(page)
    if len(_pages) == {page}:
        os.kill(os.getpid(), signal.SIGKILL)
    _saw(self, window, page)
CrawlState.saw = saw
"""

_MAIN = "\nfrom tickwork.cli import main\nmain()\n"


def harvest(state: Path, url: str, sabotage: str = "") -> subprocess.CompletedProcess[str]:
    """One pass of `doab harvest` over everything, as fast as it goes."""
    begin = (dt.datetime.now(dt.UTC) - dt.timedelta(days=20000)).strftime("%Y-%m-%d")
    command = ["--state", str(state), "--allow-private", "127.0.0.0/8", "doab", "harvest"]
    command += ["--base-url", url, "--interval-seconds", "0", "--jitter", "0", "--from", begin]
    return subprocess.run(
        [sys.executable, "-c", sabotage + _MAIN, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "jobs")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def nothing_is_sent_inside_a_hold(home: Path, sabotage: str = "") -> None:
    """A 429 is obeyed by the pass that hears it and by those after it: the server itself is the judge."""
    with FakeOai(generated_books(20), faults=[Fault("429", nth=2, after=60)]) as oai:
        first = harvest(home / "state", oai.base_url, sabotage)
        assert first.returncode == 3, first.stderr
        asked = len(oai.history)
        second = harvest(home / "state", oai.base_url, sabotage)
        assert not oai.history.inside_holds(), "a request inside the hold"
        assert len(oai.history) == asked
        assert second.returncode == 3, second.stderr
        assert "on hold until" in second.stderr


def data_and_progress_are_committed_together(home: Path, sabotage: str = "", page: int = 3) -> None:
    """Killed between storing a page and noting it, a harvest has done neither; the next pass completes it."""
    state = home / "state"
    with FakeOai(generated_books(60), page_size=10) as oai:
        killer = _KILL_BETWEEN_DATA_AND_PROGRESS.format(page=page)
        assert harvest(state, oai.base_url, sabotage + killer).returncode == -signal.SIGKILL
        with contextlib.closing(sqlite3.connect(state / "db" / "doab.db")) as store:
            stored = {row[0] for row in store.execute("SELECT identifier FROM records")}
            noted = {row[0] for row in store.execute("SELECT identifier FROM seen")}
        assert len(noted) == 10 * (page - 1)
        assert stored == noted, "records are stored of which the crawl knows nothing"
        assert harvest(state, oai.base_url, sabotage).returncode == 0
        with contextlib.closing(sqlite3.connect(state / "db" / "doab.db")) as store:
            assert store.execute("SELECT count(*) FROM records").fetchone()[0] == 60
