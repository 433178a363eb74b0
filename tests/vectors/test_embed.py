"""The embedding pass: bounded, nothing embedded twice, nothing lost, whatever happens to the documents meanwhile."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.kits.operate import Tickwork
from tests.kits.vectors import FakeModel, change, delete, documents, make_state, right, stored
from tickwork.contract import database
from tickwork.contract.paths import Paths
from tickwork.vectors import embed
from tickwork.vectors.store import VectorStore

MORE = 3


# Bounds.


def test_a_pass_embeds_everything_and_the_next_one_nothing(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    assert embed_doab().code == 0
    assert right(books, fake_model)
    assert len(fake_model.texts) == 30
    said = embed_doab()
    assert said.code == 0
    assert "items=0" in said.err
    assert len(fake_model.texts) == 30
    assert fake_model.loaded == 1, "nothing to do needs no model"


@pytest.mark.parametrize("limit", [3, 7, 10, 29])
def test_passes_of_a_few_texts_end_with_more_until_none_is_left(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel, limit: int
) -> None:
    codes, done = [], 0
    while not codes or codes[-1] == MORE:
        codes.append(embed_doab("--limit", str(limit)).code)
        assert len(stored(books)) == min(30, done + limit), "not one text more than asked for"
        done += limit
        assert len(codes) < 40
    assert codes == [MORE] * (30 // limit) + [0]
    assert right(books, fake_model)
    assert len(fake_model.texts) == len(set(fake_model.texts)) == 30


def test_a_pass_without_time_commits_one_unit_and_ends_with_more(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    codes = []
    while not codes or codes[-1] == MORE:
        codes.append(embed_doab("--seconds", "0").code)
        assert len(stored(books)) == min(30, 4 * len(codes))
        assert len(codes) < 20
    assert len(codes) > 30 // 4
    assert right(books, fake_model)
    assert len(fake_model.texts) == 30


def test_the_windows_of_a_long_feed_follow_each_other(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "WINDOW", 7)
    assert embed_doab("--limit", "10").code == MORE
    assert embed_doab().code == 0
    assert right(books, fake_model)
    assert len(fake_model.texts) == 30


def test_the_backlog_is_what_is_left(embed_doab: Tickwork, books: Path) -> None:
    assert "backlog=22" in embed_doab("--limit", "8").err
    assert "backlog=0" in embed_doab().err


def test_without_documents_there_is_nothing_to_do(tickwork: Tickwork, paths: Paths, fake_model: FakeModel) -> None:
    assert tickwork("embed", "doab").code == 0
    assert not paths.database("doab-vectors").exists()
    make_state(paths.state, 0)
    assert tickwork("embed", "doab").code == 0
    assert fake_model.loaded == 0


def test_documents_of_before_the_feed_of_changes_wait_for_their_next_writer(
    tickwork: Tickwork, paths: Paths, fake_model: FakeModel
) -> None:
    with closing(database.connect(paths.database("doab"))):
        pass
    said = tickwork("embed", "doab")
    assert said.code == MORE
    assert "no feed of changes yet" in said.err
    assert not paths.database("doab-vectors").exists()
    make_state(paths.state, 5)
    assert tickwork("embed", "doab").code == 0
    assert right(paths.state, fake_model)


# Changes.


def test_another_text_is_embedded_again_and_only_that(embed_doab: Tickwork, books: Path, fake_model: FakeModel) -> None:
    embed_doab()
    fake_model.texts.clear()
    change(books, 3, title="Bees")
    change(books, 31, title="Wasps")
    assert embed_doab().code == 0
    assert [text.partition("\n")[0] for text in fake_model.texts] == ["Bees", "Wasps"]
    assert right(books, fake_model)


def test_a_change_that_is_not_of_the_text_embeds_nothing(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    embed_doab()
    change(books, 3, licence="other", year=1900)
    change(books, 4, last_changed="later")
    said = embed_doab()
    assert said.code == 0
    assert len(fake_model.texts) == 30
    assert fake_model.loaded == 1
    assert right(books, fake_model)


def test_a_deleted_document_s_vector_is_dropped(embed_doab: Tickwork, books: Path, fake_model: FakeModel) -> None:
    embed_doab()
    delete(books, 2, 30)
    with documents(books) as db:
        db.execute("DELETE FROM records WHERE id = 7")
    assert embed_doab().code == 0
    assert stored(books).keys() == set(range(1, 31)) - {2, 7, 30}
    assert len(fake_model.texts) == 30


def test_a_document_that_comes_back_is_embedded_again(embed_doab: Tickwork, books: Path, fake_model: FakeModel) -> None:
    embed_doab()
    with documents(books) as db:
        before = db.execute("SELECT * FROM records WHERE id = 2").fetchone()
    delete(books, 2)
    embed_doab()
    change(books, 2, **{name: before[name] for name in before.keys()})  # noqa: SIM118
    embed_doab()
    assert right(books, fake_model)


# Texts that cannot be embedded.


def test_a_text_that_fails_is_recorded_and_the_others_are_embedded(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    fake_model.cannot = ("volume 5\n", "volume 17\n")
    said = embed_doab()
    assert said.code == 0
    assert "texts that could not be embedded: 2, the first is that of document 5" in said.err
    found = stored(books)
    assert [number for number, vector in found.items() if vector is None] == [5, 17]
    assert len(found) == 30
    with VectorStore.open(Paths.under(books).database("doab-vectors"), read_only=True) as store:
        assert store.faults() == [(5, embed.NO_VECTOR), (17, embed.NO_VECTOR)]
        assert store.counts() == (28, 2)


def test_a_text_that_failed_is_tried_again_when_it_is_another(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    fake_model.cannot = ("volume 5\n",)
    embed_doab()
    fake_model.cannot = ()
    assert embed_doab().code == 0
    assert stored(books)[5] is None, "not at every tick"
    change(books, 5, title="Bees")
    assert embed_doab().code == 0
    assert right(books, fake_model)


def test_a_failing_text_does_not_end_a_limited_pass_early(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    fake_model.cannot = tuple(f"volume {number}\n" for number in range(1, 16))
    assert embed_doab("--limit", "5").code == MORE
    assert sum(vector is not None for vector in stored(books).values()) == 5
    while embed_doab("--limit", "5").code == MORE:
        pass
    assert len(stored(books)) == 30
    assert len(fake_model.texts) == 15


def test_a_document_without_text_is_recorded_without_a_model(
    embed_doab: Tickwork, books: Path, fake_model: FakeModel
) -> None:
    embed_doab()
    nothing = dict.fromkeys(("title", "description", "publisher", "doi"), "")
    change(books, 4, **nothing, creators=[], subjects=[], isbns=[], handle=None)
    assert embed_doab().code == 0
    assert stored(books)[4] is None
    assert fake_model.loaded == 1
    with VectorStore.open(Paths.under(books).database("doab-vectors"), read_only=True) as store:
        assert store.faults() == [(4, embed.NO_TEXT)]


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
    embed_doab: Tickwork, books: Path, tmp_path: Path, bounds: list[str]
) -> None:
    embed_doab()
    change(books, 3, pages="7", last_changed="now")
    embed_doab()
    options = ["--config", str(tmp_path / "tickwork.toml"), "--state", str(books)]
    out = subprocess.check_output([sys.executable, "-c", IDLE, *options, "embed", "doab", *bounds], text=True)
    code, seconds, *heavy = out.split()
    assert (code, heavy) == ("0", [])
    assert float(seconds) < 3, "of the processor; torch alone takes more"
