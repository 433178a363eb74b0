"""How hard the tests try, and what they ask for by name: bare environments, deployments, and their operator.

`./test.sh --soak` sets TICKWORK_SOAK, and the bounds rise; without the slow tests there are fewer examples of anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.kits.deployment import Deployment, Said
from tests.kits.doab import Clock, Site, well_mannered
from tests.kits.operate import Tickwork
from tests.upstreams.oai import FakeOai
from tickwork.contract.paths import Paths

if TYPE_CHECKING:  # what comes with `vectors` or `atproto` is imported only where it is asked for
    from tests.kits.publish import Shelf
    from tests.kits.repos import Archive
    from tests.kits.vectors import FakeModel
    from tests.upstreams.pds import Network
    from tests.upstreams.pds_accounts import FakeAccount

settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("full", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=20_000)


def is_quick(config: pytest.Config) -> bool:
    """Whether slow tests are left out."""
    return "not slow" in config.option.markexpr


def pytest_configure(config: pytest.Config) -> None:
    """Try as hard as the tier says."""
    settings.load_profile("soak" if os.environ.get("TICKWORK_SOAK") else "quick" if is_quick(config) else "full")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import nothing of e2e where all of it is left out: that would take longer than any quick test."""
    return True if collection_path.name == "e2e" and is_quick(config) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark all of e2e as slow."""
    if "tests/e2e/" in item.nodeid:
        item.add_marker("slow")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a deployment, or of a wrapper, reaches the test."""
    for name in ("TICKWORK_CONFIG", "TICKWORK_STATE", "TICKWORK_WRAPPED", "TICKWORK_LOCK_FDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A deployment of which nothing is there yet."""
    return Paths.under(tmp_path / "state")


@pytest.fixture
def tickwork(tmp_path: Path, paths: Paths) -> Tickwork:
    """Runs a command on the deployment of `paths`, with the text of a settings file if there is one."""
    deployment = Deployment(tmp_path)
    assert deployment.state == paths.state

    def run(*arguments: str, config: str | None = None) -> Said:
        if config is not None:
            deployment.config.write_text(config)
        return deployment.run(*arguments)

    return run


# DOAB.


@pytest.fixture
def clock() -> Clock:
    """The time at DOAB's server, which stands still until a test moves it."""
    return Clock()


@pytest.fixture
def oai(request: pytest.FixtureRequest, clock: Clock) -> Iterator[FakeOai]:
    """A server with the BOOKS of the test's module, in pages of its PAGE_SIZE; at the end it judges the manners."""
    with FakeOai(request.module.BOOKS, page_size=getattr(request.module, "PAGE_SIZE", 100), clock=clock) as server:
        yield server
        well_mannered(server)


@pytest.fixture
def site(oai: FakeOai, tmp_path: Path) -> Site:
    """A deployment that speaks to it."""
    return Site(tmp_path, oai)


# Embedding.


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """The model that every embedding pass gets, whatever the settings say."""
    from tests.kits.vectors import FakeModel
    from tickwork.vectors import device, model

    made = FakeModel()
    monkeypatch.setattr(model, "inspect", made.inspect)
    monkeypatch.setattr(model, "load", made.load)
    monkeypatch.setattr(device, "open_device", lambda *_: made.device)
    return made


@pytest.fixture
def books(paths: Paths) -> Path:
    """The folder of a deployment with thirty books."""
    from tests.kits.vectors import make_state

    return make_state(paths.state, 30)


@pytest.fixture
def embed_doab(tickwork: Tickwork, fake_model: FakeModel) -> Tickwork:
    """One embedding pass with the fake model, in batches of four texts; takes options and keys of `[vectors]`."""
    from tests.kits.vectors import config

    def run(*options: str, **vectors: object) -> Said:
        return tickwork("embed", "doab", *options, config=config("fake/model", **{"batch_tokens": 4, **vectors}))

    return run


# Publishing.


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Sixty books published once, with an inverted file; for all tests, so leave it as it is."""
    from tests.kits.publish import Shelf, some

    shelf = Shelf(tmp_path_factory.mktemp("published"), factory="IVF4,SQfp16", nprobe=4)
    shelf.add(some(60))
    shelf.publish()
    return shelf


@pytest.fixture(scope="session")
def published_twice(published: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """The same published once more, from the generation before, after a book changed; leave it as it is, too."""
    from tests.kits.publish import some

    shelf = published.clone(tmp_path_factory.mktemp("published-twice"))
    shelf.change({2: some(1, 5)[0]})
    shelf.publish()
    return shelf


@pytest.fixture
def shelf(published: Shelf, tmp_path: Path) -> Shelf:
    """A copy of `published` that is the test's own."""
    return published.clone(tmp_path / "shelf")


@pytest.fixture
def network() -> Iterator[Network]:
    """Two servers without accounts; at the end they judge the manners."""
    from tests.upstreams.pds import Network

    with Network(hosts=2, accounts_a_host=0, at_once=2, plc_at_once=4) as made:
        yield made
        assert made.violations() == []


@pytest.fixture
def account(network: Network) -> FakeAccount:
    """An account at the first of them, with five posts."""
    return network.add(0, records={f"app.bsky.feed.post/{n}": {"text": f"number {n}"} for n in range(5)})


@pytest.fixture
def archive(tmp_path: Path, network: Network) -> Archive:
    """A deployment beside them."""
    from tests.kits.repos import Archive

    return Archive(tmp_path, network)
