"""The corpus: posts and profiles as documents to be searched, as they are stored, and nothing of what is not."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits import atproto as kit
from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.corpus.document import Document
from tickwork.sources.atproto import searchable_text as texts
from tickwork.sources.atproto.corpus import CORPUS
from tickwork.store import changes

POST, PROFILE = "app.bsky.feed.post", "app.bsky.actor.profile"
HELLO = {
    "$type": POST,
    "text": " Bonjour\nle monde ",
    "langs": ["fr", "en"],
    "tags": ["deux mots", "un"],
    "createdAt": "2024-05-06T07:08:09Z",
}
ALICE = {"$type": PROFILE, "displayName": "Alice", "description": "Paints the sea."}


def documents(archive: Archive) -> dict[str, Document]:
    """What is searched, by address."""
    corpus = CORPUS
    connection = sqlite3.connect(archive.state / "db" / "atproto.db")
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection):
        return {document.identifier: document for document in corpus.after(connection, 0, 1000)}


def changed(archive: Archive) -> int:
    with contextlib.closing(sqlite3.connect(archive.state / "db" / "atproto.db")) as connection:
        return changes.newest(connection, "texts")


def read(collection: str, record: Any) -> texts.Text | None:
    return texts.read(collection, kit.dag_cbor(record))


def test_a_post_and_a_profile_are_documents_with_their_page(archive: Archive, network: Network) -> None:
    account = network.add(0, records={f"{POST}/3kx": HELLO, f"{PROFILE}/self": ALICE, "app.bsky.feed.like/3ky": HELLO})
    archive.sync(account.did)
    post, profile = (documents(archive)[f"at://{account.did}/{path}"] for path in (f"{POST}/3kx", f"{PROFILE}/self"))
    assert len(documents(archive)) == 2
    assert (post.title, post.text) == ("Bonjour", "Bonjour\nle monde")
    assert post.url == f"https://bsky.app/profile/{account.did}/post/3kx"
    assert post.words.splitlines() == [account.handle, "deux_mots", "un"]
    assert post.fields == {
        "kind": "post",
        "langs": ["fr", "en"],
        "tags": ["deux_mots", "un"],
        "handle": account.handle,
        "did": account.did,
        "created": "2024-05-06T07:08:09Z",
    }
    assert (profile.title, profile.text, profile.fields["kind"]) == ("Alice", "Paints the sea.", "profile")
    assert profile.url == f"https://bsky.app/profile/{account.did}"


def test_the_corpus_follows_each_change_of_the_records(archive: Archive, network: Network) -> None:
    did = network.add(0, records={f"{POST}/a": HELLO, f"{POST}/b": HELLO, f"{PROFILE}/self": ALICE}).did
    archive.sync(did)
    before = changed(archive)
    archive.good("resync", did)
    archive.drain()
    assert changed(archive) == before
    network.edit(did, {f"{POST}/a": HELLO | {"text": "Changed"}, f"{POST}/c": HELLO}, [f"{POST}/b"])
    archive.sync(did)
    assert {name.rpartition("/")[2]: document.text for name, document in documents(archive).items()} == {
        "a": "Changed",
        "c": "Bonjour\nle monde",
        "self": "Paints the sea.",
    }
    assert changed(archive) > before
    network.put(did, f"{POST}/a", {"$type": POST, "text": 5})
    archive.sync(did)
    assert len(documents(archive)) == 2


def test_a_handle_that_changes_is_a_change_of_all_texts_of_its_account(archive: Archive, network: Network) -> None:
    account, other = (network.add(0, records={f"{POST}/a": HELLO, f"{POST}/b": HELLO}) for _ in range(2))
    archive.sync(account.did, other.did)
    before = dict(archive.rows("SELECT max(seq) AS seq FROM texts_changes")[0])["seq"]
    account.handle = "renamed.example.com"
    archive.sync(account.did, other.did)
    fed = archive.rows("SELECT did, rkey FROM texts_changes JOIN texts USING (id) WHERE seq > ?", before)
    assert {(row["did"], row["rkey"]) for row in fed} == {(account.did, "a"), (account.did, "b")}
    assert {document.fields["handle"] for document in documents(archive).values()} == {account.handle, other.handle}


@pytest.mark.parametrize("end", ["deleted", "remove", "filter"])
def test_what_is_no_longer_stored_is_no_longer_searched(end: str, archive: Archive, network: Network) -> None:
    did = network.add(0, records={f"{POST}/a": HELLO}).did
    archive.sync(did)
    before = changed(archive)
    if end == "deleted":
        network.set_status(did, "deleted")
        archive.good("resync", did)
    elif end == "remove":
        archive.good("remove", did)
    else:
        archive.configure('[atproto.filter]\nmode = "filter"\ncollections = ["app.bsky.graph.*"]\n')
    archive.drain()
    assert documents(archive) == {}
    assert changed(archive) > before


def test_the_records_of_gone_accounts_stay_and_those_of_an_ephemeral_store_are_none(
    tmp_path: Path, network: Network
) -> None:
    did = network.add(0, records={f"{POST}/a": HELLO}).did
    kept, passing = Archive(tmp_path / "kept", network), Archive(tmp_path / "passing", network, "ephemeral = true\n")
    for archive in (kept, passing):
        archive.sync(did)
    network.set_status(did, "deactivated")
    kept.good("resync", did)
    kept.drain()
    assert len(documents(kept)) == 1
    assert documents(passing) == {}


@pytest.mark.parametrize(
    ("collection", "record"),
    [
        (POST, {"$type": PROFILE, "text": "of another type"}),
        (POST, {"text": "of no type"}),
        (POST, {"$type": POST}),
        (POST, {"$type": POST, "text": " \n "}),
        (POST, {"$type": POST, "text": {"$type": POST}}),
        (PROFILE, {"$type": PROFILE, "displayName": 7, "description": ["a"]}),
        (POST, [POST, "a list"]),
        (POST, POST),
        (POST, None),
    ],
)
def test_a_record_without_text_is_not_searched(collection: str, record: Any) -> None:
    assert read(collection, record) is None


def test_a_block_that_is_no_record_is_not_searched() -> None:
    assert texts.read(POST, b"\xff\x00") is None


def test_fields_of_another_type_count_as_missing() -> None:
    odd = {"langs": "fr", "tags": [1, "ok", None, "  ", " a  b "], "createdAt": 5}
    assert read(POST, {"$type": POST, "text": "words", **odd}) == texts.Text("", "words", "", "ok a_b", "")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=40) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(("text", "langs", "tags", "createdAt", "displayName", "description", "$type", "other"))


@given(
    st.sampled_from((POST, PROFILE)), st.dictionaries(names, values | st.text(max_size=5).map(lambda text: text * 9000))
)
def test_whatever_an_owner_writes_is_read_within_bounds(collection: str, record: dict[str, Any]) -> None:
    text = read(collection, {**record, "$type": collection})
    if text is not None:
        assert text.title or text.text
        assert max(len(text.title), len(text.text)) <= 20_000
        assert len(text.langs.split(" ")) <= 10
        assert len(text.tags.split(" ")) <= 50
        assert len(text.created) <= 40
