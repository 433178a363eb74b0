"""The first stage: a copy of the source's database that stands still, whatever the source does meanwhile.

VACUUM INTO reads in one transaction and never waits for a writer; SQLite's stepwise backup begins again at each write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from tickwork.contract import database, files
from tickwork.contract.units import Unit
from tickwork.publish.campaign_context import SNAPSHOT, CampaignContext


def snapshot(context: CampaignContext) -> Iterator[Unit]:
    """Copy the source's database; one unit."""
    source = context.paths.database(context.corpus.database)
    with (
        files.whole(context.folder / SNAPSHOT) as path,
        closing(database.connect(source, read_only=True)) as connection,
    ):
        connection.execute("VACUUM INTO ?", (str(path),))
    yield Unit(items=0, note="snapshot")
