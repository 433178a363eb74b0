"""Servers and the ways to write their addresses, and which part of a split one belongs to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from hypothesis import strategies as st

from tickwork.upstream.hosts import DEFAULT_PORTS, HostKey
from tickwork.upstream.shards import Shard

ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""What a guard must allow that is to judge nothing but the text."""
_WIDE = {code: code + 0xFEE0 for code in range(ord("!"), ord("~"))}


def owner(host: str, count: int) -> int:
    """The one part that owns a server."""
    (number,) = (number for number in range(1, count + 1) if Shard(number, count).owns(HostKey(host)))
    return number


def cased(text: str) -> st.SearchStrategy[str]:
    """`text` with some of its ASCII letters as capitals."""

    def capitals(which: int) -> str:
        return "".join(x.upper() if x.isascii() and which >> at & 1 else x for at, x in enumerate(text))

    return st.integers(0, 2 ** len(text) - 1).map(capitals)


# Names: each label with its other spellings.
_plain = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
_foreign = st.sampled_from(["bücher", "köln", "日本語", "ελλάδα", "straße"])


def _punycode(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode()}"


@st.composite
def _names(draw: st.DrawFn) -> tuple[str, list[st.SearchStrategy[str]]]:
    labels = [*draw(st.lists(_plain | _foreign, min_size=1, max_size=3)), "example"]
    encoded = ".".join(map(_punycode, labels))
    dotted = ".".join(labels)
    texts = [encoded, f"{encoded}.", dotted, f"{dotted}.", "。".join(labels), encoded.translate(_WIDE)]
    return encoded, [cased(text) for text in texts]


def _of_version_4(address: ipaddress.IPv4Address) -> tuple[str, list[st.SearchStrategy[str]]]:
    return str(address), [st.sampled_from([str(address), f"{address}."])]


def _of_version_6(address: ipaddress.IPv6Address) -> tuple[str, list[st.SearchStrategy[str]]]:
    groups = address.exploded.split(":")
    four = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    ways = [
        address.compressed,
        address.exploded,
        ":".join(group.lstrip("0") or "0" for group in groups),
        ":".join([*groups[:6], str(four)]),
    ]
    return f"[{address.compressed}]", [cased(f"[{way}]") for way in ways]


_hosts = st.one_of(
    _names(),
    st.ip_addresses(v=4).map(_of_version_4),
    # Where an address of version 4 is inside, versions of Python write it in different ways.
    st.ip_addresses(v=6, network="2000::/3").map(_of_version_6),
)


@dataclass(frozen=True)
class Spelt:
    """A server: its key, and ways to write its address, as a URL and as a host with or without a port."""

    scheme: str
    key: str
    urls: st.SearchStrategy[str]
    hosts: st.SearchStrategy[str]


@st.composite
def servers(draw: st.DrawFn) -> Spelt:
    """Any server, with its other spellings."""
    scheme = draw(st.sampled_from(["http", "https"]))
    host, ways = draw(_hosts)
    port = draw(st.none() | st.integers(1, 65535).filter(lambda port: port != DEFAULT_PORTS[scheme]))
    said = DEFAULT_PORTS[scheme] if port is None else port
    ports = [f":{said}", f":0{said}", f":000{said}", *(["", ":"] if port is None else [])]
    hosts = st.builds("{}{}".format, st.one_of(ways), st.sampled_from(ports))
    ends = st.sampled_from(["", "/", "/a/b?c=d#e"])
    urls = st.builds("{}://{}{}".format, cased(scheme), hosts, ends)
    return Spelt(scheme, host if port is None else f"{host}:{port}", urls, hosts)


spellings_of_one = servers().flatmap(
    lambda spelt: st.tuples(st.just(spelt), st.lists(spelt.urls, min_size=3, max_size=3))
)
"""A server and three URLs of it."""
