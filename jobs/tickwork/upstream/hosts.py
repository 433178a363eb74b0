"""The one name of a server: whatever spelling of its address we are given, slots, holds, queues and shards agree on it.

What is not an address here is not called at all; whether an address may be called is the guard's to say.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NewType
from urllib.parse import urlsplit

HostKey = NewType("HostKey", str)
"""`host` or `host:port` as `host_key` writes it; empty where a server is not known yet."""

UNKNOWN = HostKey("")
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_HOST_CHARACTERS = 253

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# A last label like this makes resolvers read the whole name as an IPv4 address, in octal or hex if need be.
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\]")


class InvalidHostError(ValueError):
    """Not the address of a server; the message says why, without the address."""


@dataclass(frozen=True, slots=True)
class Server:
    """Scheme, host and port of a URL in the one form we use; `host` is ASCII, without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def key(self) -> HostKey:
        """Its name: the scheme's default port is left out."""
        return _named(self.host, self.port, self.scheme)

    @property
    def origin(self) -> str:
        """`scheme://key`."""
        return f"{self.scheme}://{self.key}"


def server_of(url: str) -> Server:
    """The server of a URL. Raises InvalidHostError."""
    scheme, host, port = _read(url)
    if scheme not in DEFAULT_PORTS:
        raise InvalidHostError(f"the scheme is not one of {', '.join(DEFAULT_PORTS)}")
    return Server(scheme, host, DEFAULT_PORTS[scheme] if port is None else port)


def host_key(address: str, scheme: str = "") -> HostKey:
    """The name of the server at `address`, a URL or, with its `scheme`, `host[:port]`. Raises InvalidHostError.

    Lower-case ASCII without a trailing dot, IPv6 in its short form in brackets, the scheme's default port left out.
    Where the scheme is not known no port is left out, so the key of a key is that key.
    """
    if "://" in address:
        return server_of(address).key
    if re.search("[/?#]", address):
        raise InvalidHostError("it is neither a URL nor a host")
    _, host, port = _read(f"//{address}")
    return _named(host, port, scheme)


def _named(host: str, port: int | None, scheme: str) -> HostKey:
    if ":" in host:
        host = f"[{host}]"
    return HostKey(host if port in (None, DEFAULT_PORTS.get(scheme)) else f"{host}:{port}")


def _read(url: str) -> tuple[str, str, int | None]:
    """Scheme, canonical host and port as a URL has them."""
    if _NOT_IN_A_URL.search(url):
        raise InvalidHostError("it contains a blank, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidHostError(str(error)) from error
    if "@" in parts.netloc:
        raise InvalidHostError("it contains a user or password")
    if port == 0:
        raise InvalidHostError("0 is not a port")
    return parts.scheme, _canonical(parts.hostname or "", bracketed=parts.netloc.startswith("[")), port


def _canonical(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            if "%" in host:
                raise ValueError("an IPv6 zone means something on one machine only")
            return ipaddress.IPv6Address(host).compressed
        except ValueError as error:
            raise InvalidHostError(f"bad IPv6 address: {error}") from error
    if not host.isascii():
        host = _international(host)
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidHostError("the host name is missing or malformed")
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise InvalidHostError(f"an IPv4 address must be four decimal numbers: {error}") from error
    return host


def _international(host: str) -> str:
    # Here and not above: its tables are large, and `tickwork status` comes by here.
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise InvalidHostError(f"bad international host name: {error}") from error
