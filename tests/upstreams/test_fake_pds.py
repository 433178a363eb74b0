"""The fake AT Protocol network gives identities, repositories and lists as the protocol has them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from urllib.parse import unquote

import pytest
import zstandard

from tests.kits import atproto as kit
from tests.kits.fake_pds import first, verified
from tests.upstreams.pds import Network
from tests.upstreams.pds_accounts import KEY_FORMS, STATUSES
from tests.upstreams.pds_client import get, pages, repo, xrpc
from tickwork.sources.atproto.repo import identity
from tickwork.sources.atproto.repo.identifiers import is_handle, is_path, tid_time

POST = {"$type": "app.bsky.feed.post", "text": "hello"}
PATH = "app.bsky.feed.post/3kaaaaaaaaaa2"


@pytest.fixture
def network():
    with Network(hosts=4, accounts_a_host=4, web_accounts=1) as made:
        yield made


def read(network, did, **headers):
    """The records of an account as its document leads to them, all verified; and the rev."""
    account = network.accounts[did]
    web = did.removeprefix("did:web:")
    where = (network.plc_url, f"/{did}") if web == did else (f"http://{unquote(web)}", "/.well-known/did.json")
    said = identity.parse(get(*where).json, did, allow_http=True)
    assert said.pds == account.home
    answer = repo(said.pds, did, **headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/vnd.ipld.car"
    records, found = verified(network.accounts[did], answer.body, key=said.signing_key())
    assert found.invalid_paths.count == 0
    return records, found.commit.rev


# --- identities --------------------------------------------------------------------------------------


def test_documents_name_the_host_the_handle_and_the_key_in_every_form():
    with Network(hosts=2, accounts_a_host=40) as network:
        forms = Counter()
        for did, account in network.accounts.items():
            said = identity.parse(get(network.plc_url, f"/{did}").json, did, allow_http=True)
            assert said.pds == account.home == network.host(account.host).url
            assert said.handle == account.handle
            assert is_handle(account.handle)
            assert said.signing_key().verify(account.key.sign(b"message"), b"message")
            forms[account.key_form, account.key.curve.name] += 1
        assert forms.keys() == {(form, curve) for form in KEY_FORMS for curve in kit.ORDERS}


def test_the_directory_knows_deleted_accounts_but_no_tombstoned_or_unknown_ones(network):
    did = first(network).did
    network.set_status(did, "deleted")
    assert get(network.plc_url, f"/{did}").status == 200
    network.set_status(did, "tombstoned")
    assert get(network.plc_url, f"/{did}").status == 410
    assert get(network.plc_url, f"/did:plc:{'a' * 24}").status == 404


def test_mirrors_of_the_directory_are_hosts_of_their_own():
    with Network(hosts=1, accounts_a_host=1, plc_mirrors=3) as network:
        did = first(network).did
        assert len(set(network.plc_urls)) == 3
        assert {get(url, f"/{did}").body for url in network.plc_urls} == {first(network).document_bytes()}
        assert [seen.host for seen in network.requests()] == ["plc", "plc-1", "plc-2"]


def test_a_host_has_the_document_of_its_did_web(network):
    did = network.hosts[0].web
    assert did == f"did:web:127.0.0.1%3A{network.hosts[0].port}"
    said = identity.parse(get(f"http://{unquote(did[8:])}", "/.well-known/did.json").json, did, allow_http=True)
    assert said.pds == network.hosts[0].url
    assert repo(said.pds, did).status == 200
    assert get(network.hosts[1].url, "/.well-known/did.json").status == 404
    assert network.violations() == []


# --- repositories ------------------------------------------------------------------------------------


def test_every_repository_is_sound_and_has_what_the_oracle_says(network):
    sizes = set()
    for did in network.accounts:
        records, rev = read(network, did)
        assert records == network.truth(did) == network.truths()[did]
        assert all(map(is_path, records))
        assert rev == network.accounts[did].rev
        sizes.add(len(records))
    assert len(sizes) > 3
    assert network.violations() == []


def test_repositories_come_in_chunks_or_of_a_length_and_in_the_codings_a_host_has(network):
    by_host = {account.host: did for did, account in network.accounts.items()}
    answers = [repo(host.url, by_host[host.name], Accept_Encoding="br;q=0, gzip, zstd") for host in network.hosts]
    assert [answer.headers.get("content-encoding", "") for answer in answers] == ["gzip", "gzip", "", "zstd"]
    assert ["content-length" in answer.headers for answer in answers] == [False, True, False, True]
    unpacked = zstandard.decompress(answers[3].body)
    for host, body in zip(network.hosts, [*(each.body for each in answers[:3]), unpacked], strict=True):
        assert body == repo(host.url, by_host[host.name]).body
        assert "content-encoding" not in repo(host.url, by_host[host.name], Accept_Encoding="gzip;q=0").headers


def test_each_edit_makes_a_later_rev_of_the_past_and_a_new_repository(network):
    did = first(network).did
    assert network.accounts[did].delivered == ""
    before = read(network, did)
    assert network.accounts[did].delivered == before[1]
    network.put(did, PATH, POST)
    created = read(network, did)
    assert created[0] == before[0] | {PATH: str(kit.cid(kit.dag_cbor(POST)))}
    network.put(did, PATH, {**POST, "text": "changed"})
    changed = read(network, did)
    assert changed[0].keys() == created[0].keys()
    assert changed[0][PATH] != created[0][PATH]
    network.edit(did, {"app.bsky.feed.post/other": POST}, [PATH])
    network.delete(did, "app.bsky.feed.post/other")
    after = read(network, did)
    assert after[0] == before[0]
    assert before[1] < created[1] < changed[1] < after[1]
    assert tid_time(after[1]) < dt.datetime.now(dt.UTC) - dt.timedelta(days=100)
    with pytest.raises(KeyError):
        network.delete(did, PATH)


def test_an_account_may_have_any_records_and_none(network):
    empty = network.add("pds-1", records={})
    large = network.add(1, records={f"app.bsky.feed.like/{n:05d}": {"n": n} for n in range(2000)}, curve="secp256r1")
    assert read(network, empty.did)[0] == {}
    assert read(network, large.did)[0] == network.truth(large.did)
    assert len(network.truth(large.did)) == 2000
    with pytest.raises(TypeError):
        large.records["app.bsky.feed.post/1"] = POST


def test_a_moved_account_is_deactivated_at_its_old_host_or_forgotten(network):
    did, other = list(network.accounts)[:2]
    read(network, did)
    for moved, forgotten, error in ((did, False, "RepoDeactivated"), (other, True, "RepoNotFound")):
        rev, old = network.accounts[moved].rev, network.hosts[0].url
        network.move(moved, 2, forgotten=forgotten)
        assert repo(old, moved).error == (400, error)
        records, moved_rev = read(network, moved)
        assert records == network.truth(moved)
        assert moved_rev > rev
    listed = {entry["did"]: entry for page in pages(old, "listRepos") for entry in page["repos"]}
    assert other not in listed
    assert (listed[did]["active"], listed[did]["status"]) == (False, "deactivated")
    assert {did, other} <= {
        entry["did"] for page in pages(network.hosts[2].url, "listRepos") for entry in page["repos"]
    }
    network.move(did, 0)
    assert read(network, did)[0] == network.truth(did)


def test_a_new_key_signs_and_stands_in_the_document(network):
    did = first(network).did
    before = get(network.plc_url, f"/{did}").json
    rev = read(network, did)[1]
    network.rotate_key(did)
    assert get(network.plc_url, f"/{did}").json["verificationMethod"] != before["verificationMethod"]
    assert read(network, did)[1] > rev


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("deactivated", "RepoDeactivated"),
        ("takendown", "RepoTakendown"),
        ("suspended", "RepoSuspended"),
        ("deleted", "RepoNotFound"),
        ("tombstoned", "RepoNotFound"),
    ],
)
def test_accounts_that_are_not_active_are_refused_by_name(network, status, error):
    account = first(network)
    network.set_status(account.did, status)
    for method in ("getRepo", "getLatestCommit"):
        assert get(account.home, xrpc(method, did=account.did)).error == (400, error)
    gone = status in ("deleted", "tombstoned")
    for url in (account.home, network.relay_url):
        state = get(url, xrpc("getRepoStatus", did=account.did))
        assert state.error == (400, error) if gone else (state.json["active"], state.json["status"]) == (False, status)
        entries = [each for page in pages(url, "listRepos") for each in page["repos"] if each["did"] == account.did]
        assert [each["status"] for each in entries] == ([] if gone else [status])
    assert bool(network.truth(account.did)) is (not gone and bool(account.records))
    network.set_status(account.did, "active")
    assert repo(account.home, account.did).status == 200


def test_all_follows_from_the_seed():
    def told(seed):
        network = Network(hosts=2, accounts_a_host=3, seed=seed)
        network.churn(10)
        network.close()
        return [(did, each.rev, each.head, each.truth()) for did, each in network.accounts.items()]

    assert told(5) == told(5)
    assert told(5) != told(6)


def test_churn_edits_active_accounts_only(network):
    network.set_status(first(network).did, "suspended")
    before = network.truths()
    edited = network.churn(60)
    assert first(network).did not in edited
    assert {did for did, truth in network.truths().items() if truth != before[did]} <= set(edited)
    sizes = {did: len(network.truth(did)) - len(before[did]) for did in edited}
    assert min(sizes.values()) < max(sizes.values())
    assert read(network, edited[0])[0] == network.truth(edited[0])


def test_statuses_are_those_of_the_protocol(network):
    assert {"active", "deactivated", "takendown", "suspended", "deleted"} < set(STATUSES)
    with pytest.raises(ValueError, match="no status 'asleep'"):
        network.set_status(first(network).did, "asleep")


# --- lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "page_size"), [(1, 1000), (3, 1000), (500, 2), (500, 1000)])
def test_a_walk_by_cursors_gives_each_account_once_with_its_latest_commit(limit, page_size):
    with Network(hosts=3, accounts_a_host=4, page_size=page_size) as network:
        everyone = []
        for host in network.hosts:
            walked = list(pages(host.url, "listRepos", limit=limit))
            assert all(len(page["repos"]) <= min(limit, page_size) for page in walked)
            everyone += [entry for page in walked for entry in page["repos"]]
        assert [entry["did"] for entry in everyone] == list(network.accounts)
        assert everyone == [
            entry for page in pages(network.relay_url, "listRepos", limit=limit) for entry in page["repos"]
        ]
        for entry in everyone:
            url = network.accounts[entry["did"]].home
            assert get(url, xrpc("getLatestCommit", did=entry["did"])).json == {
                "cid": entry["head"],
                "rev": entry["rev"],
            }
            assert entry["active"] is True
        assert network.violations() == []


def test_what_joins_during_a_walk_comes_at_its_end(network):
    url = network.hosts[0].url
    before = get(url, xrpc("listRepos", limit=2)).json
    added, moved = network.add(0).did, list(network.accounts)[5]
    network.move(moved, 0)
    after = [entry["did"] for page in pages(url, "listRepos", cursor=before["cursor"]) for entry in page["repos"]]
    assert after[-2:] == [added, moved]


def test_lists_by_collection_have_the_active_accounts_with_a_record_in_it(network):
    network.put(list(network.accounts)[3], PATH, POST)
    network.set_status(first(network).did, "deactivated")
    wanted = [
        did
        for did, account in network.accounts.items()
        if account.status == "active" and any(path.startswith("app.bsky.feed.post/") for path in account.records)
    ]
    found = list(pages(network.relay_url, "listReposByCollection", collection="app.bsky.feed.post", limit=2))
    assert [entry for page in found for entry in page["repos"]] == [{"did": did} for did in wanted]
    assert not any(page["repos"] for page in pages(network.relay_url, "listReposByCollection", collection="app.bsky"))


def test_the_relay_lists_the_hosts(network):
    network.refuse(3)
    entries = [entry for page in pages(network.relay_url, "listHosts", limit=3) for entry in page["hosts"]]
    assert [f"http://{entry['hostname']}" for entry in entries] == [host.url for host in network.hosts]
    assert [entry["accountCount"] for entry in entries] == [5, 4, 4, 4]
    assert [entry["status"] for entry in entries] == ["active"] * 3 + ["offline"]
    assert len(get(network.hosts[0].url, xrpc("listHosts")).json["hosts"]) == 1
