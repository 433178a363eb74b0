"""Every fault the fake server has, met by a harvest: nothing short is taken for complete, and nothing stays missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kits.doab import DRAINED, HALTED, HARVEST_ALL, MORE, Clock, Row, Site, stored_by
from tests.upstreams.books import generated_books
from tests.upstreams.faults import INSTEAD, KINDS, PAGES, SENDING, XML, Fault
from tests.upstreams.oai import FakeOai

BOOKS = generated_books(120, seed=4)
PAGE_SIZE = 25


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What an uninterrupted harvest stores."""
    with FakeOai(BOOKS, page_size=PAGE_SIZE, clock=Clock()) as oai:
        site = Site(tmp_path_factory.mktemp("truth"), oai)
        assert site.run(*HARVEST_ALL).code == DRAINED
        assert site.stamps() == stored_by(oai)
        return site.canonical()


# kind and fields -> exit code of the pass that meets it once, on the third page of five
ONCE: dict[str, tuple[dict[str, Any], int]] = {
    "429": ({"after": 60}, MORE),
    "429 date": ({"after": 60, "via": "date"}, MORE),
    "429 x-reset": ({"after": 60, "via": "x-reset"}, MORE),
    "429 reset": ({"after": 60, "via": "reset"}, MORE),
    "429 none": ({"via": "none"}, MORE),
    "503": ({"after": 60}, MORE),
    "503 date": ({"after": 60, "via": "date"}, MORE),
    "503 none": ({"via": "none"}, MORE),
    "500": ({}, MORE),
    "502": ({}, MORE),
    "403": ({}, HALTED),
    "403-challenge": ({}, HALTED),
    "404": ({}, HALTED),
    "410": ({}, HALTED),
    "html": ({}, MORE),
    "empty": ({}, MORE),
    "error-page": ({}, MORE),
    "doctype": ({}, MORE),
    "bad-xml": ({}, MORE),
    "truncate-body": ({}, MORE),
    "truncate-body all but a byte": ({"keep": 0.99999}, MORE),
    "gzip-bomb": ({}, HALTED),
    "too-many-headers": ({"count": 3}, MORE),
    "truncate": ({}, DRAINED),  # a connection fault is tried again at once
    "truncate thrice": ({"count": 3}, MORE),
    "reset": ({}, DRAINED),
    "reset thrice": ({"count": 3}, MORE),
    "redirect": ({}, HALTED),
    "whitespace": ({}, DRAINED),
    "illegal-char": ({}, DRAINED),
    "bad-utf8": ({}, DRAINED),
    "loop": ({}, DRAINED),  # the window is read again in the same pass
    "repeat-page": ({}, DRAINED),
    "early-end": ({}, DRAINED),
    "miscount": ({}, DRAINED),
    "miscount down": ({"by": -3}, DRAINED),
    "expire-token": ({}, DRAINED),
    "expiration-past": ({}, DRAINED),
    "empty-page": ({}, DRAINED),
    "shift": ({}, DRAINED),
    "slow": ({"seconds": 0.1}, DRAINED),
    "drip-headers": ({"interval": 0.001, "end": 0.1}, DRAINED),
    "drip-body": ({"interval": 0.001, "end": 0.1}, DRAINED),
}

# One of each family for every change, the others for every delivery.
QUICK = {"429", "503 date", "403-challenge", "html", "truncate-body", "gzip-bomb", "reset", "illegal-char"}
QUICK |= {"loop", "early-end", "expire-token", "repeat-page", "empty-page", "drip-headers"}
SPEEDS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ONCE]


def test_every_fault_of_the_fake_is_met_here() -> None:
    """`wrong-record` is about single records: the backfill meets it."""
    assert {"429", "503", *INSTEAD, *PAGES, *XML, *SENDING} <= KINDS
    assert KINDS - {name.split()[0] for name in ONCE} == {"wrong-record"}


@pytest.mark.parametrize("name", SPEEDS)
def test_a_fault_met_once_costs_nothing_but_time(name: str, oai: FakeOai, tmp_path: Path, truth: list[Row]) -> None:
    fields, expected = ONCE[name]
    site = Site(tmp_path, oai, max_bytes=8 * 2**20)
    fault = oai.fault(name.split()[0], **{"verb": "ListRecords", "nth": 3, "to": oai.base_url, **fields})
    first = site.run(*HARVEST_ALL)
    assert fault.fired, "the fault was never met"
    assert first.code == expected, first.err
    assert "Traceback" not in first.err
    if first.code != DRAINED:
        assert site.cursor() == ""
        assert 50 <= len(site.stamps()) < len(BOOKS), "what came before the fault is kept"
    if name[:3] in ("429", "503"):
        assert site.holds()
        asked = len(oai.history)
        assert site.run(*HARVEST_ALL).code == MORE
        assert len(oai.history) == asked, "nothing is sent inside a hold"
        for seen in oai.history:
            seen.hold_until = None  # lifted by hand, below
        site.lift_holds()
    if first.code == HALTED:
        assert site.marker("doab-harvest")
        asked = len(oai.history)
        assert site.run("harvest").code == HALTED
        assert len(oai.history) == asked, "nothing is sent after a halt"
        assert site.run("rearm", "doab-harvest", "--why", "mended").code == 0
    if first.code != DRAINED:
        assert site.run("harvest").code == DRAINED
    assert site.stamps() == stored_by(oai)
    if name == "bad-utf8":
        # What replaces broken bytes is stored until the record is read again.
        assert sum(one != other for one, other in zip(site.canonical(), truth, strict=True)) == 1
        assert site.run("harvest", "--from", "2000-01-01").code == DRAINED
    if name != "shift":
        assert site.canonical() == truth
    assert site.cursor() == "2026-10-04T12:00:00Z"


@pytest.mark.parametrize("name", ["illegal-char", "bad-utf8", "miscount", "loop", "early-end"])
def test_what_was_odd_is_told_in_the_log(name: str, oai: FakeOai, tmp_path: Path) -> None:
    oai.fault(name, verb="ListRecords", nth=3)
    assert "doab-harvest: warning: " in Site(tmp_path, oai).run(*HARVEST_ALL).err


FOREVER: dict[str, tuple[dict[str, Any], set[int]]] = {
    "html": ({"nth": 2}, {MORE}),
    "empty": ({"nth": 2}, {MORE}),
    "error-page": ({"nth": 2}, {MORE}),
    "truncate": ({"nth": 2}, {MORE}),
    "truncate-body": ({"nth": 2}, {MORE}),
    "500": ({"nth": 2}, {MORE}),
    "loop": ({}, {HALTED}),
    "repeat-page": ({}, {HALTED}),
    "early-end": ({}, {HALTED}),
    "early-end half-way": ({"every": 3}, {DRAINED, HALTED}),
    "miscount by half": ({"by": 60}, {HALTED}),
    "miscount by one": ({"by": 1}, {DRAINED}),
    "miscount down": ({"by": -7}, {DRAINED}),
    "expire-token": ({}, {DRAINED}),
    "expiration-past": ({}, {DRAINED}),
    "empty-page": ({"nth": 2}, {HALTED}),
    "illegal-char": ({}, {DRAINED}),
    "whitespace": ({}, {DRAINED}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREVER)
def test_a_fault_for_ever_is_never_taken_for_a_complete_list(name: str, oai: FakeOai, tmp_path: Path) -> None:
    fields, expected = FOREVER[name]
    site = Site(tmp_path, oai)
    oai.fault(name.split()[0], **{"verb": "ListRecords", "count": None, **fields})
    codes = {site.run(*HARVEST_ALL).code for _ in range(3)}
    assert codes <= expected
    assert (codes == {DRAINED}) == (site.cursor() != "")
    assert site.stamps() == stored_by(oai) or DRAINED not in codes
    assert len(oai.history) < 400, "a fault is not answered with a flood"
    if HALTED in codes:
        assert any(figure.isdigit() for figure in site.marker("doab-harvest").partition("reason=")[2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_faults_at_random_change_nothing_of_the_result(
    seed: int, oai: FakeOai, tmp_path: Path, truth: list[Row]
) -> None:
    kinds = (
        "500",
        "html",
        "empty",
        "truncate",
        "truncate-body",
        "expire-token",
        "early-end",
        "reset",
        "bad-utf8",
        "loop",
    )
    for number, kind in enumerate(kinds):
        oai.switches.add(Fault(kind, verb="ListRecords", probability=0.06, seed=seed * 100 + number, count=3))
    site = Site(tmp_path, oai, window_items=60)
    codes = site.passes(*HARVEST_ALL)
    assert codes[-1] == DRAINED, site.marker("doab-harvest")
    assert site.canonical() == truth
