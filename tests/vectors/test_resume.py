"""Another model, a restored copy, a kill: the next pass embeds what is then missing or wrong, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.kits.operate import Tickwork
from tests.kits.patience import until
from tests.kits.vectors import FakeModel, change, config, documents, make_state, right, stored, tiny_model
from tickwork.contract import runner
from tickwork.contract.paths import Paths
from tickwork.vectors import embed
from tickwork.vectors.store import VectorStore

MORE = 3


# Models.


def test_another_model_embeds_everything_anew_in_bounded_passes(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    embed_doab()
    fake_model.texts.clear()
    fake_model.name = "second"
    assert embed_doab("--limit", "12", prefix="x").code == MORE
    with VectorStore.open(Paths.under(books).database("doab-vectors"), read_only=True) as store:
        assert sorted((info.fingerprint.split()[0], n) for info, n in store.models()) == [("first", 18), ("second", 12)]
    assert embed_doab(prefix="x").code == 0
    assert right(books, fake_model)
    assert len(fake_model.texts) == len(set(fake_model.texts)) == 30


def test_back_to_the_old_model_half_way_embeds_only_what_the_other_did(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    embed_doab()
    fake_model.name = "second"
    embed_doab("--limit", "12", prefix="x")
    fake_model.texts.clear()
    fake_model.name = "first"
    assert embed_doab().code == 0
    assert right(books, fake_model)
    assert len(fake_model.texts) == 12


@pytest.mark.parametrize("option", [{"max_tokens": 100}, {"query_prefix": "q: "}, {"revision": "1" * 40}])
def test_settings_of_the_model_that_change_are_noticed_without_a_change_of_a_text(
    embed_doab: Tickwork, fake_model: FakeModel, books: Path, option: dict[str, object]
) -> None:
    embed_doab()
    fake_model.name = "second"
    assert embed_doab().code == 0
    assert len(fake_model.texts) == 30, "an idle tick reads no model's files"
    embed_doab(**option)
    assert len(fake_model.texts) == 60
    assert right(books, fake_model)


@pytest.mark.parametrize("option", [{"threads": 3}, {"dtype": "bfloat16"}, {"batch_tokens": 9}, {"nprobe": 1}])
def test_how_it_is_computed_may_change_without_embedding_anew(
    embed_doab: Tickwork, fake_model: FakeModel, books: Path, option: dict[str, object]
) -> None:
    embed_doab()
    assert embed_doab(**option).code == 0
    assert len(fake_model.texts) == 30


# Restored copies.


def restore(books: Path, copy: Path) -> None:
    for name in ("doab.db", "doab.db-wal", "doab.db-shm"):
        (books / "db" / name).unlink(missing_ok=True)
    shutil.copyfile(copy, books / "db" / "doab.db")


def backup(books: Path) -> Path:
    target = books.parent / "copy.db"
    target.unlink(missing_ok=True)
    with documents(books) as db:
        db.execute("COMMIT")
        db.execute("VACUUM INTO ?", (str(target),))
        db.execute("BEGIN")
    return target


def test_documents_restored_from_an_older_copy_get_their_old_vectors(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    embed_doab()
    copy = backup(books)
    change(books, 5, title="Bees")
    change(books, 31)
    change(books, 32)
    embed_doab()
    assert 32 in stored(books)
    restore(books, copy)
    fake_model.texts.clear()
    assert embed_doab().code == 0
    assert right(books, fake_model)
    assert stored(books).keys() == set(range(1, 31))
    assert len(fake_model.texts) == 1, "what did not change is not embedded again"


def test_other_changes_after_a_restore_are_not_taken_for_those_of_before(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    """As many changes as there were: a number counted up would be the same, and the vectors those of other texts."""
    embed_doab()
    copy = backup(books)
    change(books, 5, title="Bees")
    change(books, 31, title="Wasps")
    embed_doab()
    restore(books, copy)
    change(books, 6, title="Flies")
    change(books, 31, title="Moths")
    assert embed_doab().code == 0
    assert right(books, fake_model)


def test_a_copy_restored_in_the_midst_of_the_work_is_noticed_as_well(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "WINDOW", 29)
    copy = backup(books)
    change(books, 5, title="Bees")
    change(books, 31)
    assert embed_doab("--limit", "30").code == MORE
    assert 5 in stored(books), "embedded at a change that the copy has not, and not yet followed up to there"
    restore(books, copy)
    change(books, 6, title="Flies")
    assert embed_doab().code == 0
    assert right(books, fake_model)


# Kills.


def killed_at(count: int, what: type, name: str, before: bool, run: Callable[[], object]) -> None:
    """Run in a process of its own that is killed at the `count`-th call of a method, before or after it."""
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        calls, method = [0], getattr(what, name)

        def fatal(*arguments: object) -> object:
            calls[0] += 1
            if before and calls[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            given = method(*arguments)
            if calls[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return given

        setattr(what, name, fatal)
        run()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "the process was not killed"


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize(
    ("what", "name", "before"),
    [(runner.Budget, "spend", False), (VectorStore, "put", True), (VectorStore, "put", False)],
    ids=["between batches", "before a batch is stored", "before a batch is committed"],
)
def test_a_killed_pass_loses_nothing_and_nothing_is_done_twice(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel, what: type, name: str, before: bool, count: int
) -> None:
    killed_at(count, what, name, before, embed_doab)
    committed = len(stored(books))
    assert committed == min(30, 4 * (count if name == "spend" else count - 1))
    assert embed_doab().code == 0
    assert right(books, fake_model)
    assert len(fake_model.texts) == 30 - committed


@pytest.mark.slow
def test_a_pass_with_a_real_model_killed_and_resumed_equals_one_that_was_not(
    tickwork: Tickwork, books: Path, tmp_path: Path
) -> None:
    settings = config(tiny_model(tmp_path / "model"), batch_tokens=60)
    (tmp_path / "tickwork.toml").write_text(settings)
    command = [sys.executable, "-m", "tickwork", "--config", str(tmp_path / "tickwork.toml"), "--state", str(books)]
    with subprocess.Popen([*command, "embed", "doab"], stderr=subprocess.DEVNULL) as process:
        until(lambda: process.poll() is not None or _count(books) > 0)
        process.kill()
    done = len(stored(books))
    assert done > 0
    said = tickwork("embed", "doab", config=settings)
    assert said.code == 0
    assert done == 30 or f"items={30 - done} " in said.err
    whole = make_state(tmp_path / "whole", 30)
    assert tickwork("--state", str(whole), "embed", "doab", config=settings).code == 0
    resumed, truth = stored(books), stored(whole)
    assert resumed.keys() == truth.keys() == set(range(1, 31))
    for number, vector in truth.items():
        assert vector is not None
        np.testing.assert_allclose(vector.astype(float) @ np.asarray(resumed[number], float), 1, atol=2e-3)


def _count(books: Path) -> int:
    path = books / "db" / "doab-vectors.db"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
    except sqlite3.Error:
        return 0
