"""The commands: what they show is what is stored, what cannot be is one clear line, and exit codes say how it ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.deployment import Said
from tests.kits.repos import Archive
from tests.upstreams.pds import Network

RECORDS = {f"app.bsky.feed.post/{n}": {"text": f"number {n}"} for n in range(3)}
DID, NOBODY = "did:plc:" + "a" * 24, "did:plc:" + "b" * 24
NOTHING = "nothing is stored yet; run: tickwork atproto add DID, or tickwork atproto discover"


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(hosts=2, accounts_a_host=3, at_once=2, plc_at_once=4) as made:
        yield made
        assert made.violations() == []


def one_line(said: Said, message: str, code: int = 2) -> None:
    """Fail unless a command ended with this one line."""
    assert (said.code, said.out) == (code, "")
    assert said.err.count("\n") == 1
    assert said.err.startswith("tickwork: ")
    assert message in said.err


# --- what cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("events", NOTHING),
        ("repos", NOTHING),
        (f"repo {DID}", NOTHING),
        (f"records {DID}", NOTHING),
        (f"remove {DID}", f"{DID} is not known"),
        (f"resync {DID}", f"{DID} is not known; add it: tickwork atproto add {DID}"),
        ("add", "name at least one account"),
        ("resync", "name at least one account"),
        ("remove", "name at least one account"),
        ("add alice.example", "'alice.example' is not a valid DID; write did:plc:... or did:web:..."),
        ("add did:plc:", "'did:plc:' is not a valid DID"),
        (f"resync {DID} DID:plc:x", "'DID:plc:x' is not a valid DID"),
        ("add --file /nonexistent/dids", "cannot read /nonexistent/dids"),
        (f"add {DID} --allow-private 10.1", "write a network such as 10.1.0.0/16"),
        (f"add {DID} --plc-url directory", "[atproto] plc: 'directory' is not an address such as https://example.org"),
        ("discover", "[atproto] relays and hosts are both empty"),
        ("backfill --shard 9/8", "a shard is written like 2/8 (the second of eight), not '9/8'"),
        ("discover --relay https://x.example --shard x", "a shard is written like 2/8"),
    ],
)
def test_an_expected_fault_is_one_clear_line(command: str, message: str, tmp_path: Path) -> None:
    one_line(Archive(tmp_path).run(*command.split()), message)


@pytest.mark.parametrize("command", ["repo", "records", "remove", "resync"])
def test_an_account_that_is_not_known_is_named(command: str, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.good("add", DID)
    one_line(archive.run(command, NOBODY), f"{NOBODY} is not known")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("hosts_rate = 1", "unknown field `hosts_rate`"),
        ("[atproto.filter]\nsignal = []", "`filter`: object contains unknown field `signal`"),
        ('[atproto.filter]\nmode = "some"', "`filter.mode`: invalid enum value 'some'"),
        ('[atproto.filter]\nmode = "filter"\nsignals = ["app.bsky"]', "'app.bsky' is neither a collection nor"),
        ('[atproto.filter]\nexcludes = ["alice"]', "[atproto.filter] excludes: 'alice' is not a valid DID"),
        ('shard = "two"', "a shard is written like 2/8"),
        ("max_bytes = -1", "`max_bytes`: expected"),
        ("host_concurrency = 0", "`host_concurrency`: expected"),
        ("retry_seconds = nan", "`retry_seconds`: expected"),
        ("plc = []", "[atproto] plc is empty"),
        ('relays = ["ftp://relay.example"]', "[atproto] relays: 'ftp://relay.example' is not an address"),
        ('hosts = ["https://pds.example:99999"]', "[atproto] hosts: 'https://pds.example:99999' is not an address"),
        ('plc = ["http://[::1"]', "[atproto] plc: 'http://[::1' is not an address"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_is_done(settings: str, message: str, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.config.write_text(f"[atproto]\n{settings}\n")
    for command in ("backfill", "discover --relay https://relay.example"):
        one_line(archive.run(*command.split()), message)
    assert not archive.state.exists()


# --- adding ------------------------------------------------------------------------------------------


def test_accounts_are_added_by_name_and_from_files_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    file = tmp_path / "dids"
    file.write_text(f"# some accounts\n{DID}\n\n  {NOBODY}  \n{DID}\n")
    assert archive.good("add", DID, DID) == "1 added, 0 already known\n"
    assert archive.good("add", DID, "--file", str(file)) == "1 added, 1 already known\n"
    assert archive.statuses() == {"pending": 2}


def test_the_directories_and_networks_given_for_an_account_are_shown_one_by_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    directories, networks = ["https://plc.example.org", "https://plc.example.net"], ["10.0.0.0/8"]
    given = [word for url in directories for word in ("--plc-url", url)]
    archive.good("add", DID, *given, "--allow-private", networks[0])
    archive.good("add", NOBODY)
    shown = {did: json.loads(archive.good("repo", did, "--json")) for did in (DID, NOBODY)}
    assert [(shown[did]["plc"], shown[did]["allow"]) for did in (DID, NOBODY)] == [(directories, networks), ([], [])]
    assert f"plc            {' '.join(directories)}\n" in archive.good("repo", DID)
    assert "plc" not in archive.good("repo", NOBODY).replace("did:plc", "")


def test_of_a_file_with_something_odd_in_it_nothing_is_added(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    file = tmp_path / "dids"
    file.write_text(f"{DID}\nalice.example\n")
    one_line(archive.run("add", "--file", str(file)), "'alice.example' is not a valid DID")
    file.write_bytes(b"\xff\xfe")
    one_line(archive.run("add", "--file", str(file)), f"cannot read {file}")
    assert not (archive.state / "db" / "atproto.db").exists()


# --- what is stored ----------------------------------------------------------------------------------


def test_figures_equal_a_recount(archive: Archive, network: Network) -> None:
    gone, gone_too, broken, parked, slow, fine = network.accounts
    archive.configure('max_attempts = 2\n[atproto.filter]\nmode = "filter"\nsignals = ["app.*", "com.*"]\n')
    archive.sync(*network.accounts)
    network.set_status(gone, "suspended")
    network.set_status(gone_too, "deactivated")
    network.fault("missing-record", did=parked, times=None)
    archive.good("resync", gone, gone_too, parked)
    archive.backfill()
    archive.pass_time()
    archive.backfill()
    network.fault("tampered", did=broken, times=None)
    network.fault("502", did=slow, times=None)
    discarded = network.add(0, records={"org.example.other/a": {}}).did
    archive.good("add", NOBODY, discarded)
    archive.write("UPDATE repos SET explicit = 0 WHERE did = ?", discarded)
    archive.good("resync", broken, slow)
    archive.backfill()
    archive.good("add", DID)
    figures = json.loads(archive.good("stats", "--json"))

    records = archive.rows("SELECT * FROM records")
    assert figures["pending"] == figures["synced"] == figures["parked"] == figures["discarded"] == 1
    assert figures["error"] == {"generic": 2, "transport": 1}
    assert figures["gone"] == {"deactivated": 1, "suspended": 1}
    assert figures["records"] == len(records) > 20
    assert figures["collections"] == dict(Counter(row["collection"] for row in records))
    assert figures["blocks"] == len(archive.rows("SELECT * FROM blocks"))
    assert figures["events"] == len(archive.events())
    assert (figures["elsewhere"], figures["lists"]) == (0, [])
    told = archive.good("stats")
    assert "error        2 generic, 1 transport" in told
    assert f"records      {len(records)}" in told
    assert archive.repo(fine)["status"] == "synced"


def test_figures_tell_where_discovery_is(archive: Archive, network: Network) -> None:
    archive.good("discover", "--relay", network.relay_url)
    (listed,) = json.loads(archive.good("stats", "--json"))["lists"]
    assert (listed["name"], listed["repositories"], listed["cursor"]) == (network.relay_url, 6, "")
    assert listed["completed"].startswith("20")
    assert listed["completed"].endswith("Z")
    assert f"{network.relay_url}: 6 so far, 20" in archive.good("stats")


def test_repositories_are_listed_with_what_is_the_matter(archive: Archive, network: Network) -> None:
    archive.sync(*network.accounts)
    archive.good("add", NOBODY)
    archive.backfill()
    lines = archive.good("repos").splitlines()
    assert [line.split()[0] for line in lines] == sorted([*network.accounts, NOBODY])
    (bad,) = (line for line in lines if line.startswith(NOBODY))
    assert bad.split()[1] == "error"
    assert bad.endswith(f"does not know {NOBODY}")
    assert len(archive.good("repos", "--status", "synced").splitlines()) == 6
    assert archive.run("repos", "--status", "sinced").code == 2
    rows = [json.loads(line) for line in archive.good("repos", "--json").splitlines()]
    assert {row["did"]: row["rev"] for row in rows} == {
        **{did: account.rev for did, account in network.accounts.items()},
        NOBODY: "",
    }
    assert all(row["tracked"] is row["explicit"] is True for row in rows)


def test_a_repository_is_shown_with_all_that_is_known(archive: Archive, network: Network) -> None:
    account = network.add(0, records={**RECORDS, "app.bsky.feed.like/a": {}})
    archive.sync(account.did)
    shown = json.loads(archive.good("repo", account.did, "--json"))
    assert shown["records"] == {"app.bsky.feed.like": 1, "app.bsky.feed.post": 3}
    assert (shown["rev"], shown["pds"], shown["handle"]) == (account.rev, account.home, account.handle)
    assert (shown["status"], shown["next_retry"], shown["last_error"]) == ("synced", None, "")
    assert shown["synced"].startswith("20")
    text = archive.good("repo", account.did)
    assert f"rev            {account.rev}\n" in text
    assert "         3  app.bsky.feed.post\n" in text


def test_records_are_written_with_their_path_their_cid_and_what_they_say(archive: Archive, network: Network) -> None:
    account = network.add(0, records={**RECORDS, "app.bsky.feed.like/a": {"n": b"\x01", "none": None}})
    archive.sync(account.did)
    written = [json.loads(line) for line in archive.good("records", account.did).splitlines()]
    assert {each["uri"]: each["cid"] for each in written} == {
        f"at://{account.did}/{path}": cid for path, cid in account.truth().items()
    }
    assert [each["value"] for each in written] == [{"n": {"$bytes": "AQ"}, "none": None}, *RECORDS.values()]
    posts = archive.good("records", account.did, "--collection", "app.bsky.feed.post")
    assert [json.loads(line) for line in posts.splitlines()] == written[1:]


# --- how a pass ends ---------------------------------------------------------------------------------


def test_a_pass_ends_with_0_when_nothing_is_left_and_with_3_when_something_is(
    archive: Archive, network: Network
) -> None:
    archive.good("add", *network.accounts)
    said = archive.backfill("--limit", "4")
    assert said.code == 3
    assert "pass=more items=4" in said.err
    assert "backlog=2" in said.err
    said = archive.backfill()
    assert (said.code, "pass=drained items=2" in said.err) == (0, True)
    assert archive.backfill().code == 0
    network.fault("500", did=next(iter(network.accounts)), times=None)
    archive.configure("", "[atproto]\nplc_interval_seconds = 0\nhost_interval_seconds = 0\n")
    archive.good("resync", *network.accounts)
    said = archive.backfill()
    assert said.code == 3
    assert "one repository is waiting; the next retry is at 20" in said.err


@pytest.mark.parametrize("table", ["records", "blocks", "repos"])
def test_a_damaged_database_halts_the_job_and_counts_against_no_repository(
    table: str, archive: Archive, network: Network
) -> None:
    archive.sync(*network.accounts)
    network.churn(20)
    archive.good("resync", *network.accounts)
    before = archive.rows("SELECT did, status, attempts, last_error, rev FROM repos")
    (page,) = archive.rows("SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    database = archive.state / "db" / "atproto.db"
    sound = database.read_bytes()
    size = archive.rows("PRAGMA page_size")[0]["page_size"]
    with database.open("r+b") as file:
        file.seek((page["rootpage"] - 1) * size)
        file.write(b"\xff" * size)
    said = archive.run("backfill")
    assert said.code == 4
    assert "the database is damaged: database disk image is malformed. Restore it from a copy, then re-arm" in said.err
    assert archive.run("backfill").code == 4
    if table == "repos":
        one_line(archive.run("repos"), f"cannot read {database}: database disk image is malformed")
        database.write_bytes(sound)
    assert archive.rows("SELECT did, status, attempts, last_error, rev FROM repos") == before
