"""One name for one server, whatever spelling of its address is given: for guard, slots, holds, shards and turns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.hosts import ANYWHERE, Spelt, owner, servers, spellings_of_one
from tickwork.contract.outcomes import Held, OperatorError
from tickwork.contract.stop import Stop
from tickwork.upstream.hosts import HostKey, InvalidHostError, host_key, server_of
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Flight, Slots


@pytest.mark.parametrize(
    ("address", "scheme", "key"),
    [
        ("https://pds.example.org", "", "pds.example.org"),
        ("https://pds.example.org.", "", "pds.example.org"),
        ("HTTPS://PDS.Example.ORG:0443/xrpc?a#b", "", "pds.example.org"),
        ("http://pds.example.org:443", "", "pds.example.org:443"),
        ("https://bücher.example", "", "xn--bcher-kva.example"),
        ("https://XN--BCHER-KVA.example", "", "xn--bcher-kva.example"),
        ("https://[2606:4700:0:0::0:1111]:443", "", "[2606:4700::1111]"),
        ("https://1.1.1.1.", "", "1.1.1.1"),
        ("pds.example.org:443", "https", "pds.example.org"),
        ("pds.example.org:443", "http", "pds.example.org:443"),
        ("PDS.example.org.:0443", "", "pds.example.org:443"),
        ("[2606:4700:0::1111]", "", "[2606:4700::1111]"),
    ],
)
def test_an_address_leads_to_the_key_of_its_server(address: str, scheme: str, key: str) -> None:
    assert host_key(address, scheme) == key


@pytest.mark.parametrize(
    "address",
    [
        "", ".", "a..b", "https://", "https:///x", "ftp://a.example", "a.example/x", "a.example?x", "user@a.example",
        "https://user:pw@a.example", "a.example:0", "a.example:x", "a.example:65536", "a b.example", "a.example\n",
        "-a.example", "a*.example", "2606:4700::1111", "[2606:4700::1111", "[2606:4700::1111%25eth0]", "127.1",
        "0x7f000001", "127.0.0.01", "a" * 64 + ".example", "a.example\\@b.example", "https://a%2eexample", "☃..example",
    ],
)  # fmt: skip
def test_what_does_not_name_a_server_has_no_key(address: str) -> None:
    with pytest.raises(InvalidHostError):
        host_key(address)


@given(st.text(max_size=30) | st.text("aA.:[]0x1/@?#。é-", max_size=20))
def test_any_text_either_has_no_key_or_one_that_is_its_own(text: str) -> None:
    try:
        key = host_key(text)
    except InvalidHostError:
        return
    assert key.isascii()
    assert key == key.lower()
    assert host_key(key) == key


@given(servers(), st.data())
def test_every_spelling_of_a_server_has_one_key(server: Spelt, data: st.DataObject) -> None:
    url = data.draw(server.urls)
    assert host_key(url) == server.key
    assert server_of(url).origin == f"{server.scheme}://{server.key}"
    assert host_key(data.draw(server.hosts), server.scheme) == server.key
    assert host_key(server.key) == server.key


@given(servers(), st.data())
def test_the_guard_names_a_server_by_its_key_and_the_url_by_its_origin(server: Spelt, data: st.DataObject) -> None:
    target = Guard(ANYWHERE).check_url(data.draw(server.urls))
    assert target.key == server.key
    assert target.url.startswith(f"{server.scheme}://{server.key}/")


@given(spellings_of_one, st.integers(1, 8))
def test_every_spelling_of_a_server_is_of_one_part(spelt: tuple[Spelt, list[str]], count: int) -> None:
    server, urls = spelt
    assert {owner(host_key(url), count) for url in urls} == {owner(server.key, count)}


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slots]:
    """The slots of the machine, free when an example begins and when it ends."""
    with Slots(tmp_path_factory.mktemp("hosts") / "slots.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def upstream(slots: Slots) -> Iterator[Upstream]:
    with Upstream("any", slots=slots, guard=Guard(ANYWHERE), stop=Stop(), contact="https://me.example") as opened:
        yield opened


@given(spelt=spellings_of_one, data=st.data(), bare=st.booleans())
@settings(max_examples=50)
def test_a_hold_under_one_spelling_is_met_under_another_and_cleared_under_a_third(
    spelt: tuple[Spelt, list[str]], data: st.DataObject, bare: bool, slots: Slots, upstream: Upstream
) -> None:
    server, (first, second, third) = spelt
    upstream.hold_for(first, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), "asked")
    with pytest.raises(Held) as held:  # asked of the slots: nothing is sent to whoever it is, whatever fails here
        slots.claim(Guard(ANYWHERE).check_url(second).key, Policy(), 60)
    assert held.value.host == server.key
    assert slots.clear(data.draw(server.hosts) if bare else third, "ada", "they agreed") == server.key
    assert slots.holds() == []


def test_a_hold_is_cleared_by_the_name_under_which_it_is_shown(tmp_path: Path) -> None:
    """Also where that has a port that another scheme would take for granted."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with Slots(tmp_path / "slots.db") as slots:
        for url in ("https://repo.example", "http://repo.example:443"):
            slots.hold(host_key(url), until, "asked")
        assert slots.clear("repo.example:443", "ada", "they agreed") == "repo.example:443"
        assert [hold.host for hold in slots.holds()] == ["repo.example"]
        assert slots.clear("repo.example:443", "ada", "they agreed") == "repo.example"
        with pytest.raises(OperatorError, match=r"^there is no hold on repo\.example:443; see: tickwork holds$"):
            slots.clear("repo.example:443", "ada", "they agreed")
        with pytest.raises(OperatorError, match=r"^'a\.\.b' does not name a server: .* See tickwork holds$"):
            slots.clear("a..b", "ada", "they agreed")


@given(spelt=spellings_of_one)
@settings(max_examples=50)
def test_two_spellings_of_a_server_share_its_slots(spelt: tuple[Spelt, list[str]], slots: Slots) -> None:
    _, (first, second, _) = spelt
    guard, policy = Guard(ANYWHERE), Policy(interval_seconds=0)
    flight = slots.claim(guard.check_url(first).key, policy, 60)
    assert isinstance(flight, Flight)
    assert not isinstance(slots.claim(guard.check_url(second).key, policy, 60), Flight)
    slots.settle(flight, bytes=0, status=200)


def test_a_server_that_is_not_known_has_no_key() -> None:
    with pytest.raises(InvalidHostError):
        host_key(HostKey(""))
