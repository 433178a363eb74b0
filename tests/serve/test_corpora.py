"""One box over several corpora, each with fields and generations of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kits.serve import BOOKS, Catalogue, ModelByHand, Served
from tests.kits.vectors import DOAB
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.corpus.corpus import Corpus
from tickwork.generation.generations import Generations
from tickwork.generation.meta import META, read_meta, write_meta
from tickwork.generation.model_info import ModelInfo
from tickwork.serve.library import Library
from tickwork.sources.doab.display import DISPLAY
from tickwork.vectors.settings import VectorSettings

FILMS: Corpus = replace(DOAB, name="films", fields=tuple(one for one in DOAB.fields if one.name != "language"))


def as_films(deployment: Catalogue, corpus: Corpus = FILMS) -> None:
    """Publish what is current as a generation of another corpus."""
    current = deployment.current()
    films = Generations(Paths.under(deployment.state), corpus.name)
    draft, file = films.folder / "draft", f"{corpus.name}.db"
    shutil.copytree(current.folder, draft)
    (draft / "doab.db").rename(draft / file)
    meta = read_meta(draft)
    sums = {file if name == "doab.db" else name: digest for name, digest in meta.sha256.items()}
    write_meta(draft, msgspec.structs.replace(meta, corpus=corpus.name, sha256=sums))
    name = films.fresh_name(draft / META)
    draft.rename(films.folder / name)
    films.switch(name)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    deployment = Catalogue(tmp_path_factory.mktemp("corpora"))
    deployment.publish({**BOOKS, 1: {**BOOKS[1], "title": "Bees, the film"}})
    as_films(deployment)
    deployment.publish(BOOKS)
    library = Library(Paths.under(deployment.state), [DOAB, FILMS], VectorSettings())
    with pytest.MonkeyPatch.context() as patch:
        ModelByHand(patch)
        with Served(library, {"doab": DISPLAY}) as service:
            for corpus in ("doab", "films"):
                service.until(lambda of=corpus: service.health(of)["meaning"] == "ready")
            yield service


@pytest.mark.parametrize("mode", ["words", "meaning", "both"])
def test_a_search_is_over_all_of_them_best_first(service: Served, mode: str) -> None:
    said = service.ask(f"/api/search?q=bees&mode={mode}&limit=100").json()
    assert {one["corpus"] for one in said["results"]} == {"doab", "films"}
    assert {said["results"][0]["title"], said["results"][1]["title"]} == {"Bees", "Bees, the film"}
    scores = [one["score"] for one in said["results"]]
    assert scores == sorted(scores, reverse=True)
    assert said["total"] == len(said["results"])
    assert set(said["generations"]) == {"doab", "films"}
    assert sum(one["count"] for one in said["counts"]["type"]) == said["total"], "counts of both together"


def test_pages_of_results_follow_each_other_over_all(service: Served) -> None:
    whole = service.ask("/api/search?q=bees&limit=100").json()["results"]
    parts = [service.ask(f"/api/search?q=bees&limit=3&offset={at}").json()["results"] for at in range(0, len(whole), 3)]
    assert [one for part in parts for one in part] == whole


def test_one_of_them_can_be_chosen(service: Served) -> None:
    said = service.ask("/api/search?q=bees&in=films").json()
    assert {one["corpus"] for one in said["results"]} == {"films"}
    page = service.ask("/?q=bees&in=films").page
    assert "<option selected>films</option>" in page.html
    assert all(url.startswith("/item/films/") for url, _ in page.links if url.startswith("/item/"))
    assert all("in=films" in url for url, _ in page.links if "f=" in url)


def test_a_filter_keeps_to_the_corpora_that_have_its_field(service: Served) -> None:
    said = service.ask("/api/search?q=bees&f=language%3Deng").json()
    assert {one["corpus"] for one in said["results"]} == {"doab"}
    said = service.ask("/api/search?q=bees&f=year%3E%3D2000").json()
    assert {one["corpus"] for one in said["results"]} == {"doab", "films"}
    assert service.ask("/api/search?q=bees&f=colour%3Dred").status == 400
    assert service.ask("/api/search?q=bees&f=language%3Deng&in=films").status == 400


def test_without_a_query_a_corpus_must_be_named(service: Served) -> None:
    assert service.ask("/api/search").status == 400
    assert service.ask("/?f=language%3Deng").status == 400
    assert service.ask("/?f=year%3D2010&in=films").page.titled(2)[0] == "Bees, the film"


def test_each_has_pages_and_tables_of_its_own(service: Served) -> None:
    home = service.ask("/").page
    for corpus, title in (("doab", "Bees"), ("films", "Bees, the film")):
        assert home.to(corpus) == f"/browse/{corpus}"
        browse = service.ask(f"/browse/{corpus}").page
        assert browse.titled(2)[-2] == title
        assert browse.to("table") == f"/{corpus}/items"
        assert service.ask(f"/{corpus}/items/1.json?_shape=objects").json()["rows"][0]["title"] == title
        assert service.ask(f"/item/{corpus}/1").page.titled(1) == [title]
    assert [one["name"] for one in service.ask("/api/corpora").json()["corpora"]] == ["doab", "films"]


def test_damage_of_one_leaves_the_other(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path)
    deployment.publish(BOOKS)
    as_films(deployment)
    (deployment.current().folder / "doab.db").write_bytes(b"garbage")
    with Served(Library(Paths.under(deployment.state), [DOAB, FILMS], VectorSettings()), {}) as service:
        answer = service.ask("/-/health")
        assert (answer.status, answer.json()["status"]) == (200, "degraded")
        assert "doab.db" in service.health("doab")["refused"]
        assert service.health("films")["refused"] == ""
        assert service.ask("/api/search?q=bees&mode=words").json()["results"][0]["corpus"] == "films"


# Corpora without vectors, or without their model.

POSTS: Corpus = replace(DOAB, name="posts")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Books with vectors, films without, and no posts at all."""
    deployment = Catalogue(tmp_path_factory.mktemp("mixed"))
    deployment.publish({})
    as_films(deployment, POSTS)
    deployment.publish({n: {k: v for k, v in book.items() if k != "vector"} for n, book in BOOKS.items()})
    as_films(deployment)
    deployment.publish(BOOKS)
    library = Library(Paths.under(deployment.state), [DOAB, FILMS, POSTS], VectorSettings())
    with pytest.MonkeyPatch.context() as patch:
        ModelByHand(patch)
        with Served(library, {}) as service:
            service.until(lambda: service.health()["meaning"] == "ready")
            assert {one["name"]: (one["items"], one["vectors"]) for one in corpora(service)} == {
                **{"doab": (6, 5), "films": (6, 0)},
                "posts": (0, 0),
            }
            yield service


def corpora(service: Served) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = service.ask("/api/corpora").json()["corpora"]
    return said


def scores(service: Served, target: str) -> dict[str, dict[int, float]]:
    """The score of each item that is found, by corpus."""
    found: dict[str, dict[int, float]] = {}
    for one in service.ask(target).json()["results"]:
        found.setdefault(one["corpus"], {})[one["id"]] = one["score"]
    return found


def test_a_corpus_without_vectors_leaves_the_others_their_meaning(mixed: Served) -> None:
    said = mixed.ask("/api/search?q=insects&mode=meaning&limit=100").json()
    assert (said["mode"], said["notice"]) == ("meaning", "")
    assert {one["corpus"] for one in said["results"]} == {"doab"}
    assert said["total"] == len(said["results"]) == 5
    assert mixed.ask("/?q=insects&mode=meaning").status == 200


def test_by_both_a_corpus_without_vectors_is_searched_by_words(mixed: Served) -> None:
    said = mixed.ask("/api/search?q=bees&limit=100").json()
    assert (said["mode"], said["notice"]) == ("both", "")
    found = scores(mixed, "/api/search?q=bees&limit=100")
    assert found["doab"] == scores(mixed, "/api/search?q=bees&limit=100&in=doab")["doab"]
    assert found["films"].keys() == {1, 3, 4}, "what has the word"
    assert max(found["films"].values()) == pytest.approx(0.6), "as much as words alone can give, on the same scale"
    assert said["results"][0]["corpus"] == "doab"


@pytest.mark.parametrize("corpus", ["films", "posts"])
def test_of_a_corpus_without_vectors_alone_it_is_said(mixed: Served, corpus: str) -> None:
    assert mixed.ask(f"/api/search?q=bees&mode=meaning&in={corpus}").status == 503
    said = mixed.ask(f"/api/search?q=bees&in={corpus}").json()
    assert said["mode"] == "words"
    assert "not possible here" in said["notice"]


@pytest.mark.parametrize("trouble", [True, False], ids=["in trouble", "loading"])
def test_a_missing_model_leaves_the_other_corpora_their_meaning(
    trouble: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Catalogue(tmp_path)
    deployment.put(BOOKS, fingerprint="another")
    deployment.good("publish", "doab")
    as_films(deployment)
    deployment.publish(BOOKS)
    model, films = ModelByHand(monkeypatch), ModelByHand(monkeypatch)
    films.may_load.clear()

    def load_for(info: ModelInfo, *_: object) -> ModelByHand:
        if info.fingerprint != "another":
            return model._load()
        if trouble:
            raise OperatorError("no such model")
        return films._load()

    monkeypatch.setattr("tickwork.vectors.model.load_for", load_for)
    reason = "is not possible here" if trouble else "will be possible in a moment"
    with Served(Library(Paths.under(deployment.state), [DOAB, FILMS], VectorSettings()), {}) as service:
        service.until(lambda: service.health()["meaning"] == "ready")
        service.until(lambda: service.health("films")["meaning"] == ("no such model" if trouble else "loading"))
        said = service.ask("/api/search?q=bees").json()
        assert (said["mode"], {one["corpus"] for one in said["results"]}) == ("both", {"doab", "films"})
        assert said["notice"] == f"Searching films by meaning {reason}; it was searched by words."
        said = service.ask("/api/search?q=bees&mode=meaning").json()
        assert (said["mode"], {one["corpus"] for one in said["results"]}) == ("meaning", {"doab"})
        assert said["notice"] == f"Searching films by meaning {reason}; it was left out."
        said = service.ask("/api/search?q=bees&f=language%3Deng").json()
        assert (said["mode"], said["notice"]) == ("both", ""), "films have no such field and are not searched"
        assert service.ask("/api/search?q=bees&mode=meaning&in=films").status == 503
        films.may_load.set()
