"""The embedding pass: bounded, nothing embedded twice, nothing lost, whatever happens to the documents meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.operate_kit import Said, Tickwork
from tests.vectors_kit import DOAB, by_hand, change, config, delete, documents, make_state, stored, tiny_model
from tickwork.contract import runner
from tickwork.contract.layout import Layout
from tickwork.vectors import device, embed, model
from tickwork.vectors.corpus import embedded
from tickwork.vectors.model import Batch
from tickwork.vectors.settings import VectorSettings
from tickwork.vectors.store import VectorStore

MORE = 3


class Fake:
    """A model that keeps the texts it is given; a vector of its says which text it is of, and by which model."""

    def __init__(self) -> None:
        self.name = "first"
        self.texts: list[str] = []
        self.cannot: tuple[str, ...] = ()
        self.loaded = 0
        self.device = SimpleNamespace(dtype="torch.float32")

    def inspect(self, settings: VectorSettings, template: str) -> object:
        return by_hand(f"{self.name} {settings.max_tokens} {template}")

    def load(self, *_: object) -> Fake:
        self.loaded += 1
        return self

    def encode(self, texts: Sequence[str], batch_tokens: int) -> Iterator[Batch]:
        able = [place for place, text in enumerate(texts) if not any(word in text for word in self.cannot)]
        for start in range(0, len(able), batch_tokens):
            places = able[start : start + batch_tokens]
            self.texts += [texts[place] for place in places]
            yield Batch(places, np.array([self.vector(texts[place]) for place in places], np.float16))

    def vector(self, text: str) -> list[float]:
        digest = hashlib.sha256(f"{self.name}: {text}".encode()).digest()
        return [byte / 256 for byte in digest]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(model, "inspect", made.inspect)
    monkeypatch.setattr(model, "load", made.load)
    monkeypatch.setattr(device, "open_device", lambda *_: made.device)
    return made


@pytest.fixture
def state(layout: Layout) -> Path:
    """A deployment with thirty books."""
    return make_state(layout.state, 30)


@pytest.fixture
def tick(tickwork: Tickwork, fake: Fake) -> Callable[..., Said]:
    """One embedding pass, with batches of four texts."""

    def run(*options: str, **vectors: object) -> Said:
        return tickwork("embed", "doab", *options, config=config("fake/model", **{"batch_tokens": 4, **vectors}))

    return run


Tick = Callable[..., Said]


def right(state: Path, fake: Fake) -> bool:
    """Whether every live document has the vector of its present text, and no other document has one."""
    with documents(state) as db:
        truth = {one.id: np.array(fake.vector(embedded(one)), np.float16) for one in DOAB.after(db, 0, 10_000)}
    found = {number: vector for number, vector in stored(state).items() if vector is not None}
    return found.keys() == truth.keys() and all((found[number] == truth[number]).all() for number in truth)


def restore(state: Path, copy: Path) -> None:
    for name in ("doab.db", "doab.db-wal", "doab.db-shm"):
        (state / "db" / name).unlink(missing_ok=True)
    shutil.copyfile(copy, state / "db" / "doab.db")


def backup(state: Path) -> Path:
    target = state.parent / "copy.db"
    target.unlink(missing_ok=True)
    with documents(state) as db:
        db.execute("COMMIT")
        db.execute("VACUUM INTO ?", (str(target),))
        db.execute("BEGIN")
    return target


# Bounds.


def test_a_pass_embeds_everything_and_the_next_one_nothing(tick: Tick, state: Path, fake: Fake) -> None:
    assert tick().code == 0
    assert right(state, fake)
    assert len(fake.texts) == 30
    said = tick()
    assert said.code == 0
    assert "items=0" in said.err
    assert len(fake.texts) == 30
    assert fake.loaded == 1, "nothing to do needs no model"


@pytest.mark.parametrize("limit", [3, 7, 10, 29])
def test_passes_of_a_few_texts_end_with_more_until_none_is_left(
    tick: Tick, state: Path, fake: Fake, limit: int
) -> None:
    codes, done = [], 0
    while not codes or codes[-1] == MORE:
        codes.append(tick("--limit", str(limit)).code)
        assert len(stored(state)) == min(30, done + limit), "not one text more than asked for"
        done += limit
        assert len(codes) < 40
    assert codes == [MORE] * (30 // limit) + [0]
    assert right(state, fake)
    assert len(fake.texts) == len(set(fake.texts)) == 30


def test_a_pass_without_time_commits_one_unit_and_ends_with_more(tick: Tick, state: Path, fake: Fake) -> None:
    codes = []
    while not codes or codes[-1] == MORE:
        codes.append(tick("--seconds", "0").code)
        assert len(stored(state)) == min(30, 4 * len(codes))
        assert len(codes) < 20
    assert len(codes) > 30 // 4
    assert right(state, fake)
    assert len(fake.texts) == 30


def test_the_windows_of_a_long_feed_follow_each_other(
    tick: Tick, state: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "WINDOW", 7)
    assert tick("--limit", "10").code == MORE
    assert tick().code == 0
    assert right(state, fake)
    assert len(fake.texts) == 30


def test_the_backlog_is_what_is_left(tick: Tick, state: Path) -> None:
    assert "backlog=22" in tick("--limit", "8").err
    assert "backlog=0" in tick().err


def test_without_documents_there_is_nothing_to_do(tickwork: Tickwork, layout: Layout, fake: Fake) -> None:
    assert tickwork("embed", "doab").code == 0
    assert not layout.database("doab-vectors").exists()
    make_state(layout.state, 0)
    assert tickwork("embed", "doab").code == 0
    assert fake.loaded == 0


# Changes.


def test_another_text_is_embedded_again_and_only_that(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    fake.texts.clear()
    change(state, 3, title="Bees")
    change(state, 31, title="Wasps")
    assert tick().code == 0
    assert [text.partition("\n")[0] for text in fake.texts] == ["Bees", "Wasps"]
    assert right(state, fake)


def test_a_change_that_is_not_of_the_text_embeds_nothing(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    change(state, 3, licence="other", year=1900)
    change(state, 4, last_changed="later")
    said = tick()
    assert said.code == 0
    assert len(fake.texts) == 30
    assert fake.loaded == 1
    assert right(state, fake)


def test_a_deleted_document_s_vector_is_dropped(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    delete(state, 2, 30)
    with documents(state) as db:
        db.execute("DELETE FROM records WHERE id = 7")
    assert tick().code == 0
    assert stored(state).keys() == set(range(1, 31)) - {2, 7, 30}
    assert len(fake.texts) == 30


def test_a_document_that_comes_back_is_embedded_again(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    with documents(state) as db:
        before = db.execute("SELECT * FROM records WHERE id = 2").fetchone()
    delete(state, 2)
    tick()
    change(state, 2, **{name: before[name] for name in before.keys()})  # noqa: SIM118
    tick()
    assert right(state, fake)


# Texts that cannot be embedded.


def test_a_text_that_fails_is_recorded_and_the_others_are_embedded(tick: Tick, state: Path, fake: Fake) -> None:
    fake.cannot = ("volume 5\n", "volume 17\n")
    said = tick()
    assert said.code == 0
    assert "2 texts could not be embedded, the first that of document 5" in said.err
    found = stored(state)
    assert [number for number, vector in found.items() if vector is None] == [5, 17]
    assert len(found) == 30
    with VectorStore.open(Layout.under(state).database("doab-vectors"), read_only=True) as store:
        assert store.faults() == [(5, embed.NO_VECTOR), (17, embed.NO_VECTOR)]
        assert store.counts() == (28, 2)


def test_a_text_that_failed_is_tried_again_when_it_is_another(tick: Tick, state: Path, fake: Fake) -> None:
    fake.cannot = ("volume 5\n",)
    tick()
    fake.cannot = ()
    assert tick().code == 0
    assert stored(state)[5] is None, "not at every tick"
    change(state, 5, title="Bees")
    assert tick().code == 0
    assert right(state, fake)


def test_a_failing_text_does_not_end_a_limited_pass_early(tick: Tick, state: Path, fake: Fake) -> None:
    fake.cannot = tuple(f"volume {number}\n" for number in range(1, 16))
    assert tick("--limit", "5").code == MORE
    assert sum(vector is not None for vector in stored(state).values()) == 5
    while tick("--limit", "5").code == MORE:
        pass
    assert len(stored(state)) == 30
    assert len(fake.texts) == 15


def test_a_document_without_text_is_recorded_without_a_model(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    nothing = dict.fromkeys(("title", "description", "publisher", "doi"), "")
    change(state, 4, **nothing, creators=[], subjects=[], isbns=[], handle=None)
    assert tick().code == 0
    assert stored(state)[4] is None
    assert fake.loaded == 1
    with VectorStore.open(Layout.under(state).database("doab-vectors"), read_only=True) as store:
        assert store.faults() == [(4, embed.NO_TEXT)]


# Models.


def test_another_model_embeds_everything_anew_in_bounded_passes(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    fake.texts.clear()
    fake.name = "second"
    assert tick("--limit", "12", prefix="x").code == MORE
    with VectorStore.open(Layout.under(state).database("doab-vectors"), read_only=True) as store:
        assert sorted((info.fingerprint.split()[0], n) for info, n in store.models()) == [("first", 18), ("second", 12)]
    assert tick(prefix="x").code == 0
    assert right(state, fake)
    assert len(fake.texts) == len(set(fake.texts)) == 30


def test_back_to_the_old_model_half_way_embeds_only_what_the_other_did(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    fake.name = "second"
    tick("--limit", "12", prefix="x")
    fake.texts.clear()
    fake.name = "first"
    assert tick().code == 0
    assert right(state, fake)
    assert len(fake.texts) == 12


@pytest.mark.parametrize("option", [{"max_tokens": 100}, {"query_prefix": "q: "}, {"revision": "1" * 40}])
def test_settings_of_the_model_that_change_are_noticed_without_a_change_of_a_text(
    tick: Tick, fake: Fake, state: Path, option: dict[str, object]
) -> None:
    tick()
    fake.name = "second"
    assert tick().code == 0
    assert len(fake.texts) == 30, "an idle tick reads no model's files"
    tick(**option)
    assert len(fake.texts) == 60
    assert right(state, fake)


@pytest.mark.parametrize("option", [{"threads": 3}, {"dtype": "bfloat16"}, {"batch_tokens": 9}, {"nprobe": 1}])
def test_how_it_is_computed_may_change_without_embedding_anew(
    tick: Tick, fake: Fake, state: Path, option: dict[str, object]
) -> None:
    tick()
    assert tick(**option).code == 0
    assert len(fake.texts) == 30


# Restored copies.


def test_documents_restored_from_an_older_copy_get_their_old_vectors(tick: Tick, state: Path, fake: Fake) -> None:
    tick()
    copy = backup(state)
    change(state, 5, title="Bees")
    change(state, 31)
    change(state, 32)
    tick()
    assert 32 in stored(state)
    restore(state, copy)
    fake.texts.clear()
    assert tick().code == 0
    assert right(state, fake)
    assert stored(state).keys() == set(range(1, 31))
    assert len(fake.texts) == 1, "what did not change is not embedded again"


def test_other_changes_after_a_restore_are_not_taken_for_those_of_before(tick: Tick, state: Path, fake: Fake) -> None:
    """As many changes as there were: a number counted up would be the same, and the vectors those of other texts."""
    tick()
    copy = backup(state)
    change(state, 5, title="Bees")
    change(state, 31, title="Wasps")
    tick()
    restore(state, copy)
    change(state, 6, title="Flies")
    change(state, 31, title="Moths")
    assert tick().code == 0
    assert right(state, fake)


def test_a_copy_restored_in_the_midst_of_the_work_is_noticed_as_well(
    tick: Tick, state: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "WINDOW", 29)
    copy = backup(state)
    change(state, 5, title="Bees")
    change(state, 31)
    assert tick("--limit", "30").code == MORE
    assert 5 in stored(state), "embedded at a change that the copy has not, and not yet followed up to there"
    restore(state, copy)
    change(state, 6, title="Flies")
    assert tick().code == 0
    assert right(state, fake)


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
    tick: Tick, state: Path, fake: Fake, what: type, name: str, before: bool, count: int
) -> None:
    killed_at(count, what, name, before, tick)
    committed = len(stored(state))
    assert committed == min(30, 4 * (count if name == "spend" else count - 1))
    assert tick().code == 0
    assert right(state, fake)
    assert len(fake.texts) == 30 - committed


@pytest.mark.slow
def test_a_pass_with_a_real_model_killed_and_resumed_equals_one_that_was_not(
    tickwork: Tickwork, state: Path, tmp_path: Path
) -> None:
    settings = config(tiny_model(tmp_path / "model"), batch_tokens=60)
    (tmp_path / "tickwork.toml").write_text(settings)
    command = [sys.executable, "-m", "tickwork", "--config", str(tmp_path / "tickwork.toml"), "--state", str(state)]
    with subprocess.Popen([*command, "embed", "doab"], stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: process.poll() is not None or _count(state) > 0)
        process.kill()
    done = len(stored(state))
    assert done > 0
    said = tickwork("embed", "doab", config=settings)
    assert said.code == 0
    assert done == 30 or f"items={30 - done} " in said.err
    whole = make_state(tmp_path / "whole", 30)
    assert tickwork("--state", str(whole), "embed", "doab", config=settings).code == 0
    resumed, truth = stored(state), stored(whole)
    assert resumed.keys() == truth.keys() == set(range(1, 31))
    for number, vector in truth.items():
        assert vector is not None
        np.testing.assert_allclose(vector.astype(float) @ np.asarray(resumed[number], float), 1, atol=2e-3)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def _count(state: Path) -> int:
    path = state / "db" / "doab-vectors.db"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
    except sqlite3.Error:
        return 0


# An idle tick.

IDLE = """
import sys, time
from tickwork.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    heavy = sorted({"torch", "transformers", "faiss", "numpy"} & set(sys.modules))
    print(end.code, round(time.process_time(), 1), *heavy)
"""


@pytest.mark.parametrize("bounds", [[], ["--limit", "5"]])
def test_an_idle_tick_opens_no_torch_and_takes_a_moment(
    tick: Tick, state: Path, tmp_path: Path, bounds: list[str]
) -> None:
    tick()
    change(state, 3, pages="7", last_changed="now")
    tick()
    options = ["--config", str(tmp_path / "tickwork.toml"), "--state", str(state)]
    out = subprocess.check_output([sys.executable, "-c", IDLE, *options, "embed", "doab", *bounds], text=True)
    code, seconds, *heavy = out.split()
    assert (code, heavy) == ("0", [])
    assert float(seconds) < 3, "of the processor; torch alone takes more"
