"""Below the pages: the model of queries, editions shared by threads, how items are shown, the shapes of the API."""

from __future__ import annotations

import csv
import io
import json
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kits.serve import BOOKS, Catalogue, ModelByHand, Served, served
from tests.kits.vectors import DOAB, by_hand, config, tiny_model
from tickwork.contract.outcomes import OperatorError
from tickwork.corpus.display import Shown
from tickwork.search.searcher import Searcher
from tickwork.serve import encoder as encoder_module
from tickwork.serve import routes as routes_module
from tickwork.serve.encoder import Encoder, NotReadyError
from tickwork.serve.open_generation import THREADS, OpenGeneration
from tickwork.serve.search_result import SECONDS
from tickwork.sources.doab.display import DISPLAY
from tickwork.vectors.settings import VectorSettings


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("api")) as service:
        yield service


@pytest.fixture
def edition(tmp_path: Path) -> Iterator[OpenGeneration]:
    deployment = Catalogue(tmp_path)
    edition = OpenGeneration(DOAB, deployment.publish(BOOKS), None, 0.6)
    yield edition
    edition.close()


# The model.


def encoder() -> Encoder:
    return Encoder(by_hand(), VectorSettings(), "title and text")


def test_before_the_model_is_loaded_nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, one = ModelByHand(monkeypatch), encoder()
    assert not one.ready
    with pytest.raises(NotReadyError, match="being loaded"):
        one.encode(["bees"])
    one.load()
    assert one.ready
    assert one.encode(["bees", "worms"]).shape == (2, 8)
    assert model.loaded == 1


def test_a_model_is_loaded_once_by_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model, one = ModelByHand(monkeypatch), encoder()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: one.load(), range(8)))
    assert model.loaded == 1


def test_what_is_wrong_with_a_model_is_told_until_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OperatorError("no such model")

    one = encoder()
    monkeypatch.setattr("tickwork.vectors.model.load_for", refuse)
    one.load()
    assert (one.ready, one.trouble) == (False, "no such model")
    with pytest.raises(NotReadyError, match="no such model"):
        one.encode(["bees"])
    ModelByHand(monkeypatch)
    one.load()
    assert (one.ready, one.trouble) == (True, "")


def test_vectors_of_queries_are_remembered_and_the_oldest_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "REMEMBERED", 3)
    model, one = ModelByHand(monkeypatch), encoder()
    one.load()
    model.asked.clear()
    for text in ("a", "b", "a", "c", "a", "d", "a", "b"):
        one.encode([text])
    assert model.asked == ["a", "b", "c", "d", "b"], "a was asked for all the time, b was forgotten"
    assert np.array_equal(one.encode(["a", "b", "a"])[0], one.encode(["a"])[0])


def test_many_threads_ask_for_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "REMEMBERED", 3)
    _, one = ModelByHand(monkeypatch), encoder()
    one.load()
    texts = ["bees", "honey", "insects", "worms", "x"] * 100
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda text: one.encode([text]), texts))
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(vector, one.encode([text]))


@pytest.mark.slow
def test_a_real_model_gives_queries_the_vectors_of_the_search(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path, config(tiny_model(tmp_path / "model")))
    deployment.put({number: {k: v for k, v in book.items() if k != "vector"} for number, book in BOOKS.items()})
    deployment.good("embed", "doab")
    deployment.good("publish", "doab")
    settings = VectorSettings(model=str(tmp_path / "model"), dtype="float32", threads=1)
    with Served(deployment.library(settings)) as service:
        service.until(lambda: service.health()["meaning"] == "ready")
        said = service.ask("/api/search?q=Wasps%20%20Bees%20have%20enemies.&mode=meaning").json()
        assert len(said["results"]) == 6
        assert said["results"][0]["title"] == "Wasps"


# Editions.


def test_each_thread_has_a_searcher_of_its_own_and_no_more_can_search(edition: OpenGeneration) -> None:
    held = [edition.searcher(1) for _ in range(THREADS)]
    searchers = [one.__enter__() for one in held]
    assert len(set(map(id, searchers))) == THREADS
    with pytest.raises(queue.Empty), edition.searcher(0.05):
        pass
    for one in held:
        one.__exit__(None, None, None)
    with edition.searcher(0.05):
        pass


def test_a_closed_edition_closes_when_the_last_one_leaves(edition: OpenGeneration) -> None:
    with edition.searcher(1) as searcher:
        edition.close()
        assert not edition.is_closed
        assert searcher.items([1])[1]["title"] == "Bees"
    assert edition.is_closed


def test_sql_that_takes_too_long_is_ended(edition: OpenGeneration) -> None:
    forever = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with edition.searcher(1) as searcher:
        searcher.give_up_after(0.2)
        begun = time.monotonic()
        with pytest.raises(Exception, match="interrupted"):
            searcher.connection.execute(forever).fetchone()
        assert time.monotonic() - begun < SECONDS


# Answers under pressure.


def test_too_many_at_once_are_told_to_come_again(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.serve.search_result.SECONDS", 0.2)
    go, edition = threading.Event(), service.library.open_generations()["doab"]
    held = [edition.searcher(1) for _ in range(THREADS)]
    for one in held:
        one.__enter__()
    try:
        answer = service.ask("/api/search?q=bees&mode=words")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "try again" in answer.json()["error"]
        assert service.ask("/?q=bees").page.titled(1) == ["Not now"]
        assert service.ask("/handle/20.500.12854/1").status == 503
    finally:
        go.set()
        for one in held:
            one.__exit__(None, None, None)
    assert service.ask("/api/search?q=bees&mode=words").status == 200


def test_an_answer_that_takes_too_long_is_given_up(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(Searcher, "search", lambda *_, **_more: time.sleep(1))
    answer = service.ask("/?q=bees&mode=words")
    assert answer.status == 503
    assert "took too long" in answer.page.text


def test_what_nobody_foresaw_is_a_page_without_details(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_more: object) -> None:
        raise RuntimeError("secret path /srv/x")

    monkeypatch.setattr(Searcher, "search", fail)
    answer = service.ask("/?q=bees&mode=words")
    assert answer.status == 500
    assert "in the server's log" in answer.page.text
    assert "secret" not in answer.text
    assert service.ask("/api/search?q=bees&mode=words").json() == {
        "error": "Something went wrong here; it is in the server's log."
    }


# Shapes.


def test_an_answer_of_the_api(service: Served) -> None:
    said = service.ask("/api/search?q=bees&mode=words&limit=1&f=language%3Deng").json()
    (result,) = said.pop("results")
    generation = service.health()["generation"]
    assert said == {
        "query": "bees",
        "mode": "words",
        "total": 1,
        "notice": "",
        "generations": {"doab": generation},
        "counts": {
            "language": [{"value": "eng", "count": 1}],
            "licence": [{"value": "https://creativecommons.org/licenses/by/4.0/", "count": 1}],
            "type": [{"value": "book", "count": 1}],
            "year": [{"value": "2010", "count": 1}],
        },
    }
    assert result.pop("score") > 0
    assert result.pop("fields")["year"] == ["2010"]
    assert result == {
        "corpus": "doab",
        "id": 1,
        "identifier": "oai:directory.doabooks.org:20.500.12854/1",
        "title": "Bees",
        "url": "https://directory.doabooks.org/handle/20.500.12854/1",
        "snippet": "Bees and honey.",
    }


def test_similar_items_of_the_api(service: Served) -> None:
    said = service.ask("/api/items/doab/1/similar?limit=2").json()
    assert [one["id"] for one in said["results"]] == [2, 3]
    assert service.ask("/api/items/doab/1/similar?limit=0").status == 400
    assert service.ask("/api/items/doab/99/similar").status == 404


@pytest.mark.parametrize("target", ["/api", "/api/", "/api/nothing", "/api/items/doab", "/api/items/doab/x"])
def test_the_api_says_not_found_in_json(service: Served, target: str) -> None:
    answer = service.ask(target)
    assert answer.status == 404
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    ("method", "target", "status"), [("POST", "/api/search", 405), ("GET", "/api/search?q=" + "x" * 9000, 414)]
)
def test_a_refusal_of_the_api_is_json_as_well(service: Served, method: str, target: str, status: int) -> None:
    answer = service.ask(target, method)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json; charset=utf-8")
    assert set(answer.json()) == {"error"}


def test_exports_of_datasette_have_everything(service: Served) -> None:
    rows = service.ask("/doab/items.json?_shape=array").json()
    assert [row["title"] for row in rows] == [book["title"] for book in BOOKS.values()]
    assert json.loads(rows[0]["subjects"]) == []
    lines = list(csv.DictReader(io.StringIO(service.ask("/doab/items.csv?_stream=on").text)))
    assert [line["title"] for line in lines] == [row["title"] for row in rows]


# How items are shown.


def test_a_book_s_fields_lead_to_where_they_are_at_home() -> None:
    books = DISPLAY
    assert books.brief == ("creators", "publisher", "year")
    assert books.shown["doi"]("10.5555/a b") == Shown("10.5555/a b", "https://doi.org/10.5555/a%20b")
    assert books.shown["licence"]("https://x.example/by/") == Shown("x.example/by/", "https://x.example/by/")
    assert books.shown["licence"]("CC BY") == Shown("CC BY", "")


def test_without_a_display_pages_show_values_as_they_are(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path)
    deployment.publish(BOOKS)
    with Served(deployment.library(), displays={}) as service:
        item: Any = service.ask("/item/doab/1").page
        assert "20.500.12854/1" in item.text
        assert service.ask("/handle/20.500.12854/1").status == 404
