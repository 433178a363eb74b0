"""A strict fake of the AT Protocol network that also judges the manners of its clients.

    with Network(hosts=50, accounts_a_host=20, seed=7, at_once=4, fault_rate=0.1) as network:
        network.fault("missing-record", did=did, times=None)
        backfill(network.plc_url, network.relay_url, network.accounts)
        assert stored(did) == network.truth(did)
        assert network.violations() == []

A PLC directory, a relay and any number of hosts, each at a port of its own, all served by one thread. As a process of
its own: `python -m tests.upstreams.pds --hosts 3 --accounts 20 --announce FILE`. It imports nothing of what it tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import string
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.upstreams.pds_accounts import STATUSES, FakeAccount
from tests.upstreams.pds_faults import RANDOM_REPOSITORIES, Chance, Fault, Switches
from tests.upstreams.pds_history import History, Seen, most_at_once, to_json
from tests.upstreams.pds_hosts import Host, Limit
from tests.upstreams.pds_http import CONTROL, Listener, Server
from tests.upstreams.pds_wire import CODINGS, Answer, Request, json_answer
from tests.upstreams.pds_xrpc import Services, listed, web_did

CURVES = ("secp256k1", "secp256r1")
_DID_LETTERS = string.ascii_lowercase + "234567"


class Network:
    """The network; its ports are taken when it is made, and served as a context manager or from `start` to `close`.

    Everything but the ports follows from the seed. Each account has up to `records` records. The first `web_accounts`
    hosts also have the account of a did:web. `at_once` is how many requests at a time a
    client may have at each host, `plc_at_once` at each directory (None: as many); `grace` is described at
    `violations`. No page of a list is longer than `page_size`. Every answer takes `latency` seconds, without which
    requests hardly ever meet. Rates of faults are described at `Chance`.
    """

    def __init__(
        self,
        hosts: int = 3,
        accounts_a_host: int = 5,
        *,
        seed: int = 1,
        records: int = 12,
        curves: tuple[str, ...] = CURVES,
        plc_mirrors: int = 1,
        web_accounts: int = 0,
        at_once: int = 1,
        plc_at_once: int | None = None,
        grace: float = 0.5,
        page_size: int = 1000,
        latency: float = 0.0,
        fault_rate: float = 0.0,
        plc_fault_rate: float = 0.0,
        permanent_rate: float = 0.0,
        fault_kinds: tuple[str, ...] = RANDOM_REPOSITORIES,
        fault_times: int = 1,
        fault_after: float = 1.0,
        address: str = "127.0.0.1",
        port: int = 0,
        name: str = "",
    ) -> None:
        self.lock = threading.RLock()
        self.accounts: dict[str, FakeAccount] = {}
        self.at_once, self.grace = at_once, grace
        self.plc_at_once = at_once if plc_at_once is None else plc_at_once
        self._seed, self._records, self._curves = seed, records, curves
        self._rng = random.Random(f"network {seed}")
        chance = Chance(seed, fault_rate, plc_fault_rate, permanent_rate, fault_kinds, fault_times, fault_after)
        self._switches = Switches(chance)
        self._history = History()

        names = ["plc", *(f"plc-{number}" for number in range(1, plc_mirrors)), "relay"]
        names += [f"pds-{number}" for number in range(hosts)]
        ports = [port + number if port else 0 for number in range(len(names))]
        listeners = [Listener(each, address, at, name) for each, at in zip(names, ports, strict=True)]
        self._hosts = {each.name: Host(each, latency=latency) for each in listeners}
        self.hosts = [host for host in self._hosts.values() if host.name.startswith("pds-")]
        self._relay = self._hosts["relay"]
        for number, host in enumerate(self.hosts):
            # Servers differ, and a client is to cope with all of them.
            host.chunked, host.always_cursor = number % 2 == 0, number % 3 == 1
            host.codings = [("gzip",), ("gzip",), (), tuple(reversed(CODINGS))][number % 4]
        self._services = Services(self.accounts, self._hosts, self._switches, self.lock, page_size)
        self._server = Server(listeners, self._services.reply, self._control, self._history)

        for host in self.hosts:
            for _ in range(accounts_a_host):
                self.add(host)
        for host in self.hosts[:web_accounts]:
            host.web = web_did(name or address, host.port)
            self.add(host, did=host.web)

    def __enter__(self) -> Network:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve, in a thread."""
        self._server.start()

    def close(self) -> None:
        """Stop serving; accounts and history stay."""
        self._server.stop()

    # Hosts.

    @property
    def plc_url(self) -> str:
        """The directory, the first of its mirrors."""
        return self._hosts["plc"].url

    @property
    def plc_urls(self) -> list[str]:
        """All mirrors of the directory."""
        return [host.url for host in self._hosts.values() if host.name.startswith("plc")]

    @property
    def relay_url(self) -> str:
        """The relay."""
        return self._relay.url

    def host(self, which: Host | int | str) -> Host:
        """A host by its number among `hosts`, its name ("plc", "plc-1", "relay", "pds-0") or its URL."""
        if isinstance(which, Host):
            return which
        if isinstance(which, int):
            return self.hosts[which]
        return next(host for host in self._hosts.values() if which.rstrip("/") in (host.name, host.url))

    def refuse(self, host: Host | int | str) -> None:
        """Refuse connections to a host, and end those it has."""
        found = self.host(host)
        found.refusing = True
        self._server.refuse(found.listener)

    def accept(self, host: Host | int | str) -> None:
        """Take connections to a refused host again."""
        found = self.host(host)
        found.refusing = False
        self._server.accept(found.listener)

    def limit(self, host: Host | int | str, requests: int, seconds: int) -> None:
        """Have a host allow so many requests in so many seconds, and tell of it in headers."""
        self.host(host).limit = Limit(requests, seconds)

    # Accounts.

    def add(
        self, host: Host | int | str, did: str = "", records: Mapping[str, Any] | None = None, curve: str = ""
    ) -> FakeAccount:
        """A new account at a host, its records generated unless they are given."""
        with self.lock:
            home, number = self.host(host), len(self.accounts)
            did = did or "did:plc:" + "".join(self._rng.choices(_DID_LETTERS, k=24))
            curve, count = curve or self._rng.choice(self._curves), self._rng.randint(0, self._records)
            account = FakeAccount(
                did, f"u{number}.fake.example", self._seed, self.lock, count=count, curve=curve, records=records
            )
            account.host, account.home = home.name, home.url
            self.accounts[did] = account
            home.seats.add(did)
            self._relay.seats.add(did)
            return account

    def put(self, did: str, path: str, value: Any) -> None:
        """Create or change a record."""
        self.edit(did, {path: value})

    def delete(self, did: str, path: str) -> None:
        """Delete a record."""
        self.edit(did, {}, [path])

    def edit(self, did: str, puts: Mapping[str, Any], deletes: Iterable[str] = ()) -> None:
        """Write and delete records in one commit."""
        self.accounts[did].edit(puts, deletes)

    def churn(self, edits: int) -> list[str]:
        """So many edits to active accounts chosen by the seed; gives their DIDs in order."""
        with self.lock:
            active = [account for account in self.accounts.values() if account.status == "active"]
            chosen = self._rng.choices(active, k=edits)
            for account in chosen:
                account.edit_at_random()
            return [account.did for account in chosen]

    def set_status(self, did: str, status: str) -> None:
        """Make an account active, deactivated, takendown, suspended, deleted or tombstoned."""
        if status not in STATUSES:
            raise ValueError(f"no status {status!r}; there are {', '.join(STATUSES)}")
        with self.lock:
            self.accounts[did].status = status

    def move(self, did: str, host: Host | int | str, *, forgotten: bool = False) -> None:
        """Move an account to another host. The old one has it as deactivated then, or has `forgotten` it."""
        with self.lock:
            account, new = self.accounts[did], self.host(host)
            old = self.host(account.host)
            if forgotten:
                old.seats.remove(did)
            else:
                old.left[did] = {**listed(account), "active": False, "status": "deactivated"}
            new.left.pop(did, None)
            new.seats.add(did)
            account.host, account.home = new.name, new.url
            account.commit_again()

    def rotate_key(self, did: str) -> None:
        """Give an account another signing key."""
        self.accounts[did].rotate_key()

    def prepare(self) -> None:
        """Sign all repositories now instead of when they are first asked for, which takes milliseconds each."""
        for account in list(self.accounts.values()):
            account.revision()

    def truth(self, did: str) -> dict[str, str]:
        """What a client should have of an account: the CID of each record, by path; nothing of a deleted account."""
        return self.accounts[did].truth()

    def truths(self) -> dict[str, dict[str, str]]:
        """The truth of every account."""
        return {did: account.truth() for did, account in list(self.accounts.items())}

    # Faults.

    def fault(self, kind: str, *, host: Host | int | str | None = None, **fields: Any) -> Fault:
        """Switch one more fault on; see `Fault` for kinds and fields. What it gives counts in `fired`."""
        return self._switches.add(Fault(kind, host=None if host is None else self.host(host).name, **fields))

    def clear_faults(self) -> None:
        """No more faults, by switch or by chance."""
        self._switches.clear()

    def broken(self) -> dict[str, str]:
        """The accounts whose repository never comes right, with the kind of fault."""
        return self._switches.permanent(list(self.accounts))

    # The oracle.

    def requests(self, host: Host | int | str | None = None, method: str | None = None) -> list[Seen]:
        """The requests so far, in the order of arrival: all, or those of a host or a method ("getRepo", "document")."""
        return self._history.requests(None if host is None else self.host(host).name, method)

    def max_at_once(self, host: Host | int | str) -> int:
        """How many requests were in flight at a host, at most."""
        return most_at_once(self.requests(host))

    def client_died(self) -> None:
        """Note that the client was killed just now, and may not have kept what it was told last."""
        self._history.client_died()

    def violations(self, at_once: int | None = None, grace: float | None = None) -> list[str]:
        """A sentence for each thing a client must not do; empty if its manners were good.

        That is: more requests at once to one host than allowed, one to a host that had told it to stay away, one that
        does not say who asks, one that is malformed or nobody's. Requests within `grace` seconds of being told to stay
        away do not count: the client's other threads may not have heard of it yet. Nor does being told so within
        `grace` seconds of a death of the client.
        """

        def allowed(name: str) -> int:
            return self.plc_at_once if name.startswith("plc") else self.at_once if at_once is None else at_once

        return self._history.violations(allowed, self.grace if grace is None else grace)

    def summary(self) -> dict[str, Any]:
        """Figures of what happened, for JSON."""
        seen = self.requests()
        return {
            "requests": len(seen),
            "methods": dict(Counter(each.method for each in seen)),
            "statuses": dict(Counter(str(each.status) for each in seen)),
            "faults": dict(Counter(each.fault for each in seen if each.fault)),
            "bytes": sum(each.bytes for each in seen),
            "clients_gone": sum(each.client_gone for each in seen),
            "most_at_once": max((self.max_at_once(host) for host in self._hosts.values()), default=0),
            "violations": len(self.violations()),
        }

    async def _control(self, listener: Listener, request: Request, seen: Seen) -> Answer:
        """What other processes may ask under `/-/` at any host, without a trace in the history."""
        what = request.path.removeprefix(CONTROL)
        if what == "truth":
            did = parse_qs(urlsplit(request.target).query).get("did", [""])[0]
            return json_answer(self.truth(did)) if did in self.accounts else json_answer(None, 404)
        if what == "requests":
            return json_answer([to_json(each) for each in self.requests()])
        makers: dict[str, Callable[[], Any]] = {"violations": self.violations, "summary": self.summary}
        return json_answer(makers[what]()) if what in makers else json_answer(None, 404)


def main() -> None:
    """Serve in the foreground until TERM or INT."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstreams.pds", description="A fake AT Protocol network.")
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--accounts", type=int, default=20, help="on each host")
    parser.add_argument("--records", type=int, default=12, help="of an account, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="the first of as many as there are hosts; 0: any")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--name", default="", help="what URLs call the machine, if not ADDRESS")
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--announce", type=Path, metavar="FILE", help="gets the URLs as JSON once all is served")
    args = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    options = {"seed": args.seed, "records": args.records, "fault_rate": args.fault_rate}
    with Network(args.hosts, args.accounts, address=args.bind, port=args.port, name=args.name, **options) as network:
        urls = {"plc": network.plc_url, "relay": network.relay_url, "hosts": [host.url for host in network.hosts]}
        text = json.dumps({**urls, "dids": list(network.accounts)}, indent=1)
        if args.announce:
            # So that a reader polling for the file never finds it half written.
            draft = args.announce.with_name(f"{args.announce.name}.{os.getpid()}")
            draft.write_text(text)
            draft.replace(args.announce)
        else:
            print(text, flush=True)
        done.wait()


if __name__ == "__main__":
    main()
