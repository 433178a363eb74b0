"""Four clients ask while eight generations are published, twenty in the soak: none fails, and nothing piles up.

Prints how long answers took around the switches beside all others. TICKWORK_SWAP_SECONDS is how long it lasts at least:
half a minute, and a minute in the soak.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kits.serve import Catalogue, Process
from tests.kits.vectors import book, config, make_state, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SOAK = bool(os.environ.get("TICKWORK_SOAK"))
SECONDS = float(os.environ.get("TICKWORK_SWAP_SECONDS", "60" if SOAK else "30"))
PUBLISHES, CLIENTS, BOOKS = 20 if SOAK else 8, 4, 300
AROUND = 1.0
"""Seconds before and after a switch was seen that count as around it."""
GRACE = 2.0
SETTLED = GRACE + 3
"""Seconds after which an old generation is closed: the grace period and a little."""
MEGABYTE = 1 << 20

CLIENT = """
import http.client, itertools, json, sys, threading, time
host, port, clients, seconds, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
TARGETS = (
    "/?q=irrigation+in+Sicily", "/api/search?q=whaling&mode=words", "/item/doab/7", "/api/search?q=soil&mode=meaning",
    "/browse/doab?f=language%3Deng", "/api/items/doab/9/similar", "/doab/items.json", "/",
    "/api/corpora", "/doab/items",
)
PAUSE = 0.02  # who publishes needs a processor too
end, said, lock = time.monotonic() + seconds, [], threading.Lock()
def ask(shift):
    connection = http.client.HTTPConnection(host, port, timeout=60)
    for number in itertools.count(shift):
        target, begun = TARGETS[number % len(TARGETS)], time.time()
        if time.monotonic() > end:
            return
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
            assert body
        except Exception as error:
            status = repr(error)
            connection.close()
        with lock:
            said.append((target, status, begun, time.time() - begun))
        time.sleep(PAUSE)
threads = [threading.Thread(target=ask, args=(3 * number,)) for number in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
open(out, "w").write(json.dumps(said))
"""


def test_publishing_is_never_noticed(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path, config(tiny_model(tmp_path / "model")))
    make_state(deployment.state, BOOKS)
    deployment.good("embed", "doab")
    deployment.good("publish", "doab")
    brief = f"import tickwork.serve.service as service; service.GRACE_SECONDS = {GRACE}"
    with Process(deployment, tmp_path, python=brief) as service:
        service.until(lambda health: health["meaning"] == "ready")
        for number in range(3):  # what is only opened, loaded or allocated once
            published(deployment, service, number)
            load(service, tmp_path, 2.0)
        time.sleep(SETTLED)
        descriptors, memory = service.descriptors(), service.memory()

        clients = start(service, tmp_path / "said.json", SECONDS)
        switches, begun = [], time.monotonic()
        for number in range(PUBLISHES):
            # Spread over the time there is, so that there are idle stretches to compare with.
            time.sleep(max(0.0, begun + number * SECONDS / (PUBLISHES + 1) - time.monotonic()))
            switches.append(published(deployment, service, 100 + number))
            if clients.poll() is not None:  # a slow machine publishes slowly: somebody asks until the end
                clients = start(service, tmp_path / f"said{number}.json", SECONDS)
        assert clients.wait(SECONDS + 300) == 0
        lasted = time.monotonic() - begun
        time.sleep(SETTLED)
        descriptors_after, memory_after = service.descriptors(), service.memory()
        log = service.log()

    said = [one for path in tmp_path.glob("said*.json") for one in json.loads(path.read_text())]
    failed = [one for one in said if one[1] != 200]
    around = [took for _, _, at, took in said if any(abs(at - switch) < AROUND for switch in switches)]
    idle = [took for _, _, at, took in said if all(abs(at - switch) >= AROUND for switch in switches)]
    print(f"\n{len(said)} requests of {CLIENTS} clients, {len(failed)} failed, {PUBLISHES} publishes in {lasted:.0f} s")
    for name, taken in (("around switches", around), ("idle", idle)):
        p50, p99 = percentile(taken, 50), percentile(taken, 99)
        print(
            f"{name:16} {len(taken):6} requests  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  max {1000 * max(taken):7.1f} ms"
        )
    print(f"descriptors {descriptors} before, {descriptors_after} after")
    print(f"memory {memory / MEGABYTE:.0f} MiB before, {memory_after / MEGABYTE:.0f} MiB after")
    assert failed == []
    assert "Traceback" not in log
    assert len(said) > 10 * PUBLISHES
    assert descriptors_after <= descriptors + 4
    assert memory_after <= memory * 1.15 + 30 * MEGABYTE


def published(deployment: Catalogue, service: Process, number: int) -> float:
    """Change a book, publish it as an operator does, and wait for it to be served; gives when it was."""
    title = f"Swapped {number}"
    deployment.put({number % 50 + 1: {**book(number % 50 + 1), "title": title}})
    deployment.good("embed", "doab")
    arguments = [sys.executable, "-m", "tickwork", *deployment.command("publish", "doab")]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name = deployment.current().name
    service.until(lambda health: health["generation"] == name)
    return time.time()


def start(service: Process, out: Path, seconds: float) -> subprocess.Popen[bytes]:
    host, port = service.address
    return subprocess.Popen([sys.executable, "-c", CLIENT, host, str(port), str(CLIENTS), str(seconds), str(out)])


def load(service: Process, folder: Path, seconds: float) -> None:
    assert start(service, folder / "warm.json", seconds).wait(seconds + 120) == 0


def percentile(taken: Sequence[float], share: int) -> float:
    """In milliseconds."""
    return 1000 * statistics.quantiles(taken, n=100)[share - 1] if len(taken) > 1 else 0.0
