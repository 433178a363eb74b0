"""Connections that go to the address that was judged, under the name that was asked for, and that can be cut.

The host name stays what TLS (SNI and certificate) and the Host header see; only the socket goes to a checked address.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import select
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tickwork.contract.outcomes import Interrupted
from tickwork.upstream.http.guard import Address, Guard
from tickwork.upstream.http.watchdog import Watchdog

# Hosts whose idle connections are kept open; beyond that the one used longest ago is closed.
_KEPT_HOSTS = 64
_MAX_CHUNK_LINE = 4096
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")


class PinnedAdapter(HTTPAdapter):
    """A requests adapter whose every connection is judged by `guard` and covered by `watchdog`.

    It uses no proxy and always checks certificates, against `ca_bundle` (PEM) or those that requests brings. Beyond
    what requests raises, sending raises UnsafeUrl and Interrupted.
    """

    def __init__(self, guard: Guard, watchdog: Watchdog, *, per_host: int, ca_bundle: Path | None = None) -> None:
        self._guard = guard
        self._watchdog = watchdog
        # One for all connections: reading the bundle costs more than most requests.
        self._tls = ssl.create_default_context(cafile=str(ca_bundle or DEFAULT_CA_BUNDLE_PATH))
        super().__init__(pool_connections=_KEPT_HOSTS, pool_maxsize=per_host, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the library has it
        """Make the pools of urllib3, with connections of ours in them."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._tls)
        guard, watchdog = self._guard, self._watchdog

        class Http(_Pinned, HTTPConnection):
            pass

        class Https(_Pinned, HTTPSConnection):
            pass

        class HttpPool(HTTPConnectionPool):
            ConnectionCls = Http

        class HttpsPool(HTTPSConnectionPool):
            ConnectionCls = Https

        for made in (Http, Https):
            made.guard, made.watchdog = guard, watchdog
        self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}

    def cert_verify(self, *_: object) -> None:
        """Leave the pool as it is: its TLS context already checks certificates."""


class _StrictResponse(http.client.HTTPResponse):
    """An answer whose header has an end and whose chunk sizes are sizes.

    The library takes a connection that breaks within the header for the header's end (the answer is then complete and
    empty), and reads to the end, without bound, for a negative chunk size.
    """

    def begin(self) -> None:
        """Read the header; raises RemoteDisconnected if it breaks off."""
        fp = self.fp
        self.fp = _WholeLines(fp)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:  # else it was closed, for a status line that is none
                self.fp = fp

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_CHUNK_LINE)
        size = line.partition(b";")[0].strip()
        if not line.endswith(b"\n") or not _CHUNK_SIZE.fullmatch(size):
            raise ValueError("malformed chunk size")
        return int(size, 16)


class _WholeLines:
    """What reads a header, with an end of file in a line made the error it is."""

    def __init__(self, fp: io.BufferedIOBase) -> None:
        self._fp = fp

    def readline(self, limit: int = -1) -> bytes:
        line = self._fp.readline(limit)
        if not line.endswith(b"\n"):
            raise http.client.RemoteDisconnected("the connection ended within the header")
        return line

    def close(self) -> None:
        self._fp.close()


class _Pinned(HTTPConnection):
    guard: Guard
    watchdog: Watchdog
    response_class = _StrictResponse

    def _new_conn(self) -> socket.socket:
        watch = self.watchdog.current
        end = time.monotonic() + min(watch.remaining, float(self.timeout or watch.remaining))
        addresses = self.guard.addresses(self.host, self.port, self.watchdog.stop, end - time.monotonic())
        connected = self._connect_to_any(addresses, end)
        watch.cover(connected)
        connected.settimeout(max(end - time.monotonic(), 0.001))
        return connected

    def _connect_to_any(self, addresses: list[Address], end: float) -> socket.socket:
        """Try the addresses in turn, each with an equal share of the time that is left until `end`."""
        failure: OSError = TimeoutError("no time left to connect")
        for tried, address in enumerate(addresses):
            share = max(0.0, end - time.monotonic()) / (len(addresses) - tried)
            try:
                return self._connect_to(address, share)
            except OSError as error:
                failure = error
        raise failure

    def _connect_to(self, address: Address, seconds: float) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect_ex((str(address), self.port))
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            poll.register(self.watchdog.stop.fileno(), select.POLLIN)
            ready = dict(poll.poll(seconds * 1000))
            if self.watchdog.stop.fileno() in ready:
                raise Interrupted(self.watchdog.stop.reason)
            if not ready:
                raise TimeoutError(f"no connection to {address} within {seconds:.1f} s")
            fault = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if fault:
                raise OSError(fault, f"{os.strerror(fault)} ({address})")
        except BaseException:
            sock.close()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the library has it
        """Send a request; a kept connection comes under this request's watch first."""
        if self.sock is not None:
            self.watchdog.current.cover(self.sock)
        super().request(*args, **kwargs)
