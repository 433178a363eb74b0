"""What the commands share: the settings of this source, its store, and the sessions with the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.settings import override
from tickwork.contract.stop import Stop
from tickwork.deployment import Deployment
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import AtprotoStore
from tickwork.upstream.hosts import InvalidHostError, server_of
from tickwork.upstream.policy import Policy

if TYPE_CHECKING:
    from tickwork.sources.atproto.xrpc_client import XrpcClient
    from tickwork.upstream.http.session import Upstream

_NAMED_FOR_URLS = ("plc", "relays", "hosts")


def settings_of(deployment: Deployment, **given: object) -> AtprotoSettings:
    """The settings, with what a command's options say instead (None says nothing). Raises OperatorError.

    Addresses are in one spelling and have no slash at their end, so that no list is gone through twice.
    """
    settings = override(deployment.settings.section("atproto", AtprotoSettings), "atproto", **given)
    if not settings.plc:
        raise OperatorError("[atproto] plc is empty: list at least one directory")
    addresses = {
        name: tuple(dict.fromkeys(_address(url, name) for url in getattr(settings, name))) for name in _NAMED_FOR_URLS
    }
    return msgspec.structs.replace(settings, **addresses)


def _address(url: str, name: str) -> str:
    try:
        return server_of(url).origin + urlsplit(url).path.rstrip("/")
    except InvalidHostError as error:
        raise OperatorError(
            f"[atproto] {name}: {url!r} is not an address such as https://example.org: {error}"
        ) from error


@contextmanager
def writing(deployment: Deployment) -> Iterator[AtprotoStore]:
    """The store, made where there is none."""
    with AtprotoStore.open(deployment.paths.database("atproto")) as store:
        yield store


BEGIN = "tickwork atproto add DID, or tickwork atproto discover"


def reading(deployment: Deployment, *, begin: str = BEGIN) -> AbstractContextManager[AtprotoStore]:
    """The store, to be looked at; where there is none yet OperatorError, or without `begin` an empty one."""
    return AtprotoStore.reading(deployment.paths.database("atproto"), begin=begin)


class Sessions:
    """The sessions with directories, servers and relays; they close with the block.

    `stop` ends whatever they are doing.
    """

    def __init__(self, deployment: Deployment, settings: AtprotoSettings, stop: Stop) -> None:
        self._deployment = deployment
        self._settings = settings
        self._stop = stop
        self._open = ExitStack()
        self._networks: dict[tuple[tuple[str, ...], tuple[str, ...]], XrpcClient] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def lists(self, private: Sequence[str]) -> Upstream:
        """For the lists of relays and servers."""
        settings = self._settings
        policy = self._policy(interval_seconds=settings.list_interval_seconds, concurrency=1)
        return self._session("atproto lists", policy, (*settings.relays, *settings.hosts), private)

    def network(self, directories: Sequence[str], private: Sequence[str]) -> XrpcClient:
        """For one account: its own directories where it has some, and the networks that may be called for it."""
        from tickwork.sources.atproto.xrpc_client import XrpcClient

        settings = self._settings
        urls, allowed = tuple(directories or settings.plc), tuple(private)
        if (urls, allowed) not in self._networks:
            plc = self._policy(interval_seconds=settings.plc_interval_seconds, concurrency=settings.plc_concurrency)
            pds = self._policy(interval_seconds=settings.host_interval_seconds, concurrency=settings.host_concurrency)
            self._networks[urls, allowed] = XrpcClient(
                self._session("atproto directory", plc, urls, allowed),
                self._session("atproto", pds, (), allowed),
                urls,
                private=bool(allowed or self._deployment.allow_private),
            )
        return self._networks[urls, allowed]

    def _policy(self, *, interval_seconds: float, concurrency: int) -> Policy:
        settings = self._settings
        try:
            return Policy(
                interval_seconds=interval_seconds,
                concurrency=concurrency,
                connect_seconds=settings.connect_seconds,
                read_seconds=settings.read_seconds,
                total_seconds=settings.total_seconds,
                max_bytes=settings.max_bytes,
                retries=1,
            )
        except ValueError as error:
            raise OperatorError(f"[atproto] {error}") from error

    def _session(self, name: str, policy: Policy, urls: Sequence[str], private: Sequence[str]) -> Upstream:
        # An operator's own addresses may have any port, unlike those out of documents.
        ports = {port for url in urls if (port := urlsplit(url).port)}
        return self._open.enter_context(
            self._deployment.upstream(name, policy, self._stop, private=private, ports=ports)
        )
