"""Real repositories and relay commits: what others found in them is what we find."""

from __future__ import annotations

import base64
import datetime as dt
import json
import struct

import pytest

from tests.kits import atproto as kit
from tickwork.sources.atproto.repo import cbor, commit, identity, repository
from tickwork.sources.atproto.repo import dag_json as data_model
from tickwork.sources.atproto.repo.car import Car
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import cid_text

NOW = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
OLDEST = "bafyreieovfuizojpw3zresz7sx3nk4trm2by23pt5rxbey3jme4uo5ogiu.car"


def document(name: str, did: str) -> identity.Identity:
    return identity.parse(json.loads((kit.real_data() / name).read_text()), did, allow_http=True)


def listing(content: bytes, did: str, key=None) -> list[tuple[str, str]]:
    with repository.read(kit.on_disk(content), did, key, now=NOW) as repo:
        records = [(record.path, cid_text(record.cid)) for record in repo.records()]
        assert repo.invalid_paths.count == 0
        return records


def test_every_commit_of_the_relay_is_verified():
    zstandard, libipld = pytest.importorskip("zstandard"), pytest.importorskip("libipld")
    folder = kit.real_data() / "jetstream"

    def unpacked(name: str) -> bytes:
        return zstandard.ZstdDecompressor().decompressobj().decompress((folder / name).read_bytes())

    documents, stream = json.loads(unpacked("did_docs.json.zst")), unpacked("frames.bin.zst")
    position, verified = 0, 0
    while position < len(stream):
        (size,) = struct.unpack_from("<I", stream, position)
        header, body = libipld.decode_dag_cbor_multi(stream[position + 4 : position + 4 + size])
        position += 4 + size
        if header["t"] != "#commit":
            continue
        did = body["repo"]
        with Car(kit.on_disk(body["blocks"])) as car:
            read = commit.parse(car.get(car.roots[0]), car.roots[0])
            assert (read.cid, read.rev) == (body["commit"], body["rev"])
            read.check(did, NOW, at_least_rev=body["since"] or "")
            read.verify(identity.parse(documents[did], did).signing_key())
            for operation in body["ops"]:
                if operation["cid"] is not None:
                    data_model.to_json(cbor.decode(car.get(operation["cid"]), operation["path"]))
        verified += 1
    assert verified == 148 == json.loads((folder / "manifest.json").read_text())["commit_frames"]


def test_a_repository_has_the_records_that_are_listed_beside_it():
    folder = kit.real_data() / "jetstream"
    told = dict(
        line.split(": ", 1) for line in (folder / "car_expected_commit.txt").read_text().splitlines() if ": " in line
    )
    content = (folder / "repo.car").read_bytes()
    with repository.read(kit.on_disk(content), told["DID"], None, now=NOW) as repo:
        assert cid_text(repo.commit.data) == told["Data CID"]
        assert (repo.commit.rev, repo.commit.version, repo.commit.prev) == (told["Revision"], 3, None)
    lines = (folder / "car_expected_records.tsv").read_text().splitlines()
    assert listing(content, told["DID"]) == sorted(tuple(line.split("\t")) for line in lines)


@pytest.mark.parametrize(
    ("name", "records"), [("fakermaker.repo.car", 142), ("greenground.repo.car", 2), ("divy.repo", 6), (OLDEST, 6)]
)
def test_repositories_of_older_servers_are_read(name, records):
    content = (kit.real_data() / "indigo" / name).read_bytes()
    with Car(kit.on_disk(content)) as car:
        did = commit.parse(car.get(car.roots[0]), car.roots[0]).did
    assert len(listing(content, did)) == records


def test_greenground_is_another_accounts():
    content = (kit.real_data() / "indigo" / "greenground.repo.car").read_bytes()
    did = "did:plc:wqgdnqlv2mwiio6pfchwtrff"
    key = document("indigo/greenground.didDoc.json", did).signing_key()
    with pytest.raises(InvalidRepositoryError, match=f"it belongs to did:plc:kzcqyc3unb33eh5sxzsfs25z, not to {did}"):
        listing(content, did, key)


def test_fakermaker_is_signed_with_a_high_s_and_refused_against_its_document():
    content = (kit.real_data() / "indigo" / "fakermaker.repo.car").read_bytes()
    did = "did:plc:dpg45vsnuir2vqqqadsn6afg"
    key = document("indigo/fakermaker.didDoc.json", did).signing_key()
    with pytest.raises(InvalidRepositoryError, match="its signature is not by"):
        listing(content, did, key)


def test_a_slice_of_a_repository_is_a_failure_and_not_a_small_repository():
    content = (kit.real_data() / "indigo" / "repo_slice.car").read_bytes()
    with Car(kit.on_disk(content)) as car:
        did = commit.parse(car.get(car.roots[0]), car.roots[0]).did
    with pytest.raises(InvalidRepositoryError, match="is missing"):
        listing(content, did)


@pytest.mark.parametrize("name", ["did_plc_doc.json", "did_plc_doc_legacy.json"])
def test_documents_of_both_ages_name_the_same_key(name):
    read = document(f"indigo/identity/{name}", "did:plc:ewvi7nxzyoun6zhxrhs64oiz")
    assert (read.pds, read.handle) == ("https://bsky.social", "atproto.com")
    assert str(read.signing_key()) == "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"


def test_a_document_of_a_service_has_no_repository():
    read = document("indigo/identity/did_web_doc.json", "did:web:discover.bsky.social")
    assert (read.pds, read.handle, read.key_text) == (None, None, "")


def test_two_states_of_a_server_of_our_own_differ_as_was_done():
    folder = kit.real_data() / "pds-3000"
    meta = json.loads((folder / "meta.json").read_text())
    did, key = meta["did"], document("pds-3000/did.json", meta["did"]).signing_key()
    with (folder / "pds_v1.car").open("rb") as file, repository.read(file, did, key, now=NOW) as before:
        assert (cid_text(before.commit.cid), before.commit.rev) == (meta["rev1"]["cid"], meta["rev1"]["rev"])
        stored = [(record.path, record.cid) for record in before.records()]
    assert len(stored) == meta["records_v1"]
    with (folder / "pds_v2.car").open("rb") as file:
        with repository.read(file, did, key, now=NOW, at_least_rev=meta["rev1"]["rev"]) as after:
            records = list(after.records())
            actions = [change.action for change in repository.diff(stored, after.records())]
        later = after.commit.rev
    assert len(records) == meta["records_v2"]
    assert {action: actions.count(action) for action in actions} == {"update": 1, "delete": 5, "create": 1}
    with (folder / "pds_v1.car").open("rb") as file, pytest.raises(InvalidRepositoryError, match="older than"):
        repository.read(file, did, key, now=NOW, at_least_rev=later)
    with (
        (folder / "pds_v2_since.car").open("rb") as file,
        repository.read(file, did, key, now=NOW) as partial,
        pytest.raises(InvalidRepositoryError, match="is missing"),
    ):
        list(repository.diff(stored, partial.records()))


def test_car_files_of_the_reference():
    fixtures = json.loads((kit.real_data() / "atproto-repo" / "car-file-fixtures.json").read_text())
    assert fixtures
    for fixture in fixtures:
        blocks = [(kit.cid_of(block["cid"]), base64.b64decode(block["bytes"] + "==")) for block in fixture["blocks"]]
        content = base64.b64decode(fixture["car"] + "==")
        assert kit.car(kit.cid_of(fixture["root"]), [(cid.binary, block) for cid, block in blocks]) == content
        with Car(kit.on_disk(content)) as car:
            assert car.roots == [kit.cid_of(fixture["root"]).binary]
            assert [car.get(cid.binary) for cid, _ in blocks] == [block for _, block in blocks]


def test_the_peer_walks_the_same_trees():
    """atmst, where it is installed, finds the same records."""
    pytest.importorskip("atmst")
    from atmst.blockstore.car_file import ReadOnlyCARBlockStore
    from atmst.mst.node_store import NodeStore
    from atmst.mst.node_walker import NodeWalker

    for name in ("v1", "v2"):
        path = kit.real_data() / "pds-3000" / f"pds_{name}.car"
        with path.open("rb") as file:
            store = ReadOnlyCARBlockStore(file)
            with path.open("rb") as ours, Car(ours) as car:
                read = commit.parse(car.get(car.roots[0]), car.roots[0])
            from cbrrr import CID

            walker = NodeWalker(NodeStore(store), CID(read.data))
            theirs = [(key, bytes(value)) for key, value in walker.iter_kv()]
        with path.open("rb") as file, repository.read(file, read.did, None, now=NOW) as repo:
            assert [(record.path, record.cid) for record in repo.records()] == theirs
