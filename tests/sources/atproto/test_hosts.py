"""A server is one server for the queue, its shards and its turns, however documents, settings, old stores spell it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from tests.kits.hosts import Spelt, owner, servers, spellings_of_one
from tickwork.contract.outcomes import OperatorError
from tickwork.deployment import Deployment
from tickwork.sources.atproto import schema
from tickwork.sources.atproto.discover import lists
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.queue import Claim, Queue
from tickwork.sources.atproto.repo import identity
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identity import Identity
from tickwork.sources.atproto.sessions import settings_of
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore
from tickwork.upstream.host_turns import HostTurns
from tickwork.upstream.shards import Shard

DIDS = [f"did:plc:{letter * 24}" for letter in "abcdef"]


def document(did: str, url: str) -> dict[str, Any]:
    service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": url}
    return {"id": did, "service": [service]}


def configured(**changes: Any) -> AtprotoSettings:
    """The settings as a command gets them."""
    table = SimpleNamespace(section=lambda *_: AtprotoSettings(**changes))
    return settings_of(cast(Deployment, SimpleNamespace(settings=table)))


def origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtprotoStore]:
    """A store; each example empties it first."""
    with AtprotoStore.open(tmp_path_factory.mktemp("hosts") / "atproto.db") as opened:
        yield opened


def queued(store: AtprotoStore, identities: list[Identity], shard: Shard) -> Queue:
    """A queue of these accounts at their servers."""
    queue = Queue(store, AtprotoSettings(), shard)
    with store.transaction():
        store.connection.execute("DELETE FROM repos")
        queue.add([one.did for one in identities])
        everybodys = Queue(store, AtprotoSettings(), Shard())
        for one in identities:
            row = store.connection.execute("SELECT * FROM repos WHERE did = ?", (one.did,)).fetchone()
            fields = {name: row[name] for name in Claim.__dataclass_fields__}
            everybodys.located(Claim(**fields), one)
    return queue


@given(servers(), st.data())
def test_a_document_leads_to_the_key_of_its_server_or_is_refused(server: Spelt, data: st.DataObject) -> None:
    url = origin(data.draw(server.urls))
    try:
        read = identity.parse(document(DIDS[0], url), DIDS[0], allow_http=True)
    except InvalidRepositoryError:
        assert not url.isascii()
        return
    assert (read.pds, read.host) == (f"{server.scheme}://{server.key}", server.key)


@given(spelt=spellings_of_one, count=st.integers(1, 4))
@settings(max_examples=50)
def test_accounts_whose_documents_spell_one_server_in_many_ways_take_turns_as_its_own(
    spelt: tuple[Spelt, list[str]], count: int, store: AtprotoStore
) -> None:
    server, urls = spelt
    assume(all(url.isascii() for url in urls))
    read = [
        identity.parse(document(did, origin(url)), did, allow_http=True) for did, url in zip(DIDS, urls, strict=False)
    ]
    for number in range(1, count + 1):
        queue = queued(store, read, Shard(number, count))
        ours = number == owner(server.key, count)
        assert queue.hosts() == [server.key] * ours
        turns = HostTurns(queue, per_host=1, unknown=1)
        claims = [claim.did for claim in iter(turns.claim, None)]
        assert len(claims) == ours


@given(spelt=spellings_of_one, count=st.integers(1, 4))
@settings(max_examples=50)
def test_a_server_that_the_settings_spell_in_many_ways_has_one_list_and_one_part_reads_it(
    spelt: tuple[Spelt, list[str]], count: int
) -> None:
    server, urls = spelt
    known = configured(hosts=tuple(map(origin, urls)), relays=tuple(map(origin, urls)))
    parts = [lists(known, Filter(known.filter), Shard(number, count)) for number in range(1, count + 1)]
    for number, found in enumerate(parts, 1):
        hosts = [one.host for one in found if one.host]
        assert hosts == [server.key] * (number == owner(server.key, count))
        assert {one.origin for one in found} == {f"{server.scheme}://{server.key}"}


@pytest.mark.parametrize("url", ["relay.example", "ftp://relay.example", "https://a..example", "https://me@a.example"])
def test_an_address_of_the_settings_that_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(OperatorError, match=r"^\[atproto\] relays: '"):
        configured(relays=(url,))


# --- stores of before --------------------------------------------------------------------------------


BEFORE = {
    "pds.example.org.": "pds.example.org",
    "PDS.example.org": "pds.example.org",
    "pds.example.org": "pds.example.org",
    "[2606:4700:0:0:0:0:0:1111]": "[2606:4700::1111]",
    "[2606:4700:0::1111]:8443": "[2606:4700::1111]:8443",
    "pds.example.org:08443": "pds.example.org:8443",
    "": "",
    "not..a.host": "",
}


@pytest.fixture
def store_of_before(tmp_path: Path) -> Path:
    """A store of its third version: a server was stored as its document had it, a list under one name."""
    path = tmp_path / "atproto.db"
    db = Database(sqlite3.connect(path))
    schema.migrations.apply(db, stop_before="m004_changes_of_value")
    for number, host in enumerate(BEFORE):
        row = {"did": f"did:plc:{number:024}", "host": host, "next_retry": 1.0, "added": 1.0}
        db["repos"].insert({**row, "pds": f"https://{host}" if host else ""})
    for url in ("https://relay.example./", "https://Relay.example", "https://relay.example", "https://one.example."):
        url = url.rstrip("/")
        db["lists"].insert({"name": url, "cursor": "kept" if url == "https://relay.example" else "other"})
        db["lists"].insert({"name": f"{url} app.bsky.feed.post"})
        db["disagreements"].insert({"did": DIDS[0], "list": url, "status": "active"})
    db.execute("PRAGMA user_version = 3")
    db.conn.commit()
    db.close()
    return path


def test_a_server_stored_under_another_spelling_is_one_server_again(store_of_before: Path) -> None:
    with AtprotoStore.open(store_of_before) as store:
        rows = store.connection.execute("SELECT host, pds FROM repos ORDER BY id").fetchall()
        assert [row["host"] for row in rows] == list(BEFORE.values())
        assert [row["pds"] for row in rows if row["host"]] == [f"https://{host}" for host in BEFORE.values() if host]
        for count in (1, 2, 5):
            hosts = [Queue(store, AtprotoSettings(), Shard(n, count)).hosts() for n in range(1, count + 1)]
            found = [host for part in hosts for host in part if host]
            assert sorted(found) == sorted(set(BEFORE.values()) - {""})


def test_a_list_stored_under_another_spelling_goes_on_where_it_was(store_of_before: Path) -> None:
    with AtprotoStore.open(store_of_before) as store:
        names = ("https://one.example", "https://relay.example")
        rows = store.connection.execute("SELECT origin, collection, cursor FROM lists").fetchall()
        listed = {(row["origin"], row["collection"]): row["cursor"] for row in rows}
        assert set(listed) == {(name, collection) for name in names for collection in ("", "app.bsky.feed.post")}
        assert listed["https://relay.example", ""] == "kept"
        told = store.connection.execute("SELECT origin FROM disagreements ORDER BY origin").fetchall()
        assert [row["origin"] for row in told] == list(names)


def test_a_store_is_brought_up_to_date_once(store_of_before: Path) -> None:
    for _ in range(2):
        with AtprotoStore.open(store_of_before) as store:
            applied = store.connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = 'atproto'")
            assert [row["name"] for row in applied][-1] == "m006_hosts"
            assert store.connection.execute("PRAGMA user_version").fetchone()[0] == AtprotoStore.version
