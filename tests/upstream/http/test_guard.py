"""Which URLs and addresses are called."""

from __future__ import annotations

import ipaddress
import threading
import time

import pytest

from tests.kits.patience import PATIENCE_SECONDS
from tickwork.contract.outcomes import Interrupted
from tickwork.contract.stop import Stop
from tickwork.upstream.http.errors import UnsafeUrl, shown
from tickwork.upstream.http.guard import Guard, is_public

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def resolving(*addresses: str) -> Guard:
    return Guard([LOOPBACK], resolve=lambda host, port: list(addresses))


def connectable(guard: Guard, port: int = 443) -> list[str]:
    return [str(address) for address in guard.addresses("pds.example", port, Stop(), 5)]


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::5"])
def test_public_addresses_are_called(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.5", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1",
        "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "100::1", "5f00::1",
        "::ffff:8.8.8.8", "::ffff:10.0.0.5", "::8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::a00:5", "2002:a00:5::1",
        "2002:808:808::1", "2001:0:808:808::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1",
        "2606:4700::1111%eth0",
    ],
)  # fmt: skip
def test_no_other_address_is_called(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(UnsafeUrl, match="--allow-private"):
        connectable(Guard(resolve=lambda host, port: [address]))


@pytest.mark.parametrize(
    ("url", "canonical", "key"),
    [
        ("http://Repo.Example", "http://repo.example/", "repo.example"),
        ("https://repo.example.:443/a?b=c#d", "https://repo.example/a?b=c", "repo.example"),
        ("http://repo.example:443/", None, "repo.example:443"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/ä", "xn--bcher-kva.example"),
        ("https://BÜCHER。example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("https://[2606:4700:0::1111]/", "https://[2606:4700::1111]/", "[2606:4700::1111]"),
        ("https://1.1.1.1/", None, "1.1.1.1"),
        ("https://1.1.1.1./", "https://1.1.1.1/", "1.1.1.1"),
        ("https://_oai.repo.example/", None, "_oai.repo.example"),
    ],
)
def test_a_url_has_one_form_and_its_host_one_key(url: str, canonical: str | None, key: str) -> None:
    target = Guard().check_url(url)
    assert target.url == (canonical or url)
    assert target.key == key


@pytest.mark.parametrize(
    "url",
    [
        "", "repo.example", "//repo.example/", "ftp://repo.example/", "file:///etc/passwd", "http://", "http:///x",
        "http://user@repo.example/", "http://user:pass@repo.example/", "http://@repo.example/",
        "http://repo.example:8080/", "http://repo.example:0/", "http://repo.example:99999/", "http://repo.example:x/",
        "http://repo.example\\@evil.example/", "http://repo.example/a b", "http://repo.example/\n", "\thttp://x.example/",
        "http://repo..example/", "http://-repo.example/", "http://repo.example*/", "http://" + "a" * 64 + ".example/",
        "http://" + ".".join(["a" * 60] * 5) + "/", "http://repo.example/" + "a" * 5000, "http://%6c.example/",
        # every way to write a loopback or private address
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0/",
        "http://017700000001/", "http://0177.0.0.1/", "http://127.0.0.01/", "http://１２７.0.0.1/", "http://127。0。0。1/",
        "http://10.0.0.5/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
        "http://[fe80::1%25eth0]/", "http://[2606:4700::1111%25eth0]/", "http://[64:ff9b::7f00:1]/", "http://[v1.x]/",
        "http://[::1/", "http://repo.example.0x7f/", "http://1.2.3.4.5/",
    ],
)  # fmt: skip
def test_no_other_url_is_called(url: str) -> None:
    with pytest.raises(UnsafeUrl):
        Guard().check_url(url)


def test_the_allow_list_opens_its_networks_at_any_port_and_no_others() -> None:
    guard = Guard([LOOPBACK, ipaddress.ip_network("fd00::/8")])
    assert guard.check_url("http://127.0.0.1:8080/").key == "127.0.0.1:8080"
    assert guard.check_url("http://[fd00::1]:8080/").key == "[fd00::1]:8080"
    for url in ("http://10.0.0.5/", "http://1.1.1.1:8080/", "http://[::ffff:127.0.0.1]/"):
        with pytest.raises(UnsafeUrl):
            guard.check_url(url)


def test_of_mixed_answers_only_the_allowed_addresses_are_connected_to() -> None:
    assert connectable(resolving("10.0.0.5", "1.1.1.1", "64:ff9b::a00:5", "127.0.0.1")) == ["1.1.1.1", "127.0.0.1"]
    assert connectable(resolving("1.1.1.1", "127.0.0.1"), port=8080) == ["127.0.0.1"]
    with pytest.raises(UnsafeUrl, match=r"pds\.example:443: it resolves to 10\.0\.0\.5, 192\.168\.0\.1; .*--allow"):
        connectable(resolving("10.0.0.5", "192.168.0.1"))
    with pytest.raises(UnsafeUrl, match="port 8080"):
        connectable(resolving("1.1.1.1"), port=8080)
    with pytest.raises(UnsafeUrl, match="no address"):
        connectable(resolving())


def test_a_slow_look_up_ends_at_the_timeout_and_at_the_stop() -> None:
    released = threading.Event()
    guard = Guard(resolve=lambda host, port: (released.wait(600) and []) or [])
    stop = Stop()
    with pytest.raises(TimeoutError, match=r"pds\.example was not resolved within 0\.1 s"):
        guard.addresses("pds.example", 443, stop, 0.1)
    threading.Timer(0.1, stop.request, ["TERM"]).start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        guard.addresses("pds.example", 443, stop, 600)
    assert time.monotonic() - begun < PATIENCE_SECONDS
    released.set()


def test_a_name_that_cannot_be_resolved_is_a_connection_fault() -> None:
    with pytest.raises(OSError, match=r"nothing\.invalid|not known|resolution"):
        Guard().addresses("nothing.invalid", 443, Stop(), 10)


def test_a_message_shows_no_secret_and_nothing_unprintable() -> None:
    url = "https://ada:pw@repo.example/oai?verb=List&resumptionToken=r1&api_key=k1&access_token=t1&sig=s1\x1b[31m"
    text = shown(url)
    assert "resumptionToken=r1" in text
    assert not any(secret in text for secret in ("ada", "pw", "k1", "t1", "s1", "\x1b"))
    assert len(shown("http://x.example/" + "a" * 5000)) <= 200
