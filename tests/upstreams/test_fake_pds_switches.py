"""Faults of documents and lists, and whom faults of the fake AT Protocol network befall, and how often."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.kits.fake_pds import verified
from tests.upstreams.pds import Network
from tests.upstreams.pds_client import get, pages, repo, xrpc
from tests.upstreams.pds_faults import RANDOM_REPOSITORIES, Chance, Fault
from tests.upstreams.pds_history import Seen
from tickwork.sources.atproto.repo import identity
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError


@pytest.fixture
def network():
    with Network(hosts=3, accounts_a_host=2, records=5) as made:
        yield made


@pytest.fixture
def author(network):
    return network.add(0, curve="secp256r1")


# --- documents and lists -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("doc-other-did", "its document is that of"),
        ("doc-private-pds", "http://10.0.0.1"),
        ("doc-no-pds", "None"),
        ("doc-no-key", "has no signing key"),
        ("doc-bad-key", "is not in base58"),
        ("doc-other-key", "did:key:zQ3sh"),
    ],
)
def test_documents_are_wrong_in_their_own_way(network, author, kind, said):
    network.fault(kind, did=author.did, times=None)

    def told():
        try:
            read = identity.parse(get(network.plc_url, f"/{author.did}").json, author.did, allow_http=True)
            return f"{read.pds} {read.signing_key()}" if "key" in kind else str(read.pds)
        except InvalidRepositoryError as error:
            return str(error)

    assert said in told()
    other = next(iter(network.accounts))
    assert get(network.plc_url, f"/{other}").body == network.accounts[other].document_bytes()
    network.clear_faults()
    assert author.home in told()


@pytest.mark.parametrize("kind", ["404", "410", "429-retry-after", "500", "html"])
def test_the_directory_fails_for_one_account_or_as_a_whole(network, author, kind):
    other = next(iter(network.accounts))
    network.fault(kind, did=author.did, method="document")
    network.fault(kind, host="plc", times=2)
    assert repo(author.home, author.did).status == 200
    bodies = [get(network.plc_url, f"/{did}").body for did in (author.did, other, author.did, other, author.did)]
    assert [json.loads(body).get("id") if body[:1] == b"{" else None for body in bodies] == [
        *[None] * 3,
        other,
        author.did,
    ]


def test_lists_go_wrong_in_their_own_ways(network):
    url = network.hosts[0].url
    page = xrpc("listRepos", limit=1)
    sound = get(url, page).json
    next_page = xrpc("listRepos", limit=1, cursor=sound["cursor"])
    whole = list(pages(url, "listRepos", limit=1))

    network.fault("list-loop", host=0)
    assert get(url, next_page).json == whole[1] | {"cursor": sound["cursor"]}

    network.fault("list-empty-page", host=0, times=2)
    assert [page["repos"] for page in pages(url, "listRepos", limit=1)] == [[], [], *(page["repos"] for page in whole)]

    network.fault("list-junk", host=0)
    junk = get(url, page).json["repos"]
    assert junk[-1:] == sound["repos"]
    assert len(junk) > 5

    network.fault("list-foreign", host=0, method="listRepos")
    foreign = get(url, page).json["repos"][-1]
    assert network.accounts[foreign["did"]].host != "pds-0"
    assert foreign["status"] == "deleted"

    network.fault("list-twice", host=0)
    assert get(url, page).json["repos"] == sound["repos"] * 2

    network.fault("list-odd-cursor", host=0)
    assert get(url, page).json["cursor"] == 17
    assert get(url, page).json == sound
    assert network.violations() == []


# --- to whom, how often ------------------------------------------------------------------------------


def test_faults_of_a_host_befall_all_that_is_asked_there(network, author):
    network.fault("500", host=author.home, times=None)
    for path in (xrpc("getRepo", did=author.did), xrpc("listRepos"), xrpc("getLatestCommit", did=author.did)):
        assert get(author.home, path).status == 500
    assert get(network.plc_url, f"/{author.did}").status == 200
    assert get(network.hosts[1].url, xrpc("listRepos")).status == 200
    network.clear_faults()
    assert repo(author.home, author.did).status == 200


def test_faults_of_an_account_befall_its_repository_or_the_method_that_is_named(network, author):
    network.fault("500", did=author.did, method="getLatestCommit")
    assert repo(author.home, author.did).status == 200
    assert get(author.home, xrpc("getLatestCommit", did=author.did)).status == 500
    network.fault("502", did=author.did, method="any", times=2)
    assert get(network.plc_url, f"/{author.did}").status == 502
    assert repo(author.home, author.did).status == 502


def test_faults_come_one_after_the_other_in_the_order_they_were_made(network, author):
    network.fault("500", did=author.did, times=2)
    network.fault("reset", did=author.did)
    network.fault("503")
    assert repo(author.home, author.did).status == repo(author.home, author.did).status == 500
    with pytest.raises(ConnectionResetError):
        repo(author.home, author.did)
    assert [repo(author.home, author.did).status for _ in range(2)] == [503, 200]


def test_a_fault_that_nobody_knows_is_refused(network):
    with pytest.raises(ValueError, match="no fault of kind 'missing-recrod'"):
        network.fault("missing-recrod")
    with pytest.raises(TypeError):
        network.fault("500", dids="did:plc:a")


def test_what_is_refused_anyway_is_not_broken(network, author):
    fault = network.fault("tampered", did=author.did)
    network.set_status(author.did, "takendown")
    assert repo(author.home, author.did).error == (400, "RepoTakendown")
    assert fault.fired == 0


def asked(host="pds-0", did="did:plc:a", method="getRepo"):
    return Seen(1, host, 0, 0, method=method, did=did)


def test_chance_follows_from_the_seed_and_not_from_the_order():
    dids = [f"did:plc:{number}" for number in range(300)]

    def struck(order, seed=1):
        chance = Chance(seed, rate=0.3)
        found = {did: [] for did in dids}
        for did in order:
            fault = chance.pick(asked(did=did))
            found[did].append(fault.kind if fault else "")
        return found

    one_by_one = struck([did for did in dids for _ in range(4)])
    assert one_by_one == struck(dids * 4)
    assert one_by_one != struck(dids * 4, seed=2)
    firsts = [kinds[0] for kinds in one_by_one.values()]
    assert 60 < sum(map(bool, firsts)) < 120
    assert set(firsts) <= {"", *RANDOM_REPOSITORIES}
    assert len(set(firsts)) > 10


def test_chance_lets_a_retry_succeed():
    for times in (1, 3):
        chance = Chance(rate=1.0, times=times)
        struck = [bool(chance.pick(asked())) for _ in range(3 * (times + 1))]
        assert struck == ([True] * times + [False]) * 3
    assert not any(Chance(rate=0.0).pick(asked()) for _ in range(10))


def test_chance_befalls_documents_and_lists_at_rates_of_their_own():
    assert Chance(rate=1.0).pick(asked("plc", method="document")) is None
    assert Chance(directory_rate=1.0).pick(asked()) is None
    for chance, seen in (
        (Chance(directory_rate=1.0), asked("plc", method="document")),
        (Chance(rate=1.0), asked(did="", method="listRepos")),
    ):
        assert chance.pick(seen).kind in RANDOM_REPOSITORIES


def test_a_client_that_retries_gets_all_but_what_is_always_broken():
    with Network(2, 20, seed=11, fault_rate=0.4, fault_times=2, permanent_rate=0.2, fault_after=0) as network:
        broken = network.broken()
        assert 1 < len(broken) < 20
        for did, account in network.accounts.items():
            got = None
            for _ in range(9):
                try:
                    got, _ = verified(account, repo(account.home, did).body, at_least_rev=account.delivered)
                    break
                except (InvalidRepositoryError, OSError, http.client.HTTPException):
                    continue
            assert (got is None) is (did in broken)
            assert got in (None, network.truth(did))
        faults = network.summary()["faults"]
        assert len(faults) > 8
        network.clear_faults()
        assert network.broken() == {}
        spoiled = network.accounts[next(iter(broken))]
        assert verified(spoiled, repo(spoiled.home, spoiled.did).body)[0] == network.truth(spoiled.did)


def test_permanent_faults_are_known():
    network = Network(hosts=1, accounts_a_host=2)
    one, two = network.accounts
    network.fault("tampered", did=one, times=None)
    network.fault("tampered", did=two)
    assert network.broken() == {one: "tampered"}
    assert Fault("500").times == 1
    network.close()
