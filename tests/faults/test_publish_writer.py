"""Books change, come and go during every moment of a campaign: what is published is what there was at one moment."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.kits.publish import DRAINED, MORE, PublishNursery, Shelf, agrees, brute_force, index_ids, lists, some
from tickwork.generation.matrix import Matrix

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CAMPAIGNS = 2


class Writer(threading.Thread):
    """Changes the shelf without pause, and remembers the titles there were at each change."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__()
        self.shelf = shelf
        self.enough = threading.Event()
        self.titles: dict[int, dict[int, str]] = {}
        self.rounds = 0
        self._remember()

    def run(self) -> None:
        random = np.random.default_rng(7)
        while not self.enough.is_set():
            self.rounds += 1
            live = random.permutation(sorted(self.shelf.words)).tolist()
            # Each is a transaction of its own, and some are embedded only later.
            self.shelf.delete(live[:2], forget=bool(self.rounds % 2))
            self._remember()
            self.shelf.change({live[3]: some(1, self.rounds)[0]})
            self._remember()
            (fresh, _) = self.shelf.add([some(1, self.rounds)[0], None])
            self._remember()
            self.shelf.embed({fresh: some(1, -self.rounds % 99)[0]})

    def _remember(self) -> None:
        with closing(sqlite3.connect(self.shelf.paths.database("doab"))) as books:
            newest = books.execute("SELECT max(seq) FROM records_changes").fetchone()[0]
        self.titles[newest] = dict(self.shelf.words)


@pytest.mark.parametrize("seconds", ["0", "600"], ids=["a unit a pass", "one pass"])
def test_what_is_published_under_a_writer_is_what_there_was_at_one_moment(tmp_path: Path, seconds: str) -> None:
    shelf = Shelf(tmp_path, factory="IVF4,SQfp16", nprobe=4)
    shelf.add(some(500))
    writer = Writer(shelf)
    with PublishNursery() as nursery:
        writer.start()
        try:
            watermarks = []
            for _ in range(CAMPAIGNS):
                passes = 0
                while (code := nursery.run(shelf.command("publish", "doab", "--seconds", seconds))) == MORE:
                    passes += 1
                    # The pass that switches ends at its bound as well.
                    if not shelf.generations.building.exists():
                        break
                assert code in (DRAINED, MORE)
                generation = shelf.current()
                meta, matrix = generation.meta, Matrix.load(generation.folder)
                watermarks.append(meta.watermark.documents)
                with closing(sqlite3.connect(generation.database)) as items:
                    titles = dict(items.execute("SELECT id, title FROM items").fetchall())
                    items.execute("INSERT INTO items_fts (items_fts, rank) VALUES ('integrity-check', 1)")
                assert titles == writer.titles[meta.watermark.documents]
                assert (meta.total, meta.vectors) == (len(titles), len(matrix.ids))
                assert set(matrix.ids.tolist()) <= set(titles)
                assert index_ids(generation) == matrix.ids.tolist()
                assert lists(generation) == brute_force(matrix, meta.top_k)
        finally:
            writer.enough.set()
            writer.join()
        assert len(set(watermarks)) == CAMPAIGNS
        assert watermarks == sorted(watermarks)
        print(f"\n{writer.rounds} rounds of changes during {CAMPAIGNS} campaigns")
        assert writer.rounds > CAMPAIGNS
        agrees(shelf, shelf.publish())
        assert not shelf.leftovers()
