"""Several processes that share a slots database are one polite visitor; the server's own clock is the judge."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.upstreams.plain import Handler, Plain, answer
from tickwork.upstream.slots import Slots

pytestmark = pytest.mark.slow
VISITOR = """
import ipaddress, sys
from pathlib import Path
from tickwork.contract.outcomes import PassEnd
from tickwork.contract.stop import Stop
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.policy import Policy
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.slots import Slots

database, url, count, interval = sys.argv[1:]
guard = Guard([ipaddress.ip_network("127.0.0.0/8")])
policy = Policy(interval_seconds=float(interval))
with Slots(Path(database)) as slots:
    with Upstream("repo", slots=slots, guard=guard, stop=Stop(), contact="c", policy=policy) as upstream:
        print("ready", flush=True)
        try:
            for _ in range(int(count)):
                upstream.get(url)
        except PassEnd as end:
            sys.exit(f"{type(end).__name__}: {end}")
"""


@pytest.fixture
def server() -> Iterator[Plain]:
    with Plain({"/": answer(200, b"x")}) as running:
        yield running


def visitors(number: int, database: Path, url: str, count: int, interval: float) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", VISITOR, str(database), url, str(count), str(interval)]
    return [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(number)]


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    return [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in processes]


def test_two_processes_keep_one_rate(server: Plain, tmp_path: Path) -> None:
    assert ended(visitors(2, tmp_path / "slots.db", server.url(), 6, 0.15)) == ["", ""]
    assert len(server.requests) == 12
    assert min(server.silences()) >= 0.15


def test_four_processes_are_never_there_at_once(server: Plain, tmp_path: Path) -> None:
    def slow(handler: Handler) -> None:
        server.closing.wait(0.03)
        handler.send(200, b"x")

    server.replies["/"] = slow
    assert ended(visitors(4, tmp_path / "slots.db", server.url(), 6, 0.0)) == [""] * 4
    assert len(server.requests) == 24
    assert server.most_at_once == 1


def test_a_hold_told_to_one_is_kept_by_all(server: Plain, tmp_path: Path) -> None:
    def fourth_refused(handler: Handler) -> None:
        handler.send(200, b"x") if len(server.requests) < 4 else handler.send(503, b"", Retry_After="60")

    server.replies["/"] = fourth_refused
    said = ended(visitors(3, tmp_path / "slots.db", server.url(), 50, 0.02))
    assert len(server.requests) == 4
    assert [text.partition(":")[0] for text in said] == ["Held"] * 3
    assert ended(visitors(1, tmp_path / "slots.db", server.url(), 1, 0))[0].startswith("Held: 127.0.0.1")
    assert len(server.requests) == 4


def test_a_process_killed_inside_a_request_leaves_its_slot_at_once(server: Plain, tmp_path: Path) -> None:
    def first_hangs(handler: Handler) -> None:
        if len(server.requests) == 1:
            handler.drip(b"", 0.05)
        else:
            handler.send(200, b"x")

    server.replies["/"] = first_hangs
    [killed] = visitors(1, tmp_path / "slots.db", server.url(), 1, 0.0)
    until(lambda: server.requests)
    [waiting] = visitors(1, tmp_path / "slots.db", server.url(), 1, 0.0)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "ready\n"
    time.sleep(0.3)
    assert len(server.requests) == 1, "the slot of a living process was taken"
    killed.send_signal(signal.SIGKILL)
    at = time.monotonic()
    assert ended([waiting]) == [""]
    assert server.requests[1].start - at < PATIENCE_SECONDS
    killed.communicate()


def test_a_refusal_is_on_record_before_its_page_is_read(server: Plain, tmp_path: Path) -> None:
    def page_never_comes(handler: Handler) -> None:
        handler.raw(b"HTTP/1.1 429 No\r\nRetry-After: 600\r\nContent-Type: text/html\r\nContent-Length: 500\r\n\r\n")
        server.closing.wait()

    server.replies["/"] = page_never_comes
    [process] = visitors(1, tmp_path / "slots.db", server.url(), 1, 0.0)
    with Slots(tmp_path / "slots.db") as slots:
        until(slots.holds)
        process.kill()
        process.communicate()
        [hold] = slots.holds()
    assert (hold.until - dt.datetime.now(dt.UTC)).total_seconds() > 500
