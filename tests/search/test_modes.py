"""Searching a generation by words, by meaning and by both; vectors are set by hand, so that what is near is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.kits.vectors import DOAB, change, make_state, random_vectors, store_vectors
from tickwork.cli import main
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.generation.generations import Generations
from tickwork.search import searcher as module
from tickwork.search.filters import parse
from tickwork.search.searcher import Hit, Mode, Searcher, _fused, _scaled
from tickwork.vectors.exact_search import Vectors

ABOUT = np.eye(8)
BEES, WASPS, SOIL, OTHER = ABOUT[:4]
# id: title, text, year, vector
BOOKS = {
    1: ("Bees", "Bees and honey.", 2010, BEES),
    2: ("Hives", "On keeping insects that make honey.", 2020, BEES + 0.5 * WASPS),
    3: ("Wasps", "Bees have enemies.", 2015, WASPS),
    4: ("Soil", f"{'Of earth and worms. ' * 40}At last a word on bees.", 2020, SOIL),
    5: ("Without vector", "honey honey honey", 2020, None),
    6: ("蜜蜂", "蜜蜂" * 400, None, OTHER),
}
QUERIES = {"bees": BEES, "honey": BEES, "insects": 0.8 * BEES + 0.6 * WASPS, "worms  bees": SOIL, "nothing": OTHER}


def encode(texts: Sequence[str]) -> Vectors:
    return np.array([QUERIES.get(text, ABOUT[7]) for text in texts], np.float16)


def published(state: Path, config: str = "") -> Path:
    path = state.parent / "tickwork.toml"
    path.write_text(config)
    with pytest.raises(SystemExit) as end:
        main(["--config", str(path), "--state", str(state), "publish", "doab"])
    assert end.value.code == 0
    return state


@contextmanager
def opened(state: Path, words_weight: float = 0.6) -> Iterator[Searcher]:
    generation = Generations(Paths.under(state), "doab").current()
    assert generation
    with Searcher.open(DOAB, generation, encode, words_weight) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "state"
    for number, (title, text, year, _) in BOOKS.items():
        change(folder, number, title=title, description=text, year=year, subjects=[], creators=[])
    store_vectors(folder, {n: vector for n, (_, _, _, vector) in BOOKS.items() if vector is not None})
    return published(folder)


@pytest.fixture
def searcher(state: Path) -> Iterator[Searcher]:
    with opened(state) as found:
        yield found


def ids(hits: Sequence[Hit]) -> list[int]:
    return [hit.id for hit in hits]


# Modes.


def test_by_words_finds_what_has_any_of_them_best_first(searcher: Searcher) -> None:
    hits = searcher.search("bees", "words", 10)
    assert ids(hits)[0] == 1, "in the title and in a short text"
    assert set(ids(hits)) == {1, 3, 4}
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_by_meaning_finds_what_is_near_best_first_by_its_cosine(searcher: Searcher) -> None:
    hits = searcher.search("bees", "meaning", 3)
    assert ids(hits)[:2] == [1, 2]
    assert [hit.score for hit in hits] == pytest.approx([1, 1 / np.sqrt(1.25), 0], abs=1e-3)


def test_what_has_no_vector_is_found_by_words_and_never_by_meaning(searcher: Searcher) -> None:
    assert 5 in ids(searcher.search("honey", "words", 10))
    assert 5 not in ids(searcher.search("honey", "meaning", 10))
    assert 5 in ids(searcher.search("honey", "both", 10))


def test_by_both_finds_what_either_does(searcher: Searcher) -> None:
    words, meaning = (set(ids(searcher.search("insects", mode, 10))) for mode in ("words", "meaning"))
    assert words == {2}
    assert set(ids(searcher.search("insects", "both", 10))) == words | meaning


def test_the_score_by_both_is_the_weighted_sum_of_the_scaled_scores() -> None:
    words = {1: 10.0, 2: 6.0, 3: 2.0}
    meaning = {2: 0.9, 3: 0.7, 4: 0.5}
    # scaled: words 1, .5, 0; meaning 1, .5, 0
    fused = _fused(words, meaning, 0.6)
    assert fused == pytest.approx({1: 0.6, 2: 0.3 + 0.4, 3: 0.2, 4: 0.0})
    assert _fused(words, {}, 0.6) == pytest.approx({1: 0.6, 2: 0.3, 3: 0.0})
    assert _fused({}, {}, 0.6) == {}


def test_scores_that_are_all_the_same_are_all_the_best() -> None:
    assert _scaled({1: 3.0}) == {1: 1.0}
    assert _scaled({1: -3.0, 2: -3.0}) == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("query", ["bees", "insects", "worms  bees", "nothing"])
def test_a_search_by_both_is_the_fusion_of_the_two(state: Path, query: str, weight: float) -> None:
    with opened(state, weight) as searcher:
        words = {hit.id: hit.score for hit in searcher.search(query, "words", 100)}
        meaning = {hit.id: hit.score for hit in searcher.search(query, "meaning", 100)}
        expected = _fused(words, meaning, weight)
        hits = searcher.search(query, "both", 100)
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected)
        assert ids(hits) == sorted(ids(hits), key=lambda item: (-expected[item], item))


def test_the_limit_cuts_the_same_ranking_off(searcher: Searcher) -> None:
    modes: tuple[Mode, ...] = ("words", "meaning", "both")
    for mode in modes:
        whole = searcher.search("honey", mode, 100)
        for limit in range(1, 5):
            assert searcher.search("honey", mode, limit) == whole[:limit]


@pytest.mark.parametrize("mode", ["words", "meaning", "both"])
@pytest.mark.parametrize("query", ["", "  ", "\t"])
def test_nothing_asked_is_nothing_found(searcher: Searcher, mode: Mode, query: str) -> None:
    assert searcher.search(query, mode, 10) == []


@pytest.mark.parametrize("query", ["\ud800", "\0", '"', "*", "a" * 100_000])
def test_any_query_is_answered(searcher: Searcher, query: str) -> None:
    for mode in ("words", "both"):
        searcher.search(query, mode, 10)


# Filters.


@pytest.mark.parametrize("mode", ["words", "meaning", "both"])
def test_filters_hold_in_every_mode(searcher: Searcher, mode: Mode) -> None:
    hits = searcher.search("honey", mode, 10, parse(DOAB, ["year>=2015"]))
    assert hits
    assert {BOOKS[hit.id][2] for hit in hits} <= {2015, 2020}
    assert searcher.search("honey", mode, 10, parse(DOAB, ["year>=3000"])) == []


def test_filtered_scores_are_those_of_the_unfiltered(searcher: Searcher) -> None:
    whole = {hit.id: hit.score for hit in searcher.search("insects", "meaning", 10)}
    some = {hit.id: hit.score for hit in searcher.search("insects", "meaning", 10, parse(DOAB, ["year=2020"]))}
    assert some == pytest.approx({item: whole[item] for item in (2, 4)}, abs=1e-3)


def test_filters_that_many_items_pass_are_given_to_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state(tmp_path / "state", 400)
    store_vectors(state, vectors := random_vectors(range(1, 401), dim=8))
    published(state, "[vectors]\nnlist = 4\nnprobe = 4\nthreads = 1\n")
    filters = parse(DOAB, ["language=eng"])
    with opened(state) as searcher:
        compared = searcher.search("bees", "meaning", 20, filters)
        monkeypatch.setattr(module, "ALL_BELOW", 10)
        monkeypatch.setattr(Searcher, "_open_matrix", searcher._open_matrix)
        indexed = searcher.search("bees", "meaning", 20, filters)
    assert ids(indexed) == ids(compared)
    assert [hit.score for hit in indexed] == pytest.approx([hit.score for hit in compared], abs=1e-3)
    best = max((n for n in vectors if n in set(ids(compared))), key=lambda n: float(vectors[n] @ BEES))
    assert ids(indexed)[0] == best


# Snippets.


def test_a_snippet_shows_the_query_s_words_wherever_they_are(searcher: Searcher) -> None:
    snippets = {hit.id: hit.snippet for hit in searcher.search("bees", "words", 10)}
    assert "word on bees" in snippets[4]
    assert snippets[4].startswith("…")
    assert all("bees" in snippet.lower() for snippet in snippets.values())


def test_without_the_words_a_snippet_is_the_beginning_of_the_text(searcher: Searcher) -> None:
    snippets = {hit.id: hit.snippet for hit in searcher.search("nothing", "meaning", 10)}
    assert snippets[1] == "Bees and honey."
    assert snippets[4].startswith("Of earth and worms. Of earth")
    assert snippets[4].endswith(" …")
    assert len(snippets[4]) < 250
    assert snippets[4].removesuffix(" …").rpartition(" ")[2] in {"Of", "earth", "and", "worms."}, "words are whole"
    assert len(snippets[6]) > 200, "also of a text without spaces"


# Similar items.


def test_similar_items_are_those_published_best_first(searcher: Searcher) -> None:
    hits = searcher.similar_to(1, 10)
    assert ids(hits)[0] == 2
    assert 1 not in ids(hits)
    assert set(ids(hits)) == {2, 3, 4, 6}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert searcher.similar_to(1, 2) == hits[:2]
    assert searcher.similar_to(5, 10) == [], "without a vector nothing is known to be like it"


def test_an_item_is_found_by_its_id_and_by_its_identifier(searcher: Searcher) -> None:
    assert searcher.find("3") == searcher.find("oai:directory.doabooks.org:20.500.12854/3") == 3


@pytest.mark.parametrize("name", ["99", "", "-1", "3.0", "٣", "9" * 30, "oai:nobody", "\ud800", "' OR 1=1 --"])
def test_an_unknown_item_is_told_by_its_name(searcher: Searcher, name: str) -> None:
    with pytest.raises(OperatorError, match="doab has no item "):
        searcher.find(name)


# Before anything is embedded.


def test_without_vectors_words_find_and_meaning_says_what_to_do(tmp_path: Path) -> None:
    state = published(make_state(tmp_path / "state", 5))
    with opened(state) as searcher:
        assert ids(searcher.search("volume", "words", 10))
        modes: tuple[Mode, ...] = ("meaning", "both")
        for mode in modes:
            with pytest.raises(
                OperatorError, match=r"the current generation of doab has no vectors.*embed doab.*--mode words"
            ):
                searcher.search("volume", mode, 10)
        assert searcher.similar_to(1, 10) == []
        words = {hit.id: hit.score for hit in searcher.search("volume", "words", 10)}
        alone = {hit.id: hit.score for hit in searcher.search("volume", "both", 10, meaning=False)}
        assert alone == pytest.approx(_fused(words, {}, 0.6))
        assert searcher.search("volume", "meaning", 10, meaning=False) == []


def test_a_model_of_another_size_than_the_vectors_is_told_of(tmp_path: Path) -> None:
    state = make_state(tmp_path / "state", 5)
    store_vectors(state, random_vectors(range(1, 6), dim=16))
    with opened(published(state)) as searcher, pytest.raises(OperatorError, match=r"gives 8 numbers.* have 16"):
        searcher.search("bees", "meaning", 10)
