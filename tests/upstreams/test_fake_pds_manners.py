"""The oracle of the fake AT Protocol network neither misses nor invents anything, and its servers serve."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.kits.fake_pds import first
from tests.kits.patience import until
from tests.upstreams.pds import Network
from tests.upstreams.pds_client import connect, get, receive, repo, send, xrpc
from tests.upstreams.pds_history import History, Seen


@pytest.fixture
def network():
    with Network(hosts=4, accounts_a_host=4, web_accounts=1) as made:
        yield made


# --- what a client must not do -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "violation"),
    [
        (xrpc("getRepo"), 400, "asked getRepo without did"),
        (xrpc("getLatestCommit", did=""), 400, "asked getLatestCommit without did"),
        (xrpc("listReposByCollection"), 400, "asked listReposByCollection without collection"),
        (xrpc("getRepo", did="did:plc:a", rev=1), 400, "asked getRepo with an unknown 'rev'"),
        (xrpc("getRepo", did="no-did"), 400, "asked for 'no-did', which is no DID"),
        (xrpc("getRepo", did="did:plc:a") + "&did=did:plc:b", 400, "said a parameter twice"),
        (xrpc("listRepos", limit=1001), 400, "asked for a limit that is none"),
        (xrpc("listRepos", limit="many"), 400, "asked for a limit that is none"),
        ("/robots.txt", 404, "asked for what no such server has"),
    ],
)
def test_a_malformed_request_is_refused_and_held_against_the_client(network, path, status, violation):
    network.fault("500", host=0, times=None)
    answer = get(network.hosts[0].url, path)
    assert answer.status == status
    assert status != 400 or answer.error == (400, "InvalidRequest")
    [sentence] = network.violations()
    assert sentence == f"pds-0: {violation} (request 1, GET {path})"


def test_unknown_methods_and_odd_cursors_are_refused_only(network):
    for url, path in (
        (network.hosts[0].url, "/xrpc/com.atproto.sync.getEverything"),
        (network.hosts[0].url, "/xrpc/com.atproto.server.describeServer"),
        (network.relay_url, xrpc("getRepo", did=first(network).did)),
    ):
        assert get(url, path).error == (501, "MethodNotImplemented")
    assert get(network.relay_url, xrpc("listRepos", cursor="17")).error == (400, "InvalidRequest")
    assert repo(network.hosts[0].url, "did:plc:unknown").error == (400, "RepoNotFound")
    assert network.violations() == []


def test_only_get_is_allowed_and_only_of_the_host_that_was_connected_to(network):
    url = network.hosts[0].url
    assert get(url, xrpc("listRepos"), "POST").status == 405
    assert get(url, xrpc("listRepos"), Host="pds.example").status == 400
    assert get(network.plc_url, "/did:web:example.com").status == 400
    sentences = network.violations()
    assert "pds-0: asked with POST (request 1, POST /xrpc/com.atproto.sync.listRepos)" in sentences
    assert any("asked for the host 'pds.example'" in sentence for sentence in sentences)
    assert any("'did:web:example.com', which is no DID of this directory" in sentence for sentence in sentences)
    assert len(sentences) == 3


@pytest.mark.parametrize("agent", ["python-requests/2.32", "tickwork/1.0", "other/1 (+https://x.example)", " "])
def test_a_user_agent_that_does_not_say_who_asks_is_held_against_the_client(network, agent):
    assert repo(first(network).home, first(network).did, User_Agent=agent).status == 200
    [sentence] = network.violations()
    assert sentence.startswith(f"pds-0: the User-Agent {agent.strip()!r} does not say who asks")


def test_requests_are_noted_with_their_times_their_account_and_their_bytes(network):
    account = first(network)
    answer = repo(account.home, account.did)
    get(network.plc_url, f"/{account.did}")
    [seen] = network.requests(method="getRepo")
    assert (seen.verb, seen.did, seen.status, seen.fault) == ("GET", account.did, 200, "")
    assert seen.path == xrpc("getRepo", did=account.did)
    assert seen.began < seen.ended
    assert len(answer.body) < seen.bytes < len(answer.body) + 1000
    assert [each.host for each in network.requests()] == ["pds-0", "plc"]
    assert network.requests(account.home) == network.requests(0) == [seen]
    assert network.requests("plc", "document")[0].did == account.did


def test_requests_at_once_are_counted_for_each_host(network):
    account = first(network)
    network.fault("hang", did=account.did, times=None)
    connections = [connect(account.home) for _ in range(3)]
    for connection in connections:
        send(connection, xrpc("getRepo", did=account.did))
    assert get(network.plc_url, f"/{account.did}").status == 200
    until(lambda: len(network.requests(0)) == 3)
    assert (network.max_at_once(0), network.max_at_once("plc"), network.max_at_once(1)) == (3, 1, 0)
    assert network.violations(at_once=3) == []
    address = account.home.removeprefix("http://")
    assert network.violations(at_once=2) == [f"pds-0: 3 requests at once to {address}, allowed are 2"]
    for connection in connections:
        connection.close()
    until(lambda: all(seen.client_gone for seen in network.requests(0)))


def test_a_client_that_hangs_up_is_done_before_its_next_request(network):
    account = first(network)
    network.fault("hang", did=account.did, times=None)
    for _ in range(30):
        connection = connect(account.home)
        send(connection, xrpc("getRepo", did=account.did))
        connection.getresponse().close()
    assert network.max_at_once(0) == 1


def test_requests_in_a_hold_are_held_against_the_client(network):
    account, other = list(network.accounts.values())[:2]
    network.fault("429-retry-after", did=account.did, after=1000)
    repo(account.home, account.did)
    repo(network.hosts[1].url, other.did)
    assert network.violations(grace=0) == []
    repo(account.home, other.did)
    [sentence] = network.violations(grace=0)
    assert re.search(r"pds-0: asked \d+\.\d\d s before it was to be asked again, as request 1 was told", sentence)
    assert network.violations(grace=1000) == []
    network.requests()[0].hold_until -= 1000
    assert network.violations(grace=0) == []


def test_what_a_client_was_told_just_before_its_death_is_not_held_against_it(network):
    account, other = list(network.accounts.values())[:2]
    network.client_died()
    time.sleep(0.1)
    network.fault("429-retry-after", did=account.did, after=1000)
    repo(account.home, account.did)
    time.sleep(0.1)
    repo(account.home, other.did)
    assert len(network.violations(grace=0.05)) == 1
    network.client_died()
    assert len(network.violations(grace=0.05)) == 1
    assert network.violations(grace=1) == []
    first_one = network.requests()[0]
    first_one.began_wall -= 10
    first_one.ended_wall -= 10
    assert len(network.violations(grace=1)) == 1


def test_the_longest_hold_counts_and_what_was_asked_before_it_does_not():
    def seen(seq, began, ended, hold=None, address="host:1"):
        return Seen(seq, "pds-0", began, began, address=address, ended=ended, ended_wall=ended, hold_until=hold)

    history = History()
    history._seen = [
        *(seen(1, 10, 11, hold=50), seen(2, 10.5, 12, hold=30), seen(3, 11, 15)),
        *(seen(4, 13, 20), seen(5, 40, 41), seen(6, 50, 51), seen(7, 20, 21, address="localhost:1")),
    ]
    assert [int(text.partition("(request ")[2][0]) for text in history.violations(lambda _: 9, grace=1.5)] == [4, 5]
    assert all("as request 1 was told" in text for text in history.violations(lambda _: 9, grace=1.5))
    assert history.violations(lambda _: 9, grace=100) == []
    assert history.violations(lambda _: 2, grace=100) == []
    [crowd] = history.violations(lambda _: 1, grace=100)
    assert crowd == "pds-0: 2 requests at once to host:1, allowed are 1"


# --- the servers -------------------------------------------------------------------------------------


def test_a_connection_serves_many_requests(network):
    account = first(network)
    connection = connect(account.home)
    for _ in range(5):
        send(connection, xrpc("getRepo", did=account.did))
        assert receive(connection).status == 200
    assert len({seen.seq for seen in network.requests()}) == 5
    assert network.max_at_once(0) == 1


def test_sixty_four_clients_at_once_are_served():
    with Network(hosts=50, accounts_a_host=2, at_once=64) as network:
        accounts = list(network.accounts.values())
        failed, ready = [], threading.Barrier(64)

        def client(number):
            ready.wait()
            for account in accounts[number : number + 3]:
                if repo(account.home, account.did).body != account.revision().car:
                    failed.append(account.did)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(network.requests()) == 64 * 3
        assert network.violations() == []


def test_answers_take_as_long_as_they_are_to_and_others_do_not_wait():
    with Network(hosts=2, accounts_a_host=1, latency=0.05) as network:
        network.hosts[1].latency = 600
        slow = connect(network.hosts[1].url)
        send(slow, xrpc("listRepos"))
        repo(first(network).home, first(network).did)
        [seen] = network.requests(0)
        assert seen.ended - seen.began > 0.049
        assert all(each.ended is None for each in network.requests(1))
        slow.close()


def test_a_refused_host_comes_back_at_its_port(network):
    account = first(network)
    kept = connect(account.home)
    send(kept, xrpc("getRepo", did=account.did))
    assert receive(kept).status == 200
    for _ in range(2):
        network.refuse(0)
        with pytest.raises(ConnectionRefusedError):
            repo(account.home, account.did)
        assert repo(network.hosts[1].url, account.did).status == 400
        network.accept(0)
        assert repo(account.home, account.did).status == 200


def test_a_limit_is_told_in_headers_and_kept(network):
    account = first(network)
    network.limit(0, requests=2, seconds=1000)
    answers = [repo(account.home, account.did) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert "retry-after" not in answers[2].headers
    reset = int(answers[2].headers["ratelimit-reset"])
    assert network.requests()[2].hold_until == reset
    assert network.violations(grace=0) == []
    assert repo(account.home, account.did).status == 429
    assert len(network.violations(grace=0)) == 1


def test_it_runs_as_a_process_and_knows_nothing_of_what_it_tests(tmp_path):
    announced = tmp_path / "network.json"
    command = [sys.executable, "-X", "importtime", "-m", "tests.upstreams.pds", "--hosts", "2", "--accounts", "2"]
    process = subprocess.Popen([*command, "--announce", str(announced)], stderr=subprocess.PIPE, text=True)
    try:
        until(announced.exists)
        urls = json.loads(announced.read_text())
        did = urls["dids"][0]
        assert get(urls["plc"], f"/{did}").status == 200
        assert repo(urls["hosts"][0], did).status == 200
        assert len(get(urls["relay"], xrpc("listRepos")).json["repos"]) == 4
        assert get(urls["relay"], "/robots.txt").status == 404
        truth = get(urls["relay"], f"/-/truth?did={did}").json
        assert all(cid.startswith("bafyrei") for cid in truth.values())
        assert len(get(urls["plc"], "/-/requests").json) == get(urls["plc"], "/-/summary").json["requests"] == 4
        assert get(urls["relay"], "/-/violations").json == [
            "relay: asked for what no such server has (request 4, GET /robots.txt)"
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        imported = process.communicate()[1]
    assert process.returncode == 0
    assert "tests.kits.atproto" in imported
    assert not re.search(r"\| +tickwork", imported)
