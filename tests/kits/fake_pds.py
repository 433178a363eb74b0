"""What the tests of the fake AT Protocol network share: they read what it sends with the reader it is to test."""

from __future__ import annotations

import datetime as dt

from tests.kits import atproto as kit
from tests.upstreams.pds import Network
from tests.upstreams.pds_accounts import FakeAccount
from tickwork.sources.atproto.repo import repository
from tickwork.sources.atproto.repo.identifiers import cid_text
from tickwork.sources.atproto.repo.keys import PublicKey


def first(network: Network) -> FakeAccount:
    """An account at the first host."""
    return next(iter(network.accounts.values()))


def verified(
    account: FakeAccount, body: bytes, *, key: PublicKey | None = None, at_least_rev: str = ""
) -> tuple[dict[str, str], repository.Repository]:
    """The records of a repository, as the oracle gives them, all verified; and what was read."""
    key, now = key or PublicKey.from_multikey(account.key.multikey()), dt.datetime.now(dt.UTC)
    with repository.read(kit.on_disk(body), account.did, key, now=now, at_least_rev=at_least_rev) as found:
        return {record.path: cid_text(record.cid) for record in found.records()}, found
