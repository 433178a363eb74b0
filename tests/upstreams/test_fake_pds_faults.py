"""Each fault of the fake AT Protocol network is what it says, and happens to whom and as often as it says."""

from __future__ import annotations

import datetime as dt
import http.client
import time
import zlib
from email.utils import parsedate_to_datetime

import pytest

from tests.kits import atproto as kit
from tests.kits.fake_pds import verified
from tests.kits.patience import until
from tests.upstreams.pds import Network
from tests.upstreams.pds_cars import INVALID_PATHS
from tests.upstreams.pds_client import connect, get, repo, send, xrpc
from tests.upstreams.pds_odd import BOMB_GIBIBYTES
from tests.upstreams.pds_wire import ERRORS
from tickwork.sources.atproto.repo import repository
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.keys import PublicKey

POSTS = {f"app.bsky.feed.post/{number:03d}": {"text": f"post {number}"} for number in range(60)}


@pytest.fixture
def network():
    with Network(hosts=3, accounts_a_host=2, records=5) as made:
        yield made


@pytest.fixture(params=["secp256k1", "secp256r1"])
def account(network, request):
    """One with a tree of several layers."""
    return network.add(1, records=POSTS, curve=request.param)


@pytest.fixture
def author(network):
    return network.add(0, records=POSTS, curve="secp256r1")


# --- repositories ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("cut-frames", r"its block .* is missing"),
        ("missing-record", r"the record app.bsky.feed.post/.*: its block .* is missing"),
        ("missing-node", r"the node .* of the tree: its block is missing"),
        ("tampered", "does not have the hash its CID says"),
        ("bad-signature", "its signature is not by"),
        ("high-s", "its signature is not by"),
        ("wrong-did", "it belongs to did:plc:z{24}, not to"),
        ("other-account", "it belongs to did:plc:.*, not to"),
        ("future", "in the future"),
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_broken_repository_is_broken_in_its_own_way_once(network, account, kind, problem, empty):
    if empty:
        network.edit(account.did, {}, list(account.records))
        problem = problem if kind not in ("missing-record", "cut-frames") else "its block .*is missing"
    fault = network.fault(kind, did=account.did)
    answer = repo(account.home, account.did)
    assert answer.status == 200
    with pytest.raises(InvalidRepositoryError, match=problem):
        verified(account, answer.body)
    assert verified(account, repo(account.home, account.did).body)[0] == network.truth(account.did)
    assert [seen.fault for seen in network.requests()] == [kind, ""]
    assert fault.fired == 1


def test_a_broken_repository_is_sound_but_for_what_it_is_said_to_be(network, account):
    sound = repo(account.home, account.did).body
    bodies = {}
    for kind in ("cut-frames", "missing-record", "missing-node", "tampered", "bad-signature", "high-s"):
        network.fault(kind, did=account.did)
        bodies[kind] = repo(account.home, account.did).body
    for kind in ("cut-frames", "missing-record", "missing-node"):
        assert 0 < len(bodies[kind]) < len(sound)
    assert sum(a != b for a, b in zip(bodies["tampered"], sound, strict=True)) == 1
    key, order = PublicKey.from_multikey(account.key.multikey()), kit.ORDERS[account.key.curve.name]
    now = dt.datetime.now(dt.UTC)
    for kind in ("bad-signature", "high-s"):
        with repository.read(kit.on_disk(bodies[kind]), account.did, None, now=now) as found:
            assert {each.path for each in found.records()} == POSTS.keys()
            commit = found.commit
        low = order - int.from_bytes(commit.signature[32:], "big")
        assert key.verify(commit.signature[:32] + low.to_bytes(32, "big"), commit.unsigned) is (kind == "high-s")


def test_only_the_did_tells_of_a_wrong_did(network, account):
    network.fault("wrong-did", did=account.did)
    body = repo(account.home, account.did).body
    key, now = PublicKey.from_multikey(account.key.multikey()), dt.datetime.now(dt.UTC)
    with repository.read(kit.on_disk(body), "did:plc:" + "z" * 24, key, now=now) as found:
        assert {each.path for each in found.records()} == POSTS.keys()


def test_a_stale_repository_is_sound_and_older_than_what_was_served(network, account):
    fault = network.fault("stale", did=account.did)
    assert verified(account, repo(account.home, account.did).body)[0] == network.truth(account.did)
    assert fault.fired == 0
    stale = repo(account.home, account.did).body
    found, read = verified(account, stale)
    assert found.items() < network.truth(account.did).items()
    assert read.commit.rev < account.delivered == account.rev
    with pytest.raises(InvalidRepositoryError, match="is older than"):
        verified(account, stale, at_least_rev=account.rev)


def test_invalid_paths_stand_beside_sound_records(network, account):
    network.fault("invalid-path", did=account.did, times=None)
    for _ in range(2):
        found, read = verified(account, repo(account.home, account.did).body)
        assert found == network.truth(account.did)
        assert read.invalid_paths.count == len(INVALID_PATHS)
    assert network.broken() == {}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_by_their_names(network, author, name):
    network.fault(name, did=author.did, times=2)
    for _ in range(2):
        assert repo(author.home, author.did).error == (ERRORS[name], name)
    assert repo(author.home, author.did).status == 200


# --- odd answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["429", "500", "503", "404"])
def test_any_status_can_be_had(network, author, kind):
    network.fault(kind, did=author.did)
    answer = repo(author.home, author.did)
    assert answer.status == int(kind)
    assert not answer.headers.keys() & {"retry-after", "ratelimit-reset"}
    assert network.requests()[0].hold_until is None


@pytest.mark.parametrize("kind", ["429-reset", "429-retry-after", "429-date", "503-retry-after"])
def test_a_server_tells_to_stay_away_for_as_long_as_the_oracle_holds_it_to(network, author, kind):
    network.fault(kind, did=author.did, after=100)
    before = time.time()
    answer = repo(author.home, author.did)
    assert answer.status == int(kind[:3])
    hold = network.requests()[0].hold_until
    told = answer.headers.get("retry-after", "")
    if kind == "429-reset":
        assert "retry-after" not in answer.headers
        assert int(answer.headers["ratelimit-reset"]) == hold
    elif kind == "429-date":
        assert parsedate_to_datetime(told).timestamp() == hold
    else:
        assert told == "100"
    assert before + 100 <= hold <= time.time() + 101


def test_a_page_or_nothing_comes_in_place_of_a_repository(network, author):
    network.fault("html", did=author.did)
    network.fault("empty", did=author.did)
    page, nothing = repo(author.home, author.did), repo(author.home, author.did)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body.startswith(b"<!DOCTYPE html>")
    assert (nothing.status, nothing.headers["content-length"], nothing.body) == (200, "0", b"")


def test_redirects_lead_to_private_addresses_elsewhere_or_nowhere(network, author):
    network.fault("redirect-private", did=author.did)
    network.fault("redirect-private", did=author.did, to="http://169.254.169.254/")
    network.fault("redirect", did=author.did, to="https://elsewhere.example/x")
    network.fault("redirect-loop", did=author.did)
    answers = [repo(author.home, author.did) for _ in range(4)]
    assert {answer.status for answer in answers} == {302}
    places = [answer.headers["location"] for answer in answers]
    assert places[0].startswith("http://10.0.0.1/")
    assert places[1:3] == ["http://169.254.169.254/", "https://elsewhere.example/x"]
    trail = [places[3]]
    for _ in range(3):
        trail.append(get(author.home, trail[-1]).headers["location"])
    assert trail[0] == trail[2] != trail[1] == trail[3]
    assert network.violations() == []


def test_a_connection_is_reset(network, author):
    network.fault("reset", did=author.did)
    with pytest.raises(ConnectionResetError):
        repo(author.home, author.did)
    assert repo(author.home, author.did).status == 200
    assert [seen.status for seen in network.requests()] == [0, 200]


def test_silence_is_silence_until_the_client_goes(network, author):
    network.fault("silence", did=author.did)
    connection = connect(author.home, timeout=0.1)
    send(connection, xrpc("getRepo", did=author.did))
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert network.requests()[0].ended is None
    connection.close()
    until(lambda: network.requests()[0].client_gone)


def test_a_body_hangs_half_way(network, author):
    network.fault("hang", did=author.did)
    connection = connect(author.home, timeout=0.1)
    send(connection, xrpc("getRepo", did=author.did))
    response = connection.getresponse()
    half = int(response.headers["Content-Length"]) // 2
    assert response.read(half) == author.revision().car[:half]
    with pytest.raises(TimeoutError):
        response.read(1)
    response.close()
    until(lambda: network.requests()[0].client_gone)


@pytest.mark.parametrize(("kind", "beyond"), [("drip", 50), ("flood", 20_000_000)])
def test_a_body_never_ends_and_is_sound_as_far_as_it_goes(network, author, kind, beyond):
    network.fault(kind, did=author.did, interval=0.0)
    car = author.revision().car
    connection = connect(author.home)
    send(connection, xrpc("getRepo", did=author.did))
    response = connection.getresponse()
    assert response.headers["Content-Length"] is None
    assert response.read(len(car)) == car
    more = response.read(beyond)
    assert len(more) == beyond
    response.close()
    until(lambda: network.requests()[0].client_gone)
    assert verified(author, car + _whole_frames(more))[0] == network.truth(author.did)
    assert repo(author.home, author.did).body == car


def _whole_frames(data):
    frame = 3 + (data[0] & 127 | (data[1] & 127) << 7 | data[2] << 14)
    return data[: len(data) // frame * frame]


def test_a_bomb_is_small_on_the_wire_and_gigabytes_decoded(network, author):
    network.fault("bomb", did=author.did)
    connection = connect(author.home)
    send(connection, xrpc("getRepo", did=author.did), Accept_Encoding="gzip")
    response = connection.getresponse()
    assert response.headers["Content-Encoding"] == "gzip"
    size = int(response.headers["Content-Length"])
    wire = response.read(200_000)
    unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS)
    decoded = 0
    for start in range(0, len(wire), 10_000):
        decoded += len(unpacked.decompress(wire[start : start + 10_000]))
    assert size < 8_000_000
    assert decoded / len(wire) * size > 0.9 * (BOMB_GIBIBYTES << 30)
    response.close()
    until(lambda: network.requests()[0].ended)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("kind", ["truncate", "truncate-chunked"])
def test_a_truncated_body_is_shorter_than_was_said(network, author, kind, coding):
    network.fault(kind, did=author.did)
    connection = connect(author.home)
    send(connection, xrpc("getRepo", did=author.did), Accept_Encoding=coding)
    response = connection.getresponse()
    assert response.headers["Content-Encoding"] == (None if coding == "identity" else "gzip")
    with pytest.raises(http.client.IncompleteRead) as cut:
        response.read()
    part = cut.value.partial
    whole = author.revision().car
    if coding == "gzip":
        part = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(part)
    assert whole.startswith(part)
    assert len(whole) > len(part) > 100
    assert author.delivered == ""


def test_a_truncated_encoding_shows_only_when_decoded(network, author):
    network.fault("truncate-encoded", did=author.did)
    connection = connect(author.home)
    send(connection, xrpc("getRepo", did=author.did), Accept_Encoding="gzip")
    response = connection.getresponse()
    wire = response.read()
    assert len(wire) == int(response.headers["Content-Length"])
    unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS)
    part = unpacked.decompress(wire)
    assert not unpacked.eof
    assert author.revision().car.startswith(part)
