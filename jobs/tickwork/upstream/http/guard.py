"""Which URLs and addresses we speak to: URLs out of data must not reach into the operator's own network.

A name is judged by the addresses it resolves to, and the connection is made to an address that was judged (see
`pinned_adapter`), so a second, different DNS answer changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tickwork.contract.stop import Stop
from tickwork.upstream.hosts import DEFAULT_PORTS, InvalidHostError, Server, server_of
from tickwork.upstream.http.errors import UnsafeUrl

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], list[str]]

MAX_URL_CHARACTERS = 4096
# How often a look-up looks at the stop: getaddrinfo cannot be interrupted.
_RESOLVE_POLL_SECONDS = 0.05

# Refused beyond what `ipaddress` calls not global. Everything here either is no ordinary host or carries an IPv4
# address inside, which a gateway would unpack behind our back.
_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # IETF protocol assignments
            "192.88.99.0/24",  # 6to4 relays
            "224.0.0.0/4",  # multicast
            "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation
        ),
    )
)
# The only part of IPv6 that is given out as public unicast; leaves out mapped, NAT64, ULA, site-local, multicast.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


@dataclass(frozen=True, slots=True)
class Target(Server):
    """A URL that may be called: in canonical form, without fragment."""

    url: str


def is_public(address: Address) -> bool:
    """True for a public unicast address of a host, and nothing else."""
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address not in _GLOBAL_UNICAST):
        return False
    return address.is_global and not any(address in network for network in _REFUSED)


def system_resolve(host: str, port: int) -> list[str]:
    """Addresses of `host` as the system resolves it; raises OSError (gaierror)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Judges URLs and addresses.

    `allow` names networks that may be called although they are not public, at any port: for tests and private
    deployments. `resolve` gives the addresses of a host name, and may block.
    """

    def __init__(
        self,
        allow: Sequence[Network] = (),
        *,
        ports: Collection[int] = frozenset((80, 443)),
        schemes: Collection[str] = frozenset(DEFAULT_PORTS),
        resolve: Resolve = system_resolve,
    ) -> None:
        self._allow = tuple(allow)
        self._ports = frozenset(ports)
        self._schemes = frozenset(schemes)
        self._resolve = resolve

    def check_url(self, url: str) -> Target:
        """Take `url` apart if it may be called as far as its text shows; raises UnsafeUrl."""
        if len(url) > MAX_URL_CHARACTERS:
            raise UnsafeUrl(url, f"it is longer than {MAX_URL_CHARACTERS} characters")
        try:
            server = server_of(url)
        except InvalidHostError as error:
            raise UnsafeUrl(url, str(error)) from error
        if server.scheme not in self._schemes:
            raise UnsafeUrl(url, f"the scheme is not one of {', '.join(sorted(self._schemes))}")
        self._check_port(url, server.host, server.port)
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        return Target(server.scheme, server.host, server.port, url=f"{server.origin}{parts.path or '/'}{query}")

    def addresses(self, host: str, port: int, stop: Stop, timeout: float) -> list[Address]:
        """Addresses of `host` that may be connected to at `port`, in the resolver's order.

        Raises UnsafeUrl when there is none, Interrupted on stop, TimeoutError after `timeout` seconds, and OSError
        when the name cannot be resolved.
        """
        found = [ipaddress.ip_address(text) for text in self._look_up(host, port, stop, timeout)]
        good = [address for address in found if self._may_connect(address, port)]
        if not good:
            listed = ", ".join(map(str, found[:4])) or "no address"
            raise UnsafeUrl(f"//{host}:{port}", f"it resolves to {listed}; {_mend(port, found)}")
        return good

    def _check_port(self, url: str, host: str, port: int) -> None:
        """Refuse an address or a port that no resolution could make good."""
        literal = _literal(host)
        if literal is not None and not self._may_connect(literal, port):
            raise UnsafeUrl(url, _mend(port, [literal]))
        if port not in self._ports and not self._allow:
            raise UnsafeUrl(url, f"port {port} is not one of {', '.join(map(str, sorted(self._ports)))}")

    def _may_connect(self, address: Address, port: int) -> bool:
        if any(address in network for network in self._allow):
            return True
        return port in self._ports and is_public(address)

    def _look_up(self, host: str, port: int, stop: Stop, timeout: float) -> list[str]:
        if _literal(host) is not None:
            return [host]
        answer: list[str] = []
        failure: list[OSError] = []
        done = threading.Event()

        def look_up() -> None:
            try:
                answer.extend(self._resolve(host, port))
            except OSError as error:
                failure.append(error)
            except UnicodeError as error:
                failure.append(OSError(f"{host} cannot be resolved: {error}"))
            finally:
                done.set()

        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
        end = time.monotonic() + timeout
        while not done.wait(_RESOLVE_POLL_SECONDS):
            stop.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{host} was not resolved within {timeout:g} s")
        stop.check()
        if failure:
            raise failure[0]
        return answer


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _mend(port: int, found: Sequence[Address]) -> str:
    if all(map(is_public, found)) and found:
        return f"port {port} is not one we call"
    return "that is not a public address (to allow a network of your own: --allow-private CIDR)"
