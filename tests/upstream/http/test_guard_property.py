"""No address that is not public is called, however it is written or wrapped."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tickwork.contract.stop import Stop
from tickwork.upstream.http.errors import UnsafeUrl
from tickwork.upstream.http.guard import Guard, is_public

NOT_GLOBAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip
v4 = st.ip_addresses(v=4)
private_v4 = st.sampled_from(NOT_GLOBAL).flatmap(lambda network: st.ip_addresses(network=network))
low = st.integers(0, 2**64 - 1)


def refused(text: str) -> bool:
    guard = Guard(resolve=lambda host, port: [text])
    with pytest.raises(UnsafeUrl):
        guard.addresses("host.example", 443, Stop(), 5)
    literal = f"[{text}]" if ":" in text else text
    with pytest.raises(UnsafeUrl):
        guard.check_url(f"https://{literal}/")
    return True


@given(private_v4 | st.ip_addresses(v=6))
def test_what_ipaddress_calls_not_global_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assume(not address.is_global or address.is_multicast)
    assert not is_public(address)
    assert refused(str(address))


@given(v4 | private_v4, low)
def test_an_ipv4_address_inside_an_ipv6_one_is_refused(address: ipaddress.IPv4Address, rest: int) -> None:
    value = int(address)
    for wrapped in (
        0xFFFF << 32 | value,  # mapped
        value,  # compatible
        0x0064_FF9B << 96 | value,  # NAT64
        0x0064_FF9B_0001 << 80 | (rest & (2**48 - 1)) << 32 | value,  # NAT64, local use
        0x2002 << 112 | value << 80 | rest,  # 6to4
        0x2001_0000 << 96 | (rest & 0xFFFF_FFFF) << 64 | value ^ 0xFFFF_FFFF,  # Teredo
    ):
        assert refused(str(ipaddress.IPv6Address(wrapped)))


@given(private_v4, st.data())
def test_every_notation_of_a_private_ipv4_address_is_refused(
    address: ipaddress.IPv4Address, data: st.DataObject
) -> None:
    value = int(address)
    a, b, c, d = address.packed
    host = data.draw(
        st.sampled_from(
            [
                str(value),
                hex(value),
                oct(value).replace("o", ""),
                f"{a}.{value & 0xFFFFFF}",
                f"{a}.{b}.{value & 0xFFFF}",
                f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
                f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
                f"{a:03}.{b:03}.{c:03}.{d:03}",
                f"{a}。{b}。{c}。{d}",
                str(address).translate({48 + digit: 0xFF10 + digit for digit in range(10)}),
            ]
        )
    )
    with pytest.raises(UnsafeUrl):
        Guard(resolve=lambda host, port: ["1.1.1.1"]).check_url(f"http://{host}/")


@given(st.text(max_size=40) | st.text("ht:/.@[]%0127xf\\?#ab。", max_size=30).map(lambda text: f"http://{text}"))
def test_any_text_is_either_refused_or_has_one_canonical_form(url: str) -> None:
    guard = Guard()
    try:
        target = guard.check_url(url)
    except UnsafeUrl:
        return
    assert guard.check_url(target.url) == target
