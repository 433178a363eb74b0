"""How long what could not be had is put off."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

from tickwork.sources.doab.store import DoabStore
from tickwork.sources.doab.worklist import OWN, Item, Worklist

PATTERN = re.compile(r"(\d+)/(\d+)$")
IDENTIFIER = "oai:directory.doabooks.org:20.500.12854/1"


@pytest.mark.parametrize(
    ("attempts", "minutes"), [(0, 2), (1, 4), (2, 8), (8, 512), (9, 1024), (10, 1440), (11, 1440), (10**6, 1440)]
)
def test_each_fault_doubles_the_wait_up_to_a_day(attempts: int, minutes: float, tmp_path: Path) -> None:
    with DoabStore.open(tmp_path / "doab.db", PATTERN) as store:
        todo = Worklist(store, OWN)
        with store.transaction():
            todo.fill([IDENTIFIER], [])
            begun = dt.datetime.now(dt.UTC)
            todo.settle(Item(IDENTIFIER, attempts), "retry")
            ended = dt.datetime.now(dt.UTC)
        due, wait = dt.datetime.fromisoformat(todo.next_due()), dt.timedelta(minutes=minutes)
        assert begun + wait <= due <= ended + wait


def test_what_need_not_wait_is_due_at_once_and_comes_last(tmp_path: Path) -> None:
    with DoabStore.open(tmp_path / "doab.db", PATTERN) as store:
        todo = Worklist(store, OWN)
        other = IDENTIFIER.replace("/1", "/2")
        with store.transaction():
            todo.fill([IDENTIFIER, other], [])
            todo.settle(Item(IDENTIFIER, 5), "retry", soon=True)
        items = todo.items()
        assert next(items).identifier == other
        with store.transaction():
            todo.settle(Item(other, 0), "ok")
        assert next(items) == Item(IDENTIFIER, 6)
