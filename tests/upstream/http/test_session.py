"""What a source sees of a remote service, and what the service sees of us."""

from __future__ import annotations

import datetime as dt
import functools
import gzip
import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.upstreams.plain import Handler, Plain, answer, raw
from tickwork.contract.outcomes import Held, Interrupted, OperatorError, Transient
from tickwork.contract.stop import Stop
from tickwork.upstream.http.errors import Forbidden, ServerFault, TooLarge, UnexpectedStatus, UnsafeUrl
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Slots

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
zipped = functools.partial(gzip.compress, mtime=0)  # so that a test has the same name whenever it is collected
HTML = {"Content_Type": "text/html; charset=utf-8"}


class World:
    """A server, a slots database, and sessions that may call the server under any `*.test` name."""

    def __init__(self, folder: Path) -> None:
        self.server = Plain()
        self.slots = Slots(folder / "slots.db")
        self.stop = Stop()
        self.names: dict[str, list[str]] = {}
        self._opened: list[Upstream] = []

    def upstream(self, **changes: Any) -> Upstream:
        policy = Policy(**{"interval_seconds": 0.0, "retries": 0, "connect_seconds": 2, "read_seconds": 5, **changes})
        upstream = Upstream(
            "repo",
            slots=self.slots,
            guard=Guard([LOOPBACK], resolve=lambda host, port: self.names.get(host, ["127.0.0.1"])),
            stop=self.stop,
            contact="https://search.example/bot",
            mail="ops@search.example",
            policy=policy,
        )
        self._opened.append(upstream)
        return upstream

    def close(self) -> None:
        for upstream in self._opened:
            upstream.close()
        self.slots.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.server:
        yield made
        made.close()


def test_an_answer_and_what_the_server_learns_of_us(world: World) -> None:
    world.server.replies["/oai"] = answer(200, b"<xml/>", X_Extra="1")
    got = world.upstream().get(
        world.server.url("/oai?verb=Identify"), params={"from": "2026-01-01", "set": "a b&c"}, accept="text/xml"
    )
    assert (got.status, got.content, got.path, got.bytes) == (200, b"<xml/>", None, 6)
    assert got.headers["x-extra"] == "1"
    request = world.server.requests[0]
    assert request.path == "/oai?verb=Identify&from=2026-01-01&set=a+b%26c"
    assert request.headers["User-Agent"].startswith("tickwork/")
    assert request.headers["User-Agent"].endswith(" (+https://search.example/bot)")
    assert request.headers["From"] == "ops@search.example"
    assert request.headers["Accept"] == "text/xml"
    assert request.headers["Accept-Encoding"] == "gzip, zstd, br"
    assert world.slots.report(1)[0].bytes == 6


def test_a_body_goes_to_a_file(world: World, tmp_path: Path) -> None:
    world.server.replies["/repo"] = answer(200, zipped(b"blocks" * 1000), Content_Encoding="gzip")
    got = world.upstream().get(world.server.url("/repo"), into=tmp_path / "repo.car")
    assert (got.path, got.content) == (tmp_path / "repo.car", b"")
    assert (tmp_path / "repo.car").read_bytes() == b"blocks" * 1000


def test_one_connection_serves_many_requests_and_the_interval_is_kept(world: World) -> None:
    world.server.replies["/"] = answer(200, b"x")
    upstream = world.upstream(interval_seconds=0.1)
    for _ in range(4):
        upstream.get(world.server.url())
    assert len({request.port for request in world.server.requests}) == 1
    assert min(world.server.silences()) >= 0.1


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_holds_every_session_at_once(world: World, status: int) -> None:
    world.server.replies["/"] = answer(status, b"go away", Retry_After="100")
    with pytest.raises(Held, match=f"answered {status} and named the time") as held:
        world.upstream(retries=3).get(world.server.url())
    assert 98 < (held.value.until - dt.datetime.now(dt.UTC)).total_seconds() <= 100
    with pytest.raises(Held):
        world.upstream().get(world.server.url("/else"))
    assert world.server.paths() == ["/"]


def test_a_refusal_that_names_no_time_is_a_strike(world: World) -> None:
    world.server.replies["/"] = answer(503)
    with pytest.raises(Held) as held:
        world.upstream().get(world.server.url())
    assert 58 < (held.value.until - dt.datetime.now(dt.UTC)).total_seconds() <= 60
    assert world.slots.holds()[0].strikes == 1


def test_the_last_request_of_a_window_is_answered_and_the_next_held(world: World) -> None:
    world.server.replies["/"] = answer(200, b"x", RateLimit_Remaining="0", RateLimit_Reset="30")
    upstream = world.upstream()
    assert upstream.get(world.server.url()).content == b"x"
    with pytest.raises(Held):
        upstream.get(world.server.url())
    assert len(world.server.requests) == 1


def test_a_hold_learnt_from_a_body(world: World) -> None:
    upstream = world.upstream()
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert upstream.hold_for(world.server.url("/oai"), until, "maintenance").until == until
    with pytest.raises(Held, match="maintenance"):
        upstream.get(world.server.url())
    assert upstream.hold_for("Repo.Example", until, "as well").host == "repo.example"
    assert world.server.requests == []


def test_a_server_fault_is_not_retried_and_holds_nothing(world: World) -> None:
    world.server.replies["/"] = answer(502, b"bad\x1b[31m gateway\n")
    with pytest.raises(ServerFault, match=r"answered 502: bad \[31m gateway") as fault:
        world.upstream(retries=3).get(world.server.url())
    assert fault.value.status == 502
    assert isinstance(fault.value, Transient)
    assert len(world.server.requests) == 1
    assert world.slots.holds() == []


def test_forbidden_and_unexpected_answers_name_url_status_and_text(world: World) -> None:
    world.server.replies["/403"] = answer(403, b"not you")
    world.server.replies["/304"] = answer(304)
    upstream = world.upstream()
    with pytest.raises(Forbidden, match="/403 answered 403: not you") as forbidden:
        upstream.get(world.server.url("/403"))
    assert not forbidden.value.challenge
    with pytest.raises(UnexpectedStatus, match=r"/none\?token=… answered 404: no such path") as unexpected:
        upstream.get(world.server.url("/none?token=secret"))
    assert unexpected.value.status == 404
    assert upstream.get(world.server.url("/none"), ok_statuses=(200, 404)).status == 404
    assert upstream.get(world.server.url("/304"), ok_statuses=(200, 304)).content == b""


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (403, b"", {"cf_mitigated": "challenge"}),
        (200, b"<html>", {"cf_mitigated": "challenge"}),
        (403, b"<html><title>Just a moment...</title>", HTML),
        (403, b"<html><script src=/cdn-cgi/challenge-platform/x.js>" + b" " * 200_000, HTML),
        (503, b"<html><script src=/cdn-cgi/challenge-platform/x.js>", HTML),
        (
            429,
            zipped(b"<html><script src=/cdn-cgi/challenge-platform/x.js>"),
            {**HTML, "Content_Encoding": "gzip"},
        ),
    ],
)
def test_a_challenge_page_is_for_a_human(world: World, status: int, body: bytes, headers: dict[str, str]) -> None:
    world.server.replies["/"] = answer(status, body, **headers)
    with pytest.raises(Forbidden, match="a bot-challenge page") as forbidden:
        world.upstream().get(world.server.url())
    assert forbidden.value.challenge
    assert len(world.slots.holds()) == (status in (429, 503))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + b"12345" * 100,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\n" + zipped(b"x" * 1000)[:30],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"<html>no http at all</html>",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 7 OK\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_whole_is_retried_and_then_a_fault(world: World, broken: bytes) -> None:
    world.server.replies["/"] = raw(broken)
    with pytest.raises(Transient, match="failed 3 times, the last: "):
        world.upstream(retries=2).get(world.server.url())
    assert len(world.server.requests) == 3
    assert world.slots.report(1)[0].faults == 3


def test_every_retry_keeps_the_interval_and_may_succeed(world: World) -> None:
    def third_time(handler: Handler) -> None:
        handler.raw(b"") if len(world.server.requests) < 3 else handler.send(200, b"at last")

    world.server.replies["/"] = third_time
    assert world.upstream(interval_seconds=0.1, retries=2).get(world.server.url()).content == b"at last"
    assert min(world.server.silences()) >= 0.1


def test_a_refused_connection_and_an_unknown_name_are_transient(world: World) -> None:
    world.server.__exit__()
    with pytest.raises(Transient, match="Connection refused"):
        world.upstream().get(world.server.url())
    world.server.__enter__()


def test_a_body_that_is_too_large_is_not_retried(world: World) -> None:
    world.server.replies["/"] = answer(200, zipped(bytes(2**20)), Content_Encoding="gzip")
    with pytest.raises(TooLarge, match="decodes to more than 1000000 bytes"):
        world.upstream(retries=3, max_bytes=1_000_000).get(world.server.url())
    assert len(world.server.requests) == 1
    assert len(world.upstream().get(world.server.url(), max_bytes=2**20).content) == 2**20


def test_an_unreadable_encoding_is_transient_and_not_retried(world: World) -> None:
    world.server.replies["/"] = answer(200, b"x", Content_Encoding="compress")
    with pytest.raises(Transient, match="cannot be read: its Content-Encoding is 'compress'"):
        world.upstream(retries=3).get(world.server.url())
    assert len(world.server.requests) == 1


def test_redirects_are_followed_with_the_slots_of_each_host_and_no_credentials(world: World) -> None:
    other = world.server.url("/there", host="other.test")
    world.server.replies["/"] = answer(301, Location=other)
    unescaped = "/here?x=ä".encode().decode("latin-1")  # UTF-8 on the wire
    world.server.replies["/there"] = answer(302, Location=unescaped)
    world.server.replies["/here"] = answer(200, b"found")
    secrets = {"Authorization": "Bearer s", "Cookie": "a=b", "X-Kept": "yes"}
    got = world.upstream().get(world.server.url(host="first.test"), headers=secrets)
    assert got.content == b"found"
    assert got.url == world.server.url("/here?x=ä", host="other.test")
    assert {row.host: row.requests for row in world.slots.report(1)} == {
        f"first.test:{world.server.port}": 1,
        f"other.test:{world.server.port}": 2,
    }
    first, *rest = world.server.requests
    assert "Authorization" in first.headers
    for request in rest:
        assert not {"Authorization", "Cookie"} & set(request.headers)
        assert request.headers["X-Kept"] == "yes"
        assert request.headers["Host"] == f"other.test:{world.server.port}"


def test_a_redirect_to_a_held_host_is_not_followed(world: World) -> None:
    world.server.replies["/"] = answer(301, Location=world.server.url("/there", host="other.test"))
    upstream = world.upstream()
    upstream.hold_for(f"other.test:{world.server.port}", dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), "asked")
    with pytest.raises(Held, match="other"):
        upstream.get(world.server.url())
    assert world.server.paths() == ["/"]


@pytest.mark.parametrize(
    "location",
    ["http://10.0.0.5/", "http://inside.test/", "file:///etc/passwd", "http://a@b.test/", "//[::1]/", "//[::"],
)
def test_a_redirect_into_the_operators_network_is_refused(world: World, location: str) -> None:
    world.names["inside.test"] = ["10.0.0.5", "169.254.169.254"]
    world.server.replies["/"] = answer(302, Location=location)
    with pytest.raises(UnsafeUrl):
        world.upstream(retries=3).get(world.server.url())
    assert world.server.paths() == ["/"]


def test_redirects_end(world: World) -> None:
    world.server.replies["/a"] = answer(302, Location="/b")
    world.server.replies["/b"] = answer(302, Location="/a#again")
    for number in range(10):
        world.server.replies[f"/{number}"] = answer(302, Location=f"/{number + 1}")
    upstream = world.upstream()
    with pytest.raises(UnexpectedStatus, match="redirected in a loop"):
        upstream.get(world.server.url("/a"))
    assert world.server.paths() == ["/a", "/b"]
    with pytest.raises(UnexpectedStatus, match="redirected more than 5 times"):
        upstream.get(world.server.url("/0"))
    assert world.server.paths()[2:] == [f"/{number}" for number in range(6)]


def test_a_redirect_brings_no_bomb(world: World) -> None:
    world.server.replies["/"] = answer(302, zipped(bytes(2**24)), Location="/x", Content_Encoding="gzip")
    world.server.replies["/x"] = answer(200, b"x")
    assert world.upstream(max_bytes=1000).get(world.server.url()).content == b"x"


def test_no_cookie_comes_back(world: World) -> None:
    world.server.replies["/"] = answer(200, b"x", Set_Cookie="a=b; Path=/")
    upstream = world.upstream()
    upstream.get(world.server.url())
    upstream.get(world.server.url())
    assert "Cookie" not in world.server.requests[1].headers


def test_no_proxy_and_no_netrc_of_the_environment_is_used(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password pw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    world.server.replies["/"] = answer(200, b"x")
    world.upstream().get(world.server.url())
    assert "Authorization" not in world.server.requests[0].headers


def test_nothing_is_sent_when_a_stop_was_requested(world: World) -> None:
    upstream = world.upstream()
    world.stop.request("asked to stop by SIGTERM")
    with pytest.raises(Interrupted, match="SIGTERM"):
        upstream.get(world.server.url())
    assert world.server.requests == []
    assert world.slots.report(1) == []


def test_nothing_is_sent_when_the_slot_cannot_be_written(world: World) -> None:
    upstream = world.upstream()
    world.slots._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(OperatorError, match="no request was sent"):
        upstream.get(world.server.url())
    assert world.server.requests == []


def test_many_threads_share_one_session(world: World) -> None:
    def slow(handler: Handler) -> None:
        world.server.closing.wait(0.02)
        handler.send(200, handler.path.encode())

    world.server.replies["/"] = slow
    upstream = world.upstream(concurrency=3)
    got: list[bool] = []

    def fetch(number: int) -> None:
        path = f"/?{number}"
        got.append(upstream.get(world.server.url(path)).content == path.encode())

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True] * 24
    assert 2 <= world.server.most_at_once <= 3
