"""What is asked of directories and servers: holds are kept, mirrors take over, accounts are found where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kits.patience import until
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.sources.atproto.errors import Fault
from tickwork.sources.atproto.repo.identity import Identity
from tickwork.sources.atproto.xrpc_client import XrpcClient as Asked

RECORDS = {f"app.bsky.feed.post/{n}": {"text": f"number {n}"} for n in range(3)}
HOLDS = ("429-reset", "429-retry-after", "429-date", "503-retry-after")

Make = Callable[..., tuple[Network, Archive]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a network and a deployment beside it; at the end the network judges the manners."""
    made: list[Network] = []

    def begin(hosts: int = 2, accounts_a_host: int = 2, config: str = "", **more: object) -> tuple[Network, Archive]:
        network = Network(hosts, accounts_a_host, plc_at_once=4, **({"at_once": 2} | more))  # type: ignore[arg-type]
        made.append(network)
        network.start()
        return network, Archive(tmp_path, network, config)

    yield begin
    for network in made:
        network.close()
        assert network.violations() == []


# --- holds -------------------------------------------------------------------------------------------


def test_a_server_that_wants_silence_gets_it_counts_no_attempt_and_holds_up_no_other(make: Make) -> None:
    network, archive = make(hosts=5, accounts_a_host=3, at_once=1, config="max_attempts = 1\n")
    for number, kind in enumerate(HOLDS):
        network.fault(kind, host=number, after=4)
    archive.good("add", *network.accounts)
    began = time.time()
    assert archive.backfill("--per-host", "1").code == 3
    # Each was asked once, and told us; the fifth went on.
    assert [len(network.requests(number)) for number in range(5)] == [1, 1, 1, 1, 3]
    assert archive.statuses() == {"synced": 3, "error": 4, "pending": 8}
    for row in archive.rows("SELECT * FROM repos WHERE status = 'error'"):
        assert (row["error_kind"], row["attempts"]) == ("ratelimited", 0)
        assert "is on hold until" in row["last_error"]
        assert began + 1 <= row["next_retry"] <= time.time() + 5.1
    # Another pass, within the hold, asks nobody.
    asked = len(network.requests())
    said = archive.backfill("--per-host", "1")
    assert said.code == 3
    assert "12 repositories are waiting" in said.err
    assert "servers skipped for now: 4" in said.err
    # Nor does a wish open it.
    archive.good("resync", *(row["did"] for row in archive.rows("SELECT did FROM repos WHERE status = 'error'")))
    assert archive.backfill("--per-host", "1").code == 3
    assert [seen.method for seen in network.requests()[asked:] if seen.method != "document"] == []
    assert max(seen.hold_until or 0 for seen in network.requests()) > time.time()
    until(lambda: archive.backfill("--per-host", "1").code == 0)
    archive.judge(network.truths())
    assert network.violations(grace=0) == []


def test_the_limit_a_server_tells_of_is_kept(make: Make) -> None:
    network, archive = make(hosts=1, accounts_a_host=5, at_once=1)
    network.limit(0, requests=2, seconds=1)
    archive.good("add", *network.accounts)
    until(lambda: archive.backfill("--per-host", "1").code == 0)
    archive.judge(network.truths())
    assert max(row["attempts"] for row in archive.rows("SELECT attempts FROM repos")) == 0
    assert network.violations(grace=0) == []


# --- directories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", ["refused", "500", "reset", "silence", "html", "empty"])
def test_an_outage_of_the_directory_parks_nobody_and_ends_the_pass_in_order(outage: str, make: Make) -> None:
    network, archive = make(hosts=1, accounts_a_host=6, config="max_attempts = 2\n", plc_mirrors=2)
    if outage == "refused":
        network.refuse("plc")
        network.refuse("plc-1")
    else:
        for name in ("plc", "plc-1"):
            network.fault(outage, host=name, times=None)
    archive.configure("max_attempts = 2\nread_seconds = 0.1\ntotal_seconds = 0.3\n")
    archive.good("add", *network.accounts)
    for _ in range(4):
        asked = len(network.requests())
        said = archive.backfill()
        assert said.code == 3
        assert "did:plc cannot be resolved" in said.err
        # A few accounts are enough to see it; both directories are tried for each, and again for faults of the line.
        assert len(network.requests()) - asked <= 7 * 2 * 2
        archive.pass_time()
    assert archive.statuses().keys() <= {"pending", "error"}
    assert {row["attempts"] for row in archive.rows("SELECT attempts FROM repos")} == {0}
    assert network.requests(0) == []
    network.clear_faults()
    network.accept("plc")
    archive.drain()
    archive.judge(network.truths())


@pytest.mark.parametrize("outage", ["refused", "502", "429-reset", "truncate", "redirect-private", "403", "html"])
def test_when_one_directory_fails_or_wants_silence_the_next_is_asked(outage: str, make: Make) -> None:
    network, archive = make(plc_mirrors=3)
    if outage == "refused":
        network.refuse("plc")
    else:
        network.fault(outage, host="plc", times=None, after=60)
    archive.good("add", *network.accounts)
    assert archive.backfill().code == 0
    archive.judge(network.truths())
    assert len(network.requests("plc-1")) == 4
    assert network.requests("plc-2") == []
    if outage.startswith("429"):
        assert len(network.requests("plc")) <= 4  # what was under way at once


def test_all_directories_that_want_silence_get_it(make: Make) -> None:
    network, archive = make(plc_mirrors=2, config="plc_concurrency = 1\n")
    for name in ("plc", "plc-1"):
        network.fault("429-reset", host=name, after=60)
    archive.good("add", *network.accounts)
    for _ in range(3):
        said = archive.backfill()
        assert said.code == 3
        assert "is on hold until" in said.err
    assert [len(network.requests(name)) for name in ("plc", "plc-1")] == [1, 1]
    assert archive.statuses() == {"pending": 4}


def test_an_account_may_have_a_directory_of_its_own(make: Make) -> None:
    network, archive = make(plc_mirrors=2)
    archive.configure("", "[atproto]\nplc_interval_seconds = 0\nhost_interval_seconds = 0\n")
    archive.config.write_text(
        f'[atproto]\nplc = ["{network.plc_url}"]\nplc_interval_seconds = 0\nhost_interval_seconds = 0\n'
    )
    first, *others = network.accounts
    # Remembered for the account, and for no other: this deployment calls no private address of itself.
    archive.good("add", first, "--plc-url", network.plc_urls[1], "--allow-private", "127.0.0.0/8")
    archive.good("add", *others)
    assert archive.backfill().code == 3
    assert archive.repo(first)["status"] == "synced"
    assert [seen.did for seen in network.requests("plc-1")] == [first]
    assert network.requests("plc") == []
    assert {archive.repo(did)["status"] for did in others} <= {"error", "pending"}
    assert "not a public address" in max(row["last_error"] for row in archive.rows("SELECT last_error FROM repos"))


# --- accounts ----------------------------------------------------------------------------------------


def test_accounts_of_did_web_are_found_by_their_host_name(make: Make) -> None:
    network, archive = make(hosts=2, accounts_a_host=0, web_accounts=2)
    dids = list(network.accounts)
    assert all(did.startswith("did:web:127.0.0.1%3A") for did in dids)
    archive.sync(*dids)
    archive.judge(network.truths())
    assert network.requests("plc") == []
    network.set_status(dids[0], "tombstoned")
    network.fault("404", host=1, method="document", times=None)
    archive.good("resync", *dids)
    archive.backfill()
    assert [archive.repo(did)["status"] for did in dids] == ["tombstoned", "error"]
    assert f"does not know {dids[1]}" in archive.repo(dids[1])["last_error"]


@pytest.mark.parametrize(
    ("did", "error"),
    [
        ("did:web:localhost:users:alice", "is not a did:web with just a host name"),
        ("did:web:localhost%2Fpath", "is not a did:web with just a host name"),
        ("did:web:me%40localhost", "is not a did:web with just a host name"),
        ("did:web:10.0.0.1", "not a public address"),
        ("did:key:zQ3shTuTFi6ehSjo4PCLXsAH5rGXCCH9GdjuuZW5yUq49TwLu", "is not a supported DID method"),
    ],
)
def test_what_a_did_must_not_lead_to_is_an_error_of_that_account(did: str, error: str, make: Make) -> None:
    network, archive = make(hosts=1, accounts_a_host=1)
    archive.good("add", did, *network.accounts)
    assert archive.backfill().code == 3
    row = archive.repo(did)
    assert (row["status"], row["error_kind"], row["attempts"]) == ("error", "generic", 1)
    assert error in row["last_error"]
    assert archive.statuses() == {"error": 1, "synced": 1}


def test_keys_are_read_in_every_form_that_documents_have(make: Make) -> None:
    network, archive = make(hosts=1, accounts_a_host=0)
    forms = [
        (form, curve) for form in ("Multikey", "older", "older-uncompressed") for curve in ("secp256k1", "secp256r1")
    ]
    for form, curve in forms:
        network.add(0, records=RECORDS, curve=curve).key_form = form
    archive.sync(*network.accounts)
    archive.judge(network.truths())
    for did, account in network.accounts.items():
        row = archive.repo(did)
        assert row["signing_key"] == f"did:key:{account.key.multikey()}"
        assert (row["handle"], row["pds"]) == (account.handle, account.home)


def test_a_new_signing_key_is_read_before_the_repository_it_signs(make: Make) -> None:
    network, archive = make(hosts=1, accounts_a_host=1)
    (did,) = network.accounts
    archive.sync(did)
    before = archive.repo(did)["signing_key"]
    network.rotate_key(did)
    network.put(did, "app.bsky.feed.post/new", {})
    archive.sync(did)
    archive.judge(network.truths())
    assert archive.repo(did)["signing_key"] != before


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_account_that_moves_is_followed_and_loses_nothing(forgotten: bool, make: Make) -> None:
    network, archive = make(hosts=2, accounts_a_host=0)
    did = network.add(0, records=RECORDS).did
    archive.sync(did)
    events = archive.events()
    network.move(did, 1, forgotten=forgotten)
    asked = len(network.requests(0))
    archive.sync(did)
    archive.judge(network.truths())
    assert archive.repo(did)["pds"] == network.hosts[1].url
    assert archive.events() == events
    assert len(network.requests(0)) == asked


def test_the_server_an_account_has_left_does_not_have_the_last_word_on_it(make: Make) -> None:
    network, archive = make(hosts=2, accounts_a_host=0)
    did = network.add(0, records=RECORDS).did
    hosts = [host.url for host in network.hosts]
    archive.configure(f"hosts = {hosts}\n")
    archive.good("discover")
    archive.drain()
    network.move(did, 1)
    for _ in range(4):
        archive.good("discover")
        archive.drain()
    archive.judge(network.truths())
    row = archive.repo(did)
    assert (row["status"], row["pds"]) == ("synced", network.hosts[1].url)
    told = [event["status"] for event in archive.events(did) if event["kind"] == "account"]
    assert told in ([None], [None, "deactivated", None])
    assert len(network.requests(method="getRepo")) == 2
    # Both lists go on to say what they say; nobody is asked because of that.
    asked = len(network.requests(method="document"))
    archive.good("discover")
    archive.drain()
    assert len(network.requests(method="document")) == asked


def test_directories_of_some_accounts_that_want_silence_hold_up_no_others(make: Make) -> None:
    network, archive = make(hosts=2, accounts_a_host=10, plc_mirrors=2)
    plain = f'plc = ["{network.plc_url}"]\nplc_interval_seconds = 0\nhost_interval_seconds = 0\n'
    archive.config.write_text(f'allow_private = ["127.0.0.0/8"]\n[atproto]\n{plain}')
    network.fault("429-retry-after", host="plc-1", times=None, after=60)
    held, others = list(network.accounts)[:5], list(network.accounts)[5:]
    archive.good("add", *held, "--plc-url", network.plc_urls[1])
    archive.good("add", *others)
    for _ in range(2):
        assert archive.backfill("--concurrency", "1").code == 3
    assert {archive.repo(did)["status"] for did in others} == {"synced"}
    assert {(archive.repo(did)["error_kind"], archive.repo(did)["attempts"]) for did in held} == {("ratelimited", 0)}
    assert len(network.requests("plc-1")) == 1


def test_documents_that_cannot_be_had_are_no_faults_of_the_server(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    network, archive = make(hosts=1, accounts_a_host=12)
    archive.sync(*network.accounts)
    lost, others = list(network.accounts)[:6], list(network.accounts)[6:]
    archive.good("resync", *lost)
    archive.good("resync", *others)
    resolve = Asked._resolve

    def failing(self: Asked, did: str) -> Identity:
        if did in lost:
            raise Fault("transport", f"the document of {did} cannot be had")
        return resolve(self, did)

    monkeypatch.setattr(Asked, "_resolve", failing)
    assert archive.backfill("--concurrency", "1").code == 3
    assert archive.statuses() == {"synced": 6, "error": 6}
    assert archive.rows("SELECT did FROM repos WHERE status = 'synced' AND next_retry IS NOT NULL") == []
