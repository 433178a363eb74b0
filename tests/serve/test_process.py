"""`tickwork serve` as a process: it says where it is, stops gracefully, takes a socket, explains what it cannot do."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.serve import BOOKS, Catalogue, Process

pytestmark = pytest.mark.slow

SLOW = """
import time
from tickwork.search.searcher import Searcher
search = Searcher.search
def slowly(self, query, *more, **named):
    if query == "slow":
        time.sleep(2)
    return search(self, query, *more, **named)
Searcher.search = slowly
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    deployment = Catalogue(tmp_path_factory.mktemp("process"))
    deployment.publish(BOOKS)
    return deployment


def test_it_answers_once_it_says_so_and_a_stop_lets_requests_end(deployment: Catalogue, tmp_path: Path) -> None:
    with Process(deployment, tmp_path, python=SLOW) as service, ThreadPoolExecutor() as pool:
        assert f"serving at {service.url}" in service.log()
        assert service.get("/")[0] == 200
        assert service.health()["status"] == "ok"
        slow = pool.submit(service.get, "/api/search?q=slow&mode=words")
        time.sleep(0.7)
        begun = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - begun < PATIENCE_SECONDS
        status, body = slow.result(PATIENCE_SECONDS)
        assert status == 200
        assert json.loads(body)["query"] == "slow"
        with pytest.raises(ConnectionRefusedError):
            service.get("/")
        assert "Traceback" not in service.log()


def test_bytes_that_are_no_http_get_400_and_harm_nothing(deployment: Catalogue, tmp_path: Path) -> None:
    with Process(deployment, tmp_path) as service:
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500 + b"\r\n\r\n",
            b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-long: " + b"a" * 200_000 + b"\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        ):
            answer = service.raw(sent)
            assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer[:200]
        keep = "host: x\r\nconnection: close\r\n"
        upgrade = (
            f"GET / HTTP/1.1\r\n{keep}upgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n"
        )
        assert service.raw(upgrade.encode()).split(b" ")[1] == b"200", "an upgrade is passed over"
        head = service.raw(f"HEAD / HTTP/1.1\r\n{keep}\r\n".encode())
        assert head.split(b" ")[1] == b"200"
        assert head.endswith(b"\r\n\r\n"), "no body"
        assert b"server:" not in head.lower()
        post = service.raw(f"POST / HTTP/1.1\r\n{keep}content-length: 3\r\n\r\nabc".encode())
        assert post.split(b" ")[1] == b"405"
        assert service.health()["status"] == "ok"
        assert "Traceback" not in service.log()


def test_clients_that_say_nothing_keep_nobody_out_for_long(deployment: Catalogue, tmp_path: Path) -> None:
    brief = "import tickwork.serve.request_timeout as patience; patience.REQUEST_SECONDS = 2"
    with Process(deployment, tmp_path, python=brief) as service:
        silent = [socket.create_connection(service.address, 60) for _ in range(210)]
        for one in silent[:70]:
            one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
        again = silent[100]  # which may go on after an answer, but no slower
        time.sleep(0.3)
        assert service.get("/-/health")[0] == 503, "all places are taken"
        end = time.monotonic() + PATIENCE_SECONDS
        while service.get("/-/health")[0] != 200:
            assert time.monotonic() < end
            for one in silent[:70]:
                with contextlib.suppress(OSError):
                    one.sendall(b"a")  # byte by byte
            time.sleep(0.2)
        assert again.recv(100) == b""
        with socket.create_connection(service.address, 60) as kept:
            request = b"GET /api/corpora HTTP/1.1\r\nhost: x\r\n\r\n"
            for _ in range(2):
                kept.sendall(request)
                received = b""
                while not received.endswith(b"\r\n0\r\n\r\n"):
                    received += kept.recv(65536)
                assert received.startswith(b"HTTP/1.1 200")
                time.sleep(2.5)  # silence between two requests is another matter
            kept.sendall(request[:20])
            begun = time.monotonic()
            assert kept.recv(100) == b""
            assert 1 < time.monotonic() - begun < PATIENCE_SECONDS
        for one in silent:
            one.close()


def test_a_port_in_use_is_an_error_that_names_it(deployment: Catalogue) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(deployment, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"tickwork: cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert "serving" not in done.stdout


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_an_error(deployment: Catalogue, host: str) -> None:
    done = run(deployment, "--port", "0", "--host", host)
    assert done.returncode == 2
    assert f"tickwork: cannot listen on {host} port 0: " in done.stderr
    assert "Traceback" not in done.stderr


def run(deployment: Catalogue, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tickwork", *deployment.command("serve"), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def activated(
    deployment: Catalogue, ready: Path, pid: str, count: int, listening: socket.socket
) -> subprocess.Popen[str]:
    """The service as systemd starts it: the socket is descriptor 3, and two variables say so."""
    code = f"""
import os, sys
os.environ["LISTEN_PID"] = {pid or "str(os.getpid())"}
os.environ["LISTEN_FDS"] = "{count}"
from tickwork.cli import main; main()
"""
    command = [sys.executable, "-c", code, *deployment.command("serve"), "--port", "0", "--ready-file", str(ready)]

    def place() -> None:
        os.dup2(listening.fileno(), 3)

    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=place, pass_fds=(3,))


def wait(process: subprocess.Popen[str], ready: Path) -> str:
    until(lambda: process.poll() is not None or (ready.exists() and ready.read_text()))
    assert process.poll() is None
    return ready.read_text()


def get(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, 60) as connection:
        connection.sendall(b"GET /-/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def test_a_socket_of_systemd_is_taken_and_outlives_the_service(deployment: Catalogue, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        for round_ in range(2):
            ready = tmp_path / f"ready{round_}"
            process = activated(deployment, ready, "", 1, listening)
            answers: list[bytes] = []
            early = threading.Thread(target=lambda into=answers: into.append(get(address)))
            early.start()  # before anybody answers: it waits
            assert wait(process, ready) == f"http://127.0.0.1:{address[1]}/"
            early.join(60)
            assert answers[0].startswith(b"HTTP/1.1 200")
            process.terminate()
            assert process.wait(60) == 0
            assert process.stderr
            process.stderr.close()


def test_a_socket_meant_for_another_process_is_left_alone(deployment: Catalogue, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = activated(deployment, tmp_path / "ready", "'1'", 1, listening)
        url = wait(process, tmp_path / "ready")
        assert url != f"http://127.0.0.1:{listening.getsockname()[1]}/"
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr
        process.stderr.close()


def test_announced_sockets_that_are_not_there_are_an_error(deployment: Catalogue) -> None:
    code = "import os; os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1'"
    command = [sys.executable, "-c", f"{code}; from tickwork.cli import main; main()", *deployment.command("serve")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "tickwork: cannot listen on the socket that was handed over: " in done.stderr
