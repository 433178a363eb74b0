"""What the hosts of the fake network answer when nothing is wrong, and what a client must not ask."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from threading import RLock
from urllib.parse import quote

from tests.upstreams.pds_accounts import GONE, FakeAccount
from tests.upstreams.pds_faults import Switches
from tests.upstreams.pds_history import AGENT, Seen
from tests.upstreams.pds_hosts import Host
from tests.upstreams.pds_http import Listener
from tests.upstreams.pds_odd import CAR, LOOP, redirect
from tests.upstreams.pds_wire import Answer, Request, json_answer, xrpc_error

XRPC = "/xrpc/"
NAMESPACE = "com.atproto.sync."
WEB_DOCUMENT = "/.well-known/did.json"
ERROR_OF_STATUS = {
    "deactivated": "RepoDeactivated",
    "takendown": "RepoTakendown",
    "suspended": "RepoSuspended",
    "deleted": "RepoNotFound",
    "tombstoned": "RepoNotFound",
}
# What each method takes; a star marks what it must have.
PARAMETERS = {
    "getRepo": ("did*", "since"),
    "getLatestCommit": ("did*",),
    "getRepoStatus": ("did*",),
    "listRepos": ("limit", "cursor"),
    "listReposByCollection": ("collection*", "limit", "cursor"),
    "listHosts": ("limit", "cursor"),
}
RELAY_METHODS = PARAMETERS.keys() - {"getRepo"}
MOST = {"listReposByCollection": 2000}
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_CURSOR = re.compile(r"([0-9]{1,12})::.+")


class Services:
    """All that is answered; `page_size` is the most that any page of a list has."""

    def __init__(
        self,
        accounts: dict[str, FakeAccount],
        hosts: dict[str, Host],
        switches: Switches,
        lock: RLock,
        page_size: int,
    ) -> None:
        self._accounts, self._hosts, self._switches, self._lock = accounts, hosts, switches, lock
        self._page_size = page_size
        self._methods: dict[str, Callable[[Host, dict[str, str]], Awaitable[Answer]]] = {
            "getRepo": self._get_repo,
            "getLatestCommit": self._get_latest_commit,
            "getRepoStatus": self._get_repo_status,
            "listRepos": self._list_repos,
            "listReposByCollection": self._list_by_collection,
            "listHosts": self._list_hosts,
        }

    async def reply(self, listener: Listener, request: Request, seen: Seen) -> Answer:
        """The answer to a request, with what is wrong with it by switch or by chance."""
        host = self._hosts[listener.name]
        seen.verb, seen.path = request.verb, request.target
        seen.address, seen.agent = request.headers.get("host", ""), request.headers.get("user-agent", "")
        if not AGENT.search(seen.agent):
            seen.problems.append(f"the User-Agent {seen.agent!r} does not say who asks")
        if request.path.startswith(LOOP):
            return redirect(LOOP + str(3 - int(request.path[-1])))
        if host.latency:
            await asyncio.sleep(host.latency)
        blameless = len(seen.problems)
        sound = await self._sound(host, request, seen)
        if len(seen.problems) > blameless:
            return sound
        if host.limit:
            allowed, headers, until = host.limit.take()
            if not allowed:
                error = {"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"}
                return json_answer(error, 429, headers=headers, hold_until=until)
            sound = replace(sound, headers={**sound.headers, **headers})
        with self._lock:
            account = self._accounts.get(seen.did)
            struck = self._switches.struck(seen, sound, account, partial(self._other, account, host))
        if struck is None:
            return sound
        seen.fault = struck[0].kind
        return struck[1]

    def _other(self, account: FakeAccount | None, host: Host) -> FakeAccount | None:
        """Another account, one that does not live at this host if there is any."""
        others = [each for each in islice(self._accounts.values(), 1000) if each is not account]
        elsewhere = (each for each in others if each.host != host.name)
        return next(elsewhere, next(iter(others), None))

    async def _sound(self, host: Host, request: Request, seen: Seen) -> Answer:
        path = request.path
        if request.verb != "GET":
            seen.problems.append(f"asked with {request.verb or 'nothing'}")
            return json_answer({"error": "InvalidRequest", "message": "GET only"}, 405, headers={"Allow": "GET"})
        if not re.fullmatch(rf"[^/]+:{host.port}", seen.address):
            seen.problems.append(f"asked for the host {seen.address!r}, this is port {host.port}")
            return xrpc_error("InvalidRequest", "no such host")
        if path in ("/xrpc/_health", "/_health"):
            return json_answer({"version": "fake"})
        if path == WEB_DOCUMENT and host.name.startswith("pds-"):
            seen.method, seen.did = "document", host.web
            return self._document(host.web, "application/json")
        if host.name.startswith("plc") and path.startswith("/did:"):
            seen.method, seen.did = "document", path[1:]
            if not re.fullmatch("did:plc:[a-z2-7]{24}", seen.did):
                seen.problems.append(f"asked for {seen.did[:80]!r}, which is no DID of this directory")
                return json_answer({"message": f"not a valid DID: {seen.did[:80]}"}, 400)
            return self._document(seen.did, "application/did+ld+json; charset=utf-8")
        if path.startswith(XRPC) and not host.name.startswith("plc"):
            return await self._xrpc(host, path.removeprefix(XRPC), request, seen)
        seen.problems.append("asked for what no such server has")
        return json_answer({"message": "Not Found"}, 404)

    def _document(self, did: str, content_type: str) -> Answer:
        account = self._accounts.get(did)
        if account is None:
            return json_answer({"message": f"DID not registered: {did}"}, 404)
        if account.status == "tombstoned":
            return json_answer({"message": f"DID not available: {did}"}, 410)
        return Answer(200, account.document_bytes(), content_type)

    async def _xrpc(self, host: Host, name: str, request: Request, seen: Seen) -> Answer:
        method = name.removeprefix(NAMESPACE)
        known = RELAY_METHODS if host.name == "relay" else PARAMETERS.keys()
        if method == name or method not in known:
            return xrpc_error("MethodNotImplemented", "Method Not Implemented")
        arguments = dict(request.arguments)
        seen.method, seen.did = method, arguments.get("did", "")
        allowed = {each.rstrip("*") for each in PARAMETERS[method]}
        for problem in (
            *(f"asked {method} without {each[:-1]}" for each in PARAMETERS[method] if _lacks(each, arguments)),
            *(f"asked {method} with an unknown {each[:40]!r}" for each in arguments if each not in allowed),
            *(["said a parameter twice"] if len(request.arguments) > len(arguments) else []),
            *([f"asked for {seen.did[:80]!r}, which is no DID"] if seen.did and not _DID.fullmatch(seen.did) else []),
            *(["asked for a limit that is none"] if not _is_limit(method, arguments.get("limit", "1")) else []),
        ):
            seen.problems.append(problem)
            return xrpc_error("InvalidRequest", problem)
        if "cursor" in arguments and not _CURSOR.fullmatch(arguments["cursor"]):
            return xrpc_error("InvalidRequest", "Malformed cursor")
        return await self._methods[method](host, arguments)

    def _refusal(self, host: Host, did: str) -> Answer | None:
        """Why this host does not give the account's repository; None if it does."""
        account = self._accounts.get(did)
        if account is None:
            return xrpc_error("RepoNotFound", f"Could not find repo for DID: {did}")
        if host.name not in (account.host, "relay"):
            error = "RepoDeactivated" if did in host.left else "RepoNotFound"
            return xrpc_error(error, f"Could not find repo for DID: {did}")
        error = ERROR_OF_STATUS.get(account.status, "")
        return xrpc_error(error, f"Repo of {did} is {account.status}") if error else None

    async def _get_repo(self, host: Host, arguments: dict[str, str]) -> Answer:
        with self._lock:
            if refusal := self._refusal(host, arguments["did"]):
                return refusal
            account = self._accounts[arguments["did"]]
            revision = account.revision()
        # All of it also for `since`: more than the difference is allowed.
        return Answer(
            200,
            revision.car,
            CAR,
            encoded=revision.encoded,
            codings=host.codings,
            chunked=host.chunked,
            delivered=partial(account.note_delivered, revision.rev),
        )

    async def _get_latest_commit(self, host: Host, arguments: dict[str, str]) -> Answer:
        with self._lock:
            if refusal := self._refusal(host, arguments["did"]):
                return refusal
            account = self._accounts[arguments["did"]]
            return json_answer({"cid": account.head, "rev": account.rev})

    async def _get_repo_status(self, host: Host, arguments: dict[str, str]) -> Answer:
        did = arguments["did"]
        with self._lock:
            if did in host.left:
                return json_answer({"did": did, "active": False, "status": "deactivated"})
            account = self._accounts.get(did)
            if account is None or host.name not in (account.host, "relay") or account.status in GONE:
                return xrpc_error("RepoNotFound")
            if account.status != "active":
                return json_answer({"did": did, "active": False, "status": account.status})
            return json_answer({"did": did, "active": True, "rev": account.rev})

    async def _list_repos(self, host: Host, arguments: dict[str, str]) -> Answer:
        return await self._page(host, arguments, "listRepos", lambda did: self._entry(host, did))

    async def _list_by_collection(self, host: Host, arguments: dict[str, str]) -> Answer:
        start = f"{arguments['collection']}/"

        def entry(did: str) -> dict[str, object] | None:
            account = self._accounts[did]
            if account.status != "active" or did in host.left:
                return None
            return {"did": did} if any(path.startswith(start) for path in account.records) else None

        return await self._page(host, arguments, "listReposByCollection", entry)

    def _entry(self, host: Host, did: str) -> dict[str, object] | None:
        if did in host.left:
            return host.left[did]
        account = self._accounts[did]
        return None if account.status in GONE else listed(account)

    async def _page(
        self,
        host: Host,
        arguments: dict[str, str],
        method: str,
        entry: Callable[[str], dict[str, object] | None],
    ) -> Answer:
        limit = min(int(arguments.get("limit", 500)), self._page_size)
        after = int(arguments.get("cursor", "0::").partition("::")[0])
        entries: list[dict[str, object]] = []
        cursor = ""
        for number, did in host.seats.after(after):
            with self._lock:
                made = self._accounts[did].is_made()
                found = entry(did)
            if not made:
                await asyncio.sleep(0)  # signing takes milliseconds, and others wait
            if found:
                entries.append(found)
                cursor = f"{number}::{did}"
            if len(entries) == limit:
                break
        more = {"cursor": cursor} if cursor and (host.always_cursor or len(entries) == limit) else {}
        return json_answer({**more, "repos": entries})

    async def _list_hosts(self, host: Host, arguments: dict[str, str]) -> Answer:
        limit = min(int(arguments.get("limit", 200)), self._page_size)
        after = int(arguments.get("cursor", "0::").partition("::")[0])
        every = [each for each in self._hosts.values() if each.name.startswith("pds-")]
        hosts = [
            {
                "hostname": each.url.partition("//")[2],
                "seq": number,
                "accountCount": len(each.seats),
                "status": "offline" if each.refusing else "active",
            }
            for number, each in enumerate(every if host.name == "relay" else [host], 1)
        ]
        page = hosts[after : after + limit]
        more = {"cursor": f"{after + limit}::hosts"} if after + limit < len(hosts) else {}
        return json_answer({**more, "hosts": page})


def listed(account: FakeAccount) -> dict[str, object]:
    """An account's entry in a list of repositories."""
    active = account.status == "active"
    entry: dict[str, object] = {"did": account.did, "head": account.head, "rev": account.rev, "active": active}
    return entry if active else {**entry, "status": account.status}


def web_did(host: str, port: int) -> str:
    """The DID of the account whose document a host has."""
    return f"did:web:{quote(f'{host}:{port}')}"


def _lacks(parameter: str, arguments: dict[str, str]) -> bool:
    return parameter.endswith("*") and not arguments.get(parameter[:-1])


def _is_limit(method: str, text: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,6}", text)) and 1 <= int(text) <= MOST.get(method, 1000)
