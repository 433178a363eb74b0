"""A publish is never noticed: who began with one generation ends with it; a damaged one is refused; nothing is left."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kits.serve import BOOKS, Catalogue, ModelByHand, Served, slow_searches
from tickwork.contract.outcomes import OperatorError
from tickwork.generation.generations import Generation
from tickwork.serve import open_generation as open_generation_module
from tickwork.serve import service as service_module

FILES = ("doab.db", "similar.db", "vectors.npy", "ids.npy", "index.faiss")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    deployment = Catalogue(tmp_path_factory.mktemp("swap"))
    deployment.publish(BOOKS)
    return deployment


@pytest.fixture
def deployment(made: Catalogue, tmp_path: Path) -> Catalogue:
    return made.copy(tmp_path / "copy")


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> ModelByHand:
    monkeypatch.setattr(service_module, "GRACE_SECONDS", 0.3)
    return ModelByHand(monkeypatch)


@pytest.fixture
def service(deployment: Catalogue) -> Iterator[Served]:
    with Served(deployment.library()) as service:
        service.until(lambda: service.health()["meaning"] == "ready")
        yield service


def titled(number: int, title: str) -> dict[int, dict[str, object]]:
    return {number: {**BOOKS[number], "title": title}}


def found(service: Served, query: str, mode: str = "words") -> list[str]:
    said = service.ask(f"/api/search?q={query}&mode={mode}").json()
    return [one["title"] for one in said["results"]]


def harm(generation: Generation, name: str, how: str = "cut") -> None:
    path = generation.folder / name
    if how == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"garbage" * 1000)


def test_what_is_published_is_found_without_a_restart(service: Served, deployment: Catalogue) -> None:
    before = deployment.current().name
    assert found(service, "beehives") == []
    generation = deployment.publish(titled(2, "Beehives"))
    assert generation.name != before
    service.shows(generation)
    assert found(service, "beehives") == ["Beehives"]
    assert service.ask("/item/doab/2").page.titled(1) == ["Beehives"]
    assert "Beehives" in service.ask("/doab/items.csv").text, "Datasette serves it at the same address"
    assert service.ask("/api/corpora").json()["corpora"][0]["generation"] == generation.name
    assert service.ask("/-/health").json()["status"] == "ok"


def test_a_roll_back_is_followed_as_well(service: Served, deployment: Catalogue) -> None:
    before = deployment.current()
    service.shows(deployment.publish(titled(2, "Beehives")))
    deployment.good("generations", "roll-back", "doab", before.name)
    service.shows(before)
    assert found(service, "beehives") == []


def test_who_began_before_the_switch_ends_with_the_old_generation(
    service: Served, deployment: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, old = deployment.current(), service.library.open_generations()["doab"]
    with slow_searches(monkeypatch) as gate, ThreadPoolExecutor() as pool:
        slow = pool.submit(service.ask, "/api/search?q=slow&mode=words")
        assert gate.begun.wait(60)
        service.shows(deployment.publish(titled(1, "No more of them")))
        deployment.generations.remove(before.folder)  # pruned: its files are gone, and still open
        threading.Event().wait(1.0)
        assert not old.is_closed, "the grace period is over, and somebody is still reading"
        gate.go.set()
        answer = slow.result(60)
    assert answer.status == 200
    assert answer.json()["generations"] == {"doab": before.name}
    assert [one["title"] for one in answer.json()["results"]][:1] == ["Bees"]
    service.until(lambda: old.is_closed)


def test_within_the_grace_period_the_old_one_stays_open(
    service: Served, deployment: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "GRACE_SECONDS", 1000)
    old = service.library.open_generations()["doab"]
    service.shows(deployment.publish(titled(1, "Another")))
    threading.Event().wait(0.5)
    assert not old.is_closed
    with old.searcher(1) as searcher:
        assert searcher.items([1])[1]["title"] == "Bees"


@pytest.mark.slow
def test_twenty_switches_leave_nothing_open(service: Served, deployment: Catalogue) -> None:
    for number in range(4):  # what is opened once, and the first of everything
        switched(service, deployment, f"warm {number}")
    settle(service)
    descriptors, threads = counted(), threads_and_pools()
    for number in range(20):
        switched(service, deployment, f"title {number}")
    settle(service)
    assert counted() <= descriptors + 2
    assert threads_and_pools() == threads
    databases = service.service.datasette.databases
    assert len(databases) == 2, databases
    assert len(service.service._work) == 2, "looking and loading"
    current = f"doab {deployment.current().name}"
    for table in service_module._CATALOGUE:
        rows = service.do(databases["_internal"].execute(f"SELECT DISTINCT database_name FROM {table}")).rows
        assert {row[0] for row in rows} <= {"_internal", current}, table


def switched(service: Served, deployment: Catalogue, title: str) -> None:
    service.shows(deployment.publish(titled(3, title)))
    assert service.ask("/doab/items.json").json()["rows"], "Datasette opens it too"
    assert found(service, "enemies", "both")


def settle(service: Served) -> None:
    service.until(lambda: not service.service._retired and len(service.service._work) == 2)
    gc.collect()


def counted() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def threads_and_pools() -> set[str]:
    """The threads that run, where those of one pool are one: a pool starts its few when it first needs them."""
    return {re.sub(r"_\d+$", "", thread.name) for thread in threading.enumerate()}


@pytest.mark.slow
def test_requests_beside_switches_never_fail(service: Served, deployment: Catalogue) -> None:
    end, answers = threading.Event(), []
    targets = ("/?q=bees", "/doab/items", "/doab/items.json", "/item/doab/1", "/api/search?q=honey", "/-/health")

    def client(shift: int) -> None:
        number = shift
        while not end.is_set():
            answers.append((targets[number % len(targets)], service.ask(targets[number % len(targets)]).status))
            number += 1

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(client, shift) for shift in range(4)]
        try:
            for number in range(6):
                service.shows(deployment.publish(titled(3, f"title {number}")))
            service.until(lambda: not service.service._retired)
        finally:
            end.set()
        for one in clients:
            one.result(60)
    assert [answer for answer in answers if answer[1] != 200] == []
    assert len(answers) > 50


@pytest.mark.slow
def test_an_export_under_way_goes_on_over_a_switch(deployment: Catalogue) -> None:
    many = range(1, 2501)  # three of Datasette's pages
    deployment.publish({number: {"title": f"Book {number}", "description": ""} for number in many})
    begun, go, parts = threading.Event(), threading.Event(), itertools.count()

    def reading() -> None:
        if next(parts) == 5:  # some lines of the first page
            begun.set()
            assert go.wait(60)

    with Served(deployment.library()) as service, ThreadPoolExecutor() as pool:
        old = service.library.open_generations()["doab"]
        export = pool.submit(service.ask, "/doab/items.csv?_stream=on&_col=title", reading=reading)
        assert begun.wait(60)
        service.shows(deployment.publish(titled(1, "Another")))
        service.until(lambda: old.is_closed and not service.service._retired)
        go.set()
        ids = [line.partition(",")[0] for line in export.result(60).text.splitlines()[1:]]
    assert ids == [str(number) for number in many]


# Damage.


@pytest.mark.parametrize("name", [*FILES, "meta.json"])
def test_a_damaged_generation_is_refused_at_the_start(deployment: Catalogue, name: str) -> None:
    harm(deployment.current(), name)
    with Served(deployment.library()) as service:
        answer = service.ask("/-/health")
        assert answer.status == 503
        assert answer.json()["status"] == "damaged"
        assert name in answer.json()["corpora"]["doab"]["refused"]
        assert "Nothing is published yet." in service.ask("/").page.text
        assert service.ask("/api/search?q=x").json()["results"] == []
        service.shows(deployment.publish(titled(1, "Mended")))
        assert service.health()["status"] == "ok"


@pytest.mark.parametrize(("name", "how"), [("doab.db", "cut"), ("index.faiss", "garbage"), ("similar.db", "missing")])
def test_a_damaged_generation_does_not_take_the_place_of_a_good_one(
    service: Served, deployment: Catalogue, tmp_path: Path, name: str, how: str
) -> None:
    good = deployment.current()
    elsewhere = deployment.copy(tmp_path / "elsewhere")
    bad = elsewhere.publish(titled(1, "Never seen"))
    shutil.copytree(bad.folder, good.folder.parent / bad.name)
    harm(Generation(good.folder.parent / bad.name, bad.meta), name, how)
    deployment.generations.switch(bad.name)
    service.until(lambda: service.health()["status"] == "degraded")
    assert service.ask("/-/health").status == 200
    assert name in service.health()["refused"]
    assert service.health()["generation"] == good.name
    assert found(service, "bees")[0] == "Bees"
    deployment.generations.switch(good.name)
    service.until(lambda: service.health()["status"] == "ok")
    assert service.health()["refused"] == ""


@pytest.mark.parametrize(
    "error", [OperatorError("cannot read it"), sqlite3.DatabaseError("malformed"), OSError("gone")]
)
def test_one_that_cannot_be_opened_is_refused_too(
    service: Served, deployment: Catalogue, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    good = deployment.current()

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(open_generation_module.Searcher, "warm", refuse)
    deployment.publish(titled(1, "Unreadable"))
    service.until(lambda: service.health()["status"] == "degraded")
    assert service.health()["refused"] == str(error)
    assert service.health()["generation"] == good.name


def test_a_pointer_to_nowhere_is_told_of_and_followed_when_it_is_mended(service: Served, deployment: Catalogue) -> None:
    good = deployment.current()
    deployment.generations.switch("20990101T000000Z-ffffff")
    service.until(lambda: service.health()["status"] == "degraded")
    assert "20990101T000000Z-ffffff" in service.health()["refused"]
    assert found(service, "bees")
    deployment.generations.switch(good.name)
    service.until(lambda: service.health()["status"] == "ok")


def test_before_anything_is_published_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path)
    with Served(deployment.library()) as service:
        assert service.ask("/-/health").status == 503
        assert service.health()["status"] == "empty"
        assert "Nothing is published yet." in service.ask("/").page.text
        for target in ("/?q=bees", "/browse/doab", "/?f=language=eng"):
            assert "Nothing was found." in service.ask(target).page.text
        assert service.ask("/api/corpora").json() == {"corpora": []}
        service.shows(deployment.publish(BOOKS))
        assert found(service, "bees")


def test_two_services_can_live_one_after_the_other(deployment: Catalogue) -> None:
    for _ in range(2):
        with Served(deployment.library()) as service:
            assert service.ask("/").status == 200


# The model.


def test_words_work_while_the_model_is_being_loaded(deployment: Catalogue, model: ModelByHand) -> None:
    model.may_load.clear()
    with Served(deployment.library()) as service:
        assert service.health()["meaning"] == "loading"
        said = service.ask("/api/search?q=bees").json()
        assert (said["mode"], said["results"][0]["title"]) == ("words", "Bees")
        assert "will be possible in a moment" in said["notice"]
        assert "these results were found by words" in service.ask("/?q=bees").page.text
        answer = service.ask("/api/search?q=bees&mode=meaning")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert service.ask("/?q=bees&mode=meaning").page.titled(1) == ["Not now"]
        model.may_load.set()
        service.until(lambda: service.health()["meaning"] == "ready")
        assert service.ask("/api/search?q=bees").json()["mode"] == "both"
        assert model.loaded == 1


def test_a_missing_model_leaves_words(deployment: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the model of these vectors is nowhere
    with Served(deployment.library()) as service:
        service.until(lambda: service.health()["meaning"] not in ("loading", "ready"))
        assert "/nowhere" in service.health()["meaning"]
        assert service.ask("/-/health").status == 200
        said = service.ask("/api/search?q=bees").json()
        assert said["mode"] == "words"
        assert "is not possible here" in said["notice"]
        answer = service.ask("/?q=bees&mode=meaning")
        assert answer.status == 503
        assert "not possible here" in answer.page.text
        assert "/nowhere" not in answer.text, "where things lie is for the operator"


def test_the_model_is_loaded_once_whatever_is_published(
    service: Served, deployment: Catalogue, model: ModelByHand
) -> None:
    for number in range(3):
        service.shows(deployment.publish(titled(3, f"title {number}")))
    assert found(service, "bees", "meaning")
    assert model.loaded == 1


def test_a_generation_of_another_model_waits_for_it(service: Served, deployment: Catalogue, model: ModelByHand) -> None:
    before = deployment.current()
    model.may_load.clear()
    deployment.put(BOOKS, fingerprint="another")
    deployment.good("publish", "doab")
    threading.Event().wait(0.5)
    assert service.health()["generation"] == before.name
    assert service.ask("/api/search?q=bees&mode=meaning").status == 200, "by the model before"
    model.may_load.set()
    service.shows(deployment.current())
    assert service.ask("/api/search?q=bees&mode=meaning").status == 200
    assert model.loaded == 2
    service.until(lambda: len(service.library._encoders) == 1)


def test_without_vectors_meaning_is_not_offered(tmp_path: Path) -> None:
    deployment = Catalogue(tmp_path)
    deployment.publish({1: {"title": "Bees", "description": "honey"}})
    with Served(deployment.library()) as service:
        assert service.health()["meaning"] == "none"
        assert service.ask("/api/search?q=bees").json()["mode"] == "words"
        assert service.ask("/api/search?q=bees&mode=meaning").status == 503
        assert service.ask("/item/doab/1").page.titled(2) == []


def test_query_vectors_are_remembered(service: Served, model: ModelByHand) -> None:
    asked: Callable[[], int] = lambda: model.asked.count("insects")  # noqa: E731
    for _ in range(3):
        assert found(service, "insects", "meaning")
    assert asked() == 1
