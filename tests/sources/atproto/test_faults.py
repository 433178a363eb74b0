"""Nothing is lost: whatever a server sends, the stored records are as before until all of a repository is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kits.patience import until
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tests.upstreams.pds_accounts import FakeAccount

RECORDS = {f"app.bsky.feed.post/{n:03d}": {"text": f"number {n}"} for n in range(40)}
# What the error says of each. Whoever reads it must know what was wrong, and with what.
FAULTS = {
    "truncate": r"getRepo\S+ failed 2 times, the last: Incomplete: it broke off after \d+ bytes",
    "truncate-chunked": r"getRepo\S+ failed 2 times, the last: Incomplete: it broke off",
    "truncate-encoded": r"getRepo\S+ failed 2 times, the last: Incomplete: its \w+ stream is cut",
    "cut-frames": r"^the record app\.bsky\.feed\.post/\d+: its block bafy\S+ is missing",
    "missing-record": r"^the record app\.bsky\.feed\.post/\d+: its block bafy\S+ is missing",
    "missing-node": r"^the node bafy\S+ of the tree: its block is missing",
    "tampered": r"^the block bafy\S+ does not have the hash its CID says",
    "wrong-did": r"it belongs to did:plc:z{24}, not to did:plc:",
    "other-account": r"it belongs to did:plc:\S{24}, not to did:plc:",
    "bad-signature": "its signature is not by did:key:z",
    "high-s": "its signature is not by did:key:z",
    "stale": r"its rev \w+ is older than \w+, which was seen before",
    "future": r"its rev \w+ is of 20\S+, in the future",
    "html": r"127\.0\.0\.1:\d+ answered with an HTML page",
    "empty": "^the file is empty",
    "bomb": r"getRepo\S+ is too large: it decodes to more than 5000000 bytes",
    "flood": r"getRepo\S+ is too large: it has more than 5000000 bytes",
    "drip": r"getRepo\S+ was not answered in full within 1 s",
    "hang": r"getRepo\S+ failed 2 times, the last: .*timed out",
    "silence": r"getRepo\S+ failed 2 times, the last: .*timed out",
    "reset": r"getRepo\S+ failed 2 times, the last: ConnectionResetError",
    "500": "answered 500",
    "502": "answered 502",
    "404": "answered 404",
    "403": "answered 403",
    "InternalServerError": "answered 500",
    "InvalidRequest": r"127\.0\.0\.1:\d+ answered 400 InvalidRequest",
    "AuthenticationRequired": r"127\.0\.0\.1:\d+ answered 401 AuthenticationRequired",
    "redirect-private": r"^refused http://10\.0\.0\.1/.* not a public address",
    "redirect-loop": "is redirected in a loop, to ",
    "doc-other-did": r"^did:plc:\S+: its document is that of 'did:plc:z{24}'",
    "doc-no-pds": r"^the DID document of did:plc:\S+ does not name a server",
    "doc-no-key": r"^did:plc:\S+: its document has no signing key",
    "doc-bad-key": r"^did:plc:\S+: the key 'z0OIl-no-base58' is not in base58",
    "doc-other-key": "its signature is not by did:key:z",
    "doc-private-pds": r"^refused http://10\.0\.0\.1/.* not a public address",
}
TRANSPORT = {"truncate", "truncate-chunked", "truncate-encoded", "drip", "hang", "silence", "reset", "500", "502"}
TRANSPORT |= {"InternalServerError"}
SETTINGS = """
[atproto]
plc_interval_seconds = 0
host_interval_seconds = 0
max_bytes = 5_000_000
read_seconds = 0.5
total_seconds = 1
"""


@dataclass
class Story:
    """All faults at once, each met by an account at a server of its own: the rows before, during and after."""

    before: dict[str, Any]
    during: dict[str, Any]
    after: dict[str, Any]
    spooled: list[Path]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Network(hosts=len(FAULTS), accounts_a_host=0, at_once=2, plc_at_once=4) as network:
        accounts = {kind: network.add(number, records=RECORDS) for number, kind in enumerate(FAULTS)}
        dids = {kind: account.did for kind, account in accounts.items()}
        archive = Archive(tmp_path_factory.mktemp("story"), network, quick=SETTINGS)

        def seen() -> dict[str, Any]:
            return {
                kind: (archive.stored(did), archive.events(did), archive.repo(did), network.truth(did))
                for kind, did in dids.items()
            }

        archive.sync(*dids.values())
        archive.judge(network.truths())
        before = seen()
        for kind, did in dids.items():
            network.edit(did, {"app.bsky.feed.post/001": {}, "app.bsky.feed.post/new": {}}, ["app.bsky.feed.post/002"])
            network.fault(kind, did=did, times=None)
        archive.good("resync", *dids.values())
        assert archive.backfill("--concurrency", "36").code == 3
        archive.judge({did: before[kind][0] for kind, did in dids.items()})
        during = seen()
        spooled = list((archive.state / "spool" / "atproto").iterdir())
        network.clear_faults()
        archive.pass_time()
        archive.drain()
        archive.judge(network.truths())
        yield Story(before, during, seen(), spooled)
        assert network.violations() == []


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_leaves_the_records_as_they_were_and_is_named_and_mended(kind: str, story: Story) -> None:
    stored, events, _, _ = story.during[kind]
    assert (stored, events) == story.before[kind][:2]
    row = story.during[kind][2]
    assert (row["status"], row["attempts"]) == ("error", 1)
    assert row["error_kind"] == ("transport" if kind in TRANSPORT else "generic")
    assert re.search(FAULTS[kind], row["last_error"]), row["last_error"]
    assert {row[key] == story.before[kind][2][key] for key in ("rev", "data", "signing_key")} == {True}
    stored, events, row, truth = story.after[kind]
    assert (row["status"], stored) == ("synced", truth)
    assert len(events) == len(story.before[kind][1]) + 3


def test_what_could_not_be_used_is_not_left_in_the_spool(story: Story) -> None:
    assert story.spooled == []


# --- one repository ----------------------------------------------------------------------------------


@pytest.fixture
def account(network: Network) -> FakeAccount:
    return network.add(0, records=RECORDS)


@pytest.mark.parametrize("kind", ["missing-record", "missing-node", "cut-frames", "truncate-encoded"])
def test_of_a_new_repository_with_something_missing_nothing_is_stored(
    kind: str, archive: Archive, network: Network, account: FakeAccount
) -> None:
    network.fault(kind, did=account.did, times=None)
    archive.good("add", account.did)
    assert archive.backfill().code == 3
    archive.judge({account.did: {}})
    assert archive.events() == archive.rows("SELECT * FROM blocks") == []


def test_a_thousand_changes_are_taken_back_when_the_end_is_missing(archive: Archive, network: Network) -> None:
    records = {f"app.bsky.feed.like/{n:04d}": {"n": n % 7} for n in range(1200)}
    did = network.add(0, records=records).did
    archive.sync(did)
    before, events = archive.stored(did), len(archive.events())
    network.edit(did, {path: {"n": "other"} for path in records} | {"app.bsky.feed.post/last": {"n": -1}})
    # The block that is missing is that of the path which comes last.
    last = network.truth(did)["app.bsky.feed.post/last"]
    network.accounts[did].truth = lambda: {"app.bsky.feed.post/last": last}  # type: ignore[method-assign]
    network.fault("missing-record", did=did, times=None)
    assert archive.run("add", did).code == 0
    assert archive.backfill().code == 3
    assert "app.bsky.feed.post/last" in archive.repo(did)["last_error"]
    del network.accounts[did].truth  # type: ignore[misc]
    archive.judge({did: before})
    assert len(archive.events()) == events
    network.clear_faults()
    archive.drain()
    archive.judge({did: network.truth(did)})


def test_an_invalid_path_is_counted_and_loses_nothing_else(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    fault = network.fault("invalid-path", did=account.did, times=None)
    archive.good("add", account.did)
    said = archive.backfill()
    assert (said.code, fault.fired) == (0, 1)
    assert f"{account.did}: records left out because their path is invalid: 6, the first is " in said.err
    row = archive.repo(account.did)
    assert (row["status"], row["invalid_paths"]) == ("synced", 6)
    archive.judge({account.did: account.truth()})
    network.clear_faults()
    network.put(account.did, "app.bsky.feed.post/new", {})
    archive.sync(account.did)
    assert archive.repo(account.did)["invalid_paths"] == 0


def serve(account: FakeAccount, records: dict[str, Any], **fields: Any) -> None:
    """Have a repository served with a commit of such fields, until the account's next commit."""
    whole = account.revision()
    whole.encoded.clear()
    object.__setattr__(whole, "car", account.key.repository(records, **{"rev": account.rev} | fields))


def test_a_rev_that_stays_while_the_records_change_is_refused(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    archive.sync(account.did)
    before = archive.stored(account.did)
    serve(account, {"app.bsky.feed.post/000": {}})
    archive.good("resync", account.did)
    assert archive.backfill().code == 3
    assert account.rev in archive.repo(account.did)["last_error"]
    archive.judge({account.did: before})


def test_an_old_commit_without_a_rev_is_known_by_its_data_and_none_follows_one_that_has_a_rev(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    serve(account, RECORDS, version=2, rev=...)
    archive.sync(account.did)
    archive.judge({account.did: account.truth()})
    assert archive.repo(account.did)["rev"] == ""
    events = archive.events()
    archive.sync(account.did)
    assert archive.events() == events
    fewer = dict(list(RECORDS.items())[:3])
    serve(account, fewer, version=2, rev=...)
    archive.sync(account.did)
    assert archive.stored(account.did).keys() == fewer.keys()
    account.commit_again()
    archive.sync(account.did)
    archive.judge({account.did: account.truth()})
    serve(account, fewer, version=2, rev=...)
    archive.good("resync", account.did)
    assert archive.backfill().code == 3
    assert f"its rev (none) is older than {account.rev}" in archive.repo(account.did)["last_error"]
    archive.judge({account.did: account.truth()})


def test_without_signatures_all_else_is_still_checked(archive: Archive, network: Network) -> None:
    unsigned, keyless, tampered = (network.add(n % 2, records=RECORDS).did for n in range(3))
    network.fault("bad-signature", did=unsigned, times=None)
    network.fault("doc-no-key", did=keyless, times=None)
    network.fault("tampered", did=tampered, times=None)
    archive.good("add", unsigned, keyless, tampered)
    assert archive.backfill().code == 3
    assert archive.statuses() == {"error": 3}
    archive.pass_time()
    assert archive.backfill("--no-verify-signatures").code == 3
    assert [archive.repo(did)["status"] for did in (unsigned, keyless, tampered)] == ["synced", "synced", "error"]
    assert archive.repo(keyless)["signing_key"] == ""
    archive.judge({unsigned: network.truth(unsigned), keyless: network.truth(keyless), tampered: {}})


def test_what_a_pass_that_was_killed_left_in_the_spool_is_removed_by_the_next(
    archive: Archive, network: Network, account: FakeAccount
) -> None:
    network.fault("hang", did=account.did, times=None)
    archive.good("add", account.did)
    process = archive.start("backfill")
    spool = archive.state / "spool" / "atproto"
    until(lambda: spool.exists() and list(spool.iterdir()))
    process.kill()
    process.communicate()
    assert len(list(spool.iterdir())) == 1
    network.clear_faults()
    archive.drain()
    assert list(spool.iterdir()) == []
    archive.judge({account.did: account.truth()})
