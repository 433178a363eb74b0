"""One harvest of a whole list by one library, in a process of its own; prints records and CPU seconds.

python -m bench.oai_peer NAME URL FOLDER
"""

from __future__ import annotations

import ipaddress
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from tickwork.contract.stop import Stop
from tickwork.sources.doab.harvest import harvest
from tickwork.sources.doab.metadata import fields_of
from tickwork.sources.doab.oai import OaiClient
from tickwork.sources.doab.settings import DoabSettings
from tickwork.sources.doab.store import DoabStore
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Slots

FIRST, LAST = "2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


@contextmanager
def _client(url: str, folder: Path) -> Iterator[tuple[OaiClient, DoabSettings]]:
    settings = DoabSettings(base_url=url, interval_seconds=0, window_items=10**9)
    policy = Policy(interval_seconds=0)
    guard = Guard([ipaddress.ip_network("127.0.0.0/8")])
    with (
        Slots(folder / "slots.db") as slots,
        Upstream(
            "bench", slots=slots, guard=guard, stop=Stop(), policy=policy, contact="https://bench.invalid"
        ) as http,
    ):
        yield OaiClient(http, settings), settings


def tickwork_parsing(url: str, folder: Path) -> int:
    """Every page fetched with our manners, every record read into its fields."""
    count, token = 0, ""
    with _client(url, folder) as (oai, _):
        while True:
            page, _ = oai.page("ListRecords", FIRST, LAST, token)
            for record in page.records:
                if record.metadata is not None:
                    fields_of(record.metadata)
                count += 1
            if page.token is None:
                return count
            token = page.token.value


def tickwork_storing(url: str, folder: Path) -> int:
    """The real harvest: the same, committed page by page."""
    with (
        _client(url, folder) as (oai, settings),
        DoabStore.open(folder / "doab.db", settings.pattern()) as store,
    ):
        return sum(unit.items for unit in harvest(store, oai, settings, print, first=FIRST, last=LAST))


def sickle(url: str, folder: Path) -> int:
    """Sickle: records with their metadata as a dictionary."""
    from sickle import Sickle

    listed = Sickle(url).ListRecords(**{"metadataPrefix": "oai_dc", "from": FIRST, "until": LAST})
    return sum(1 for record in listed if record.deleted or record.metadata is not None)


def scythe(url: str, folder: Path) -> int:
    """oaipmh-scythe: records with their metadata as a dictionary."""
    from oaipmh_scythe import Scythe

    with Scythe(url) as client:
        listed = client.list_records(metadata_prefix="oai_dc", from_=FIRST, until=LAST)
        return sum(1 for record in listed if record.deleted or record.metadata is not None)


def oaipmh(url: str, folder: Path) -> int:
    """oaipmh 4 with its Dublin Core reader."""
    import datetime as dt

    from oaipmh.client import Client
    from oaipmh.metadata import MetadataRegistry, oai_dc_reader

    registry = MetadataRegistry()
    registry.registerReader("oai_dc", oai_dc_reader)
    listed = Client(url, registry).listRecords(
        metadataPrefix="oai_dc", from_=dt.datetime(2000, 1, 1), until=dt.datetime(2100, 1, 1)
    )
    return sum(1 for _ in listed)


PEERS: dict[str, Callable[[str, Path], int]] = {
    "tickwork, parsing": tickwork_parsing,
    "tickwork, storing": tickwork_storing,
    "sickle": sickle,
    "oaipmh-scythe": scythe,
    "oaipmh 4": oaipmh,
}

LIBRARIES = {"sickle": "sickle", "oaipmh-scythe": "oaipmh_scythe", "oaipmh 4": "oaipmh.client"}

if __name__ == "__main__":
    # Importing is not what is measured, and neither is making an empty database.
    import_module(LIBRARIES.get(sys.argv[1], "tickwork"))
    with DoabStore.open(Path(sys.argv[3]) / "doab.db", DoabSettings().pattern()):
        pass
    begun = time.process_time()
    records = PEERS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    print(json.dumps({"records": records, "cpu": time.process_time() - begun}))
