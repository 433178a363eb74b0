"""`tickwork holds` and `manners`: what upstreams asked of us, and a hold is cleared for a reason only."""

from __future__ import annotations

import pytest

from tests.kits.operate import HOST, TIME, InState, Tickwork
from tickwork.contract.paths import Paths

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_holds_are_listed_and_cleared_with_a_reason(tickwork: Tickwork, paths: Paths) -> None:
    assert tickwork("holds").out == "no upstream is on hold\n"
    assert tickwork("holds", "--json").json() == []
    InState.held(paths)
    (row,) = tickwork("holds", "--json").json()
    assert set(row) == {"host", "until", "since", "why"}
    assert (row["host"], row["why"]) == (HOST, "answered 429")
    assert TIME.fullmatch(row["until"])
    assert HOST in tickwork("holds").out
    assert tickwork("holds", "clear", HOST, "--why", " ").code == 2
    assert tickwork("holds", "--json").json()
    assert tickwork("holds", "clear", HOST, "--why", "they agreed").out == f"{HOST} may be called again\n"
    assert tickwork("holds", "--json").json() == []
    again = tickwork("holds", "clear", HOST, "--why", "they agreed")
    assert (again.code, len(again.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("spelling", [f"https://{HOST}./oai?verb=List", HOST.upper(), f"{HOST}.:443", f" {HOST}:80"])
def test_a_hold_is_cleared_under_any_spelling_of_its_server(spelling: str, tickwork: Tickwork, paths: Paths) -> None:
    InState.held(paths)
    said = tickwork("holds", "clear", spelling, "--why", "they agreed", "--json")
    assert said.json() == {"host": HOST, "cleared": True}
    assert tickwork("holds", "--json").json() == []


def test_what_does_not_name_a_server_is_no_host_to_clear(tickwork: Tickwork, paths: Paths) -> None:
    InState.held(paths)
    said = tickwork("holds", "clear", "directory..org", "--why", "they agreed")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "'directory..org' does not name a server" in said.err


def test_clearing_a_hold_before_anything_was_asked_is_an_error(tickwork: Tickwork, paths: Paths) -> None:
    said = tickwork("holds", "clear", HOST, "--why", "x")
    assert said.code == 2
    assert "it was never called" in said.err
    assert not paths.database("slots").exists()


def test_manners_are_a_table_and_json(tickwork: Tickwork, paths: Paths) -> None:
    assert tickwork("manners").out == "no requests were sent\n"
    InState.held(paths)
    (row,) = tickwork("manners", "--json").json()
    assert (row["host"], row["holds"], row["requests"]) == (HOST, 1, 0)
    assert tickwork("manners").out.splitlines()[0].split()[:3] == ["DAY", "HOST", "REQUESTS"]
