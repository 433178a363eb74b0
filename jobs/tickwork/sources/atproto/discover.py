"""Discovery: go through the lists of relays and servers, and note which repositories there are and which have changed.

A page of a list and the cursor after it are committed together. Nothing is concluded from what a list does not have.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from tickwork.contract.outcomes import Held, OperatorError, Transient
from tickwork.contract.runner import Pass
from tickwork.contract.units import Unit
from tickwork.sources.atproto.errors import Paused
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.queue import Queue
from tickwork.sources.atproto.repo.identifiers import is_did, is_tid
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import GONE, AtprotoStore
from tickwork.upstream.hosts import UNKNOWN, HostKey, host_key
from tickwork.upstream.http.errors import Forbidden, TooLarge, UnexpectedStatus, UnsafeUrl
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.shards import Shard

PAGE = 1000
"""The most that servers give at once."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_CURSOR = 2048
"""Characters of a cursor as it is written in a URL."""
_LISTED_GONE = ("deactivated", "takendown", "suspended")


class _Listed(msgspec.Struct):
    """A repository as a list has it; a list by collection has the DID alone."""

    did: str
    rev: str = ""
    active: bool = True
    status: str | None = None


class _Page(msgspec.Struct):
    # Entries are read one by one, so that an odd one costs itself alone.
    repos: list[msgspec.Raw]
    cursor: str | None = None


_read = msgspec.json.Decoder(_Listed).decode


@dataclass(frozen=True, slots=True)
class List:
    """A list to go through: of all repositories, or (`collection`) of those that have records of one.

    `adds` is whether repositories that are not known are added. `host` is the server whose own list it is, UNKNOWN for
    a relay's.
    """

    origin: str
    collection: str
    adds: bool
    host: HostKey

    @property
    def name(self) -> str:
        """How it is shown."""
        return f"{self.origin} {self.collection}".rstrip()


def lists(settings: AtprotoSettings, wanted: Filter, shard: Shard) -> list[List]:
    """What there is to go through. Raises OperatorError where nothing is configured.

    With a filter that names collections, those with such records are looked for; the lists of all repositories then
    only tell which of the known ones have changed.
    """
    named = wanted.signals or wanted.collections
    by_collection = () if any(pattern.endswith(".*") for pattern in named) else named
    origins = [(url, UNKNOWN) for url in settings.relays]
    origins += [(url, host_key(url)) for url in settings.hosts if shard.owns(host_key(url))]
    if not settings.relays and not settings.hosts:
        raise OperatorError(
            "[atproto] relays and hosts are both empty: name at least one, so that there is a list to read"
        )
    found = [List(url, collection, True, host) for url, host in origins for collection in by_collection]
    return found + [List(url, "", not by_collection, host) for url, host in origins]


def discover(
    store: AtprotoStore,
    queue: Queue,
    upstream: Upstream,
    todo: Sequence[List],
    settings: AtprotoSettings,
    one_pass: Pass,
) -> Iterator[Unit]:
    """Go on with every list that is due; a unit is a page, its items are the repositories on it.

    The lists take turns, page by page: one that is long, or cannot be read, does not keep the others from being read.
    Raises Transient when some could not be, and while enough repositories wait to be fetched.
    """
    faults: list[str] = []
    paused: Paused | None = None
    turns = deque(
        (one, _pages(store, queue, upstream, one, settings, one_pass)) for one in todo if _is_due(store, one, settings)
    )
    while turns:
        one, pages = turns.popleft()
        try:
            yield next(pages)
            turns.append((one, pages))
        except StopIteration:
            pass
        except Paused as pause:
            paused = pause
        except (Held, Transient, Forbidden, UnexpectedStatus, UnsafeUrl, TooLarge) as error:
            faults.append(str(error))
            one_pass.warn(f"the list of {one.name} cannot be read: {error}")
    if paused:
        raise paused
    if faults:
        raise Transient(f"{len(faults)} of {len(todo)} lists could not be read, the first: {faults[0]}")


def _key(one: List) -> tuple[str, str]:
    """The key of a list among those of the store."""
    return one.origin, one.collection


def _is_due(store: AtprotoStore, one: List, settings: AtprotoSettings) -> bool:
    row = store.connection.execute(
        "SELECT cursor, completed FROM lists WHERE origin = ? AND collection = ?", _key(one)
    ).fetchone()
    if row is None or row["cursor"] or row["completed"] is None:
        return True
    return bool(row["completed"] + settings.list_again_seconds <= time.time())


def _pages(
    store: AtprotoStore, queue: Queue, upstream: Upstream, one: List, settings: AtprotoSettings, one_pass: Pass
) -> Iterator[Unit]:
    while True:
        if one.adds:
            _check_water(store, queue, settings)
        row = store.connection.execute(
            "SELECT cursor FROM lists WHERE origin = ? AND collection = ?", _key(one)
        ).fetchone()
        cursor = row["cursor"] if row else ""
        try:
            page, size = _ask(upstream, one, cursor)
        except (UnexpectedStatus, UnsafeUrl) as error:
            if cursor and (isinstance(error, UnsafeUrl) or error.status == 400):
                # Cursors grow old. The list is begun anew; what was found is kept.
                with store.transaction():
                    store.connection.execute(
                        "UPDATE lists SET cursor = '' WHERE origin = ? AND collection = ?", _key(one)
                    )
            raise
        following = page.cursor or ""
        if len(quote(following)) > MAX_CURSOR:
            raise Transient(f"{one.origin} sent a cursor of {len(following)} characters, too long for a URL")
        if following == cursor and cursor:
            raise Transient(f"{one.origin} sent the cursor {cursor[:40]!r} twice: its list does not end")
        with store.transaction():
            added, changed, odd = _note(store, queue, one, page.repos, frozenset(settings.filter.excludes))
            _advance(store, one, following, len(page.repos), begins=not cursor)
        if odd:
            one_pass.warn(f"{one.name}: skipped entries that are not accounts: {odd}")
        yield Unit(items=len(page.repos), size=size, note=f"{one.name}: {added} new, {changed} changed")
        if not following:
            return


def _check_water(store: AtprotoStore, queue: Queue, settings: AtprotoSettings) -> None:
    """Raise Transient from the high-water mark of what waits to be fetched until the low one."""
    waiting, _ = queue.waiting()
    paused = bool(store.fact("paused"))
    pause = waiting > (settings.low_water if paused else settings.high_water)
    if pause != paused:
        with store.transaction():
            store.remember("paused", "yes" if pause else "")
    if pause:
        low = settings.low_water
        raise Paused(f"discovery is paused: {waiting} repositories are waiting to be fetched; it resumes at {low}")


def _ask(upstream: Upstream, one: List, cursor: str) -> tuple[_Page, int]:
    method = "listReposByCollection" if one.collection else "listRepos"
    params = {"limit": str(PAGE)}
    if one.collection:
        params["collection"] = one.collection
    if cursor:
        params["cursor"] = cursor
    url = f"{one.origin}/xrpc/com.atproto.sync.{method}"
    answer = upstream.get(url, params=params, accept="application/json", max_bytes=MAX_PAGE_BYTES)
    try:
        return msgspec.json.decode(answer.content, type=_Page), answer.bytes
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Transient(f"{url} did not answer with a list of repositories: {error}") from error


def _note(
    store: AtprotoStore, queue: Queue, one: List, page: Sequence[msgspec.Raw], excluded: frozenset[str]
) -> tuple[int, int, int]:
    """Store what a page says: how many are new, how many have changed, how many entries are no accounts."""
    added = changed = odd = 0
    for entry in page:
        try:
            listed = _read(entry)
        except (msgspec.DecodeError, UnicodeDecodeError):
            listed = _Listed("")
        if not is_did(listed.did) or (listed.rev and not is_tid(listed.rev)):
            odd += 1
            continue
        if listed.did in excluded:
            continue
        status = (listed.status or "inactive") if not listed.active else "active"
        if one.adds and _add(store, one, listed):
            added += 1
        elif not one.collection:
            changed += _renew(store, queue, one, listed, status)
    return added, changed, odd


def _add(store: AtprotoStore, one: List, listed: _Listed) -> bool:
    now = time.time()
    inserted = store.connection.execute(
        "INSERT INTO repos (did, host, next_retry, added, listed_rev) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (listed.did, one.host, now, now, listed.rev),
    )
    return bool(inserted.rowcount)


def _renew(store: AtprotoStore, queue: Queue, one: List, listed: _Listed, status: str) -> bool:
    """Have a known repository fetched when its rev or its account's status is another; says whether that is so."""
    row = store.connection.execute(
        "SELECT status, host, rev, listed_rev, account FROM repos WHERE did = ? AND (tracked OR status = 'discarded')",
        (listed.did,),
    ).fetchone()
    if row is None:
        return False
    # Not merely above what was listed before: a rev of the future would hide all that come after it.
    newer = listed.rev > row["rev"] and listed.rev != row["listed_rev"]
    if newer:
        store.connection.execute("UPDATE repos SET listed_rev = ? WHERE did = ?", (listed.rev, listed.did))
        queue.look_for(listed.did, one.host)
    # A server goes on listing accounts that have left it, so of their status it is not the one to ask. One that was
    # never fetched has none yet.
    elsewhere = one.host and row["host"] not in ("", one.host)
    other = row["status"] != "pending" and not elsewhere and _is_news(store, one, listed.did, status, row["account"])
    if other and status in _LISTED_GONE and row["status"] not in GONE:
        # The list says so; the server is asked as well, and has the last word.
        store.tell_account(listed.did, status)
    return queue.ask(listed.did) if newer or other else False


def _is_news(store: AtprotoStore, one: List, did: str, status: str, account: str) -> bool:
    """Whether a list has another status of an account than what its server said last, and says so for the first time.

    A list that lags behind the server, or has it wrong, would otherwise have the account asked for again and again.
    """
    if status == (account or "active"):
        store.connection.execute("DELETE FROM disagreements WHERE did = ? AND origin = ?", (did, one.origin))
        return False
    noted = store.connection.execute(
        "INSERT INTO disagreements (did, origin, status) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET status = excluded.status WHERE status != excluded.status",
        (did, one.origin, status),
    )
    return bool(noted.rowcount)


def _advance(store: AtprotoStore, one: List, cursor: str, repositories: int, *, begins: bool) -> None:
    now = time.time()
    store.connection.execute("INSERT INTO lists (origin, collection) VALUES (?, ?) ON CONFLICT DO NOTHING", _key(one))
    if begins:
        store.connection.execute(
            "UPDATE lists SET begun = ?, pages = 0, repositories = 0 WHERE origin = ? AND collection = ?",
            (now, *_key(one)),
        )
    store.connection.execute(
        "UPDATE lists SET cursor = ?, pages = pages + 1, repositories = repositories + ?,"
        " completed = iif(? = '', ?, completed) WHERE origin = ? AND collection = ?",
        (cursor, repositories, cursor, now, *_key(one)),
    )
