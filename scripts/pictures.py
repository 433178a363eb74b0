"""Make the pictures of README.md, docs/pictures/status.svg and search.png, from a deployment in a temporary folder.

It harvests from fake servers on loopback, embeds, publishes and serves; nothing is called that is not on this machine.
scripts/pictures.py --data DIR   takes real records (doab_books_2018.csv and doab-check_test.xml in DIR)
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_plus

from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.upstreams.books import Book, books_from_csv, books_from_page, generated_books  # noqa: E402
from tests.upstreams.oai import FakeOai  # noqa: E402
from tests.upstreams.pds import Network  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 108
BOOKS = 1200
BACKFILLED = 150
EMBEDDED = 500
QUERY = "forests and climate"
SIZE = {"width": 1100, "height": 806}
SECONDS = 120
"""Long enough for anything on a busy machine."""

SETTINGS = """
allow_private = ["127.0.0.0/8"]

[doab]
base_url = "{oai}"
interval_seconds = 0.01
jitter = 0.0

[atproto]
plc = ["{plc}"]
relays = ["{relay}"]
plc_interval_seconds = 0.05
host_interval_seconds = 0.05
list_interval_seconds = 0.01

[jobs]
doab-harvest = {{ scheduler = "cron", armed = true, command = ["doab", "harvest", "--from", "{first}"] }}
doab-backfill = {{ scheduler = "cron", armed = true, command = ["doab", "backfill", "--limit", "{backfilled}"] }}
doab-embed = {{ scheduler = "cron", armed = true, command = ["embed", "doab", "--limit", "{embedded}"] }}
doab-publish = {{ scheduler = "cron", armed = true }}
atproto-discover = {{ scheduler = "cron", armed = true }}
atproto-backfill = {{ scheduler = "cron", armed = true }}
"""

COLOURS = {"halted": "bold red", "held": "yellow", "running": "bold cyan", "done": "green", "idle": "green"}
"""The states, as the lights of a crossing would show them."""
FAINT = "#8b949e"
PAPER, INK = (22, 27, 34), (216, 222, 233)
RED, GREEN, YELLOW, BLUE = (255, 123, 114), (126, 211, 133), (227, 179, 65), (121, 184, 255)
MAGENTA, CYAN = (188, 140, 255), (118, 227, 234)
THEME = TerminalTheme(PAPER, INK, [PAPER, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, INK])


class Deployment:
    """A state folder with its settings, whose commands run as an operator's do."""

    def __init__(self, home: Path, settings: str) -> None:
        self._home = home
        (home / "tickwork.toml").write_text(settings)
        self._tickwork = [sys.executable, "-m", "tickwork", "--config", str(home / "tickwork.toml")]
        self._tickwork += ["--state", str(home / "state")]

    def run(self, *arguments: str, may_end_with: tuple[int, ...] = (0,)) -> None:
        """Run a command, whose exit code must be one of those."""
        print(f"   tickwork {' '.join(arguments)}", flush=True)
        done = subprocess.run([*self._tickwork, *arguments], capture_output=True, text=True, check=False)
        if done.returncode not in may_end_with:
            raise SystemExit(
                f"tickwork {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def said(self, *arguments: str) -> str:
        """What a command prints on a terminal of COLUMNS columns."""
        master, slave = os.openpty()
        environment = {**os.environ, "COLUMNS": str(COLUMNS)}
        process = subprocess.Popen([*self._tickwork, *arguments], stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        said = b""
        try:
            while part := os.read(master, 65536):
                said += part
        except OSError:  # how Linux tells that nobody has the terminal open any more
            pass
        os.close(master)
        process.wait()
        return said.decode().replace("\r\n", "\n")

    @contextmanager
    def in_background(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs meanwhile, and is told to end."""
        with (self._home / "background.log").open("wb") as log:
            process = subprocess.Popen([*self._tickwork, *arguments], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(SECONDS)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The search service once it can search by meaning; gives its address."""
        ready = self._home / "ready"
        with self.in_background("serve", "--port", "0", "--ready-file", str(ready)):
            wait(lambda: ready.exists() and bool(ready.read_text()))
            address = ready.read_text()

            def searches() -> bool:
                with urllib.request.urlopen(f"{address}-/health") as answer:
                    return bool(json.load(answer)["corpora"]["doab"]["meaning"] == "ready")

            wait(searches)
            yield address


def wait(holds: Callable[[], bool]) -> None:
    """Wait for something to hold."""
    end = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited {SECONDS} s in vain")
        time.sleep(0.1)


def books(data: Path | None) -> list[Book]:
    """The records of the fake repository: generated ones, or real ones, those with abstracts among them."""
    if data is None:
        return generated_books(BOOKS)
    described = [book for book in books_from_page(data / "doab-check_test.xml") if not book.deleted]
    others = books_from_csv(data / "doab_books_2018.csv")
    return described + random.Random(1).sample(others, BOOKS - len(described))


def work(home: Path, data: Path | None) -> None:
    """Make both pictures: everything is in order but for one job, whose circuit breaker has opened."""
    records = books(data)
    newest = sorted(book.datestamp for book in records)[BOOKS // 3]
    with FakeOai(records) as oai, Network(hosts=6, accounts_a_host=60, at_once=4, latency=0.2) as network:
        deployment = Deployment(
            home,
            SETTINGS.format(
                oai=oai.base_url,
                plc=network.plc_url,
                relay=network.relay_url,
                first=newest.date(),
                backfilled=BACKFILLED,
                embedded=EMBEDDED,
            ),
        )
        deployment.run("run", "doab-harvest")
        deployment.run("doab", "discover")
        deployment.run("run", "doab-backfill", may_end_with=(3,))
        deployment.run("run", "doab-embed", may_end_with=(3,))
        deployment.run("run", "doab-publish")
        deployment.run("run", "atproto-discover")
        for book in records:  # what the backfill has not asked for yet is gone now: its circuit breaker opens
            oai.delete(book.identifier)
        deployment.run("run", "doab-backfill", may_end_with=(4,))
        with deployment.in_background("run", "atproto-backfill"):
            wait(lambda: "running" in deployment.said("status"))
            time.sleep(2)
            status(deployment)
        deployment.run("embed", "doab")
        deployment.run("publish", "doab")
        with deployment.serving() as address:
            search(address)


def status(deployment: Deployment) -> None:
    """`tickwork status`, and what `tickwork explain` says of the job that is halted."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), legacy_windows=False)
    for arguments in (("status",), ("explain", "doab-backfill")):
        console.print(Text.assemble(("$ ", "bold green"), (f"tickwork {' '.join(arguments)}", "bold")))
        for number, line in enumerate(deployment.said(*arguments).splitlines()):
            console.print(coloured(line, head=arguments[0] == "status" and number == 0))
        console.print()
    # Without the fonts that rich would have a reader fetch: whatever is monospaced will do.
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono'")
    drawn = console.export_svg(title="tickwork", theme=THEME, code_format=form, unique_id="status")
    (PICTURES / "status.svg").write_text(drawn, encoding="utf-8")


def coloured(line: str, *, head: bool) -> Text:
    """A line as it was printed, the states in colours."""
    text = Text(line, style=FAINT if head else "")
    for state, style in COLOURS.items():
        text.highlight_regex(rf"\b{state}\b(?=  | since)", style)
    text.highlight_regex(r"^(Why|Lock|Next tick|To do):", FAINT)
    return text


def search(address: str) -> None:
    """A page of results."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, base_url=address, color_scheme="light")
        page.goto(f"/?q={quote_plus(QUERY)}")
        page.screenshot(path=PICTURES / "search.png")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/pictures.py", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="real records")
    options = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        work(Path(home), options.data)


if __name__ == "__main__":
    main()
