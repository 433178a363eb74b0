"""The queue: repositories that are to be fetched, by server, and how they leave it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tickwork.sources.atproto.errors import Kind, Removed
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.repo.identity import Identity
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.atproto.store import GONE, AtprotoStore
from tickwork.upstream.backoff import backoff, jittered
from tickwork.upstream.hosts import HostKey
from tickwork.upstream.shards import Shard

MAX_WHY = 500
"""Characters of an error that are kept."""
_COLUMNS = "id, did, status, host, rev, data, attempts, explicit, asked, filter, plc, allow"


@dataclass(frozen=True, slots=True)
class Claim:
    """A repository to fetch, as it stood when it was taken from the queue."""

    id: int
    did: str
    status: str
    host: HostKey
    """The server it was last seen at."""
    rev: str
    data: str
    attempts: int
    explicit: bool
    asked: int
    filter: str
    """Fingerprint of the filter by which its records were chosen; empty to have them chosen anew."""
    plc: tuple[str, ...]
    """Directories that are asked for it instead of the usual ones."""
    allow: tuple[str, ...]
    """Networks that may be called for it although they are not public."""


class Queue:
    """The rows of `repos` as a queue. What changes it needs a transaction of the store's."""

    def __init__(self, store: AtprotoStore, settings: AtprotoSettings, shard: Shard) -> None:
        self._store = store
        self._connection = store.connection
        self._settings = settings
        self._shard = shard

    # Taking.

    def hosts(self) -> list[HostKey]:
        """The servers of this shard for which something is planned; the first is the empty one, if at all."""
        rows = self._connection.execute(
            # One look into the index for each server, however many repositories it has.
            "WITH RECURSIVE hosts(host) AS ("
            " SELECT min(host) FROM repos WHERE next_retry IS NOT NULL UNION ALL"
            " SELECT (SELECT min(host) FROM repos WHERE next_retry IS NOT NULL AND host > hosts.host)"
            " FROM hosts WHERE hosts.host IS NOT NULL) SELECT host FROM hosts WHERE host IS NOT NULL"
        )
        return [row["host"] for row in rows if self._shard.owns(row["host"])]

    def take(self, host: HostKey, taken: Collection[int]) -> Claim | None:
        """What has been due for longest at one server of this shard, but for those `taken` (ids), which must be few."""
        if not self._shard.owns(host):
            return None
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM repos WHERE host = ? AND next_retry <= ? ORDER BY next_retry LIMIT ?",  # noqa: S608
            (host, time.time(), len(taken) + 1),
        )
        row = next((row for row in rows if row["id"] not in taken), None)
        return None if row is None else _claim(row)

    def waiting(self) -> tuple[int, float]:
        """How many are to be fetched now or after a fault, and when the first of them is due (unix seconds)."""
        count, first = 0, 0.0
        rows = self._connection.execute(
            "SELECT host, count(*) AS repos, min(next_retry) AS first FROM repos"
            " WHERE next_retry IS NOT NULL AND status IN ('pending', 'error', 'synced') GROUP BY host"
        )
        for row in rows:
            if self._shard.owns(row["host"]):
                count += row["repos"]
                first = min(first or row["first"], row["first"])
        return count, first

    # Filling.

    def add(self, dids: Iterable[str], *, plc: Sequence[str] = (), allow: Sequence[str] = ()) -> tuple[int, int]:
        """Add accounts by name: how many are new, how many were there. What is there already is due again."""
        new = known = 0
        now = time.time()
        asked = _as_json(plc), _as_json(allow)
        for did in dict.fromkeys(dids):
            added = self._connection.execute(
                "INSERT INTO repos (did, explicit, next_retry, added, plc, allow) VALUES (?, 1, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (did, now, now, *asked),
            )
            if added.rowcount:
                new += 1
                continue
            known += 1
            self._connection.execute("UPDATE repos SET explicit = 1, plc = ?, allow = ? WHERE did = ?", (*asked, did))
            self.ask(did)
        return new, known

    def look_for(self, did: str, host: HostKey) -> None:
        """Find the server of an account anew if it was another machine's: with its new rev it may be one of ours.

        `host` is our server that has listed it, in which case it is likely; otherwise once in as many days as gone
        accounts are looked at, for each costs the directory a request.
        """
        row = self._connection.execute("SELECT host, tried FROM repos WHERE did = ?", (did,)).fetchone()
        if self._shard.owns(row["host"]):
            return
        if host or (row["tried"] or 0.0) + self._settings.recheck_days * 86_400 <= time.time():
            self._connection.execute("UPDATE repos SET host = '' WHERE did = ?", (did,))

    def ask(self, did: str, *, anew: bool = False) -> bool:
        """Have a repository fetched now, `anew` even if it is unchanged; says whether there is one."""
        return bool(
            self._connection.execute(
                "UPDATE repos SET next_retry = ?, asked = asked + 1, tracked = 1, attempts = 0, error_kind = '',"
                " last_error = '', filter = iif(? OR status = 'discarded', '', filter),"
                " status = iif(status IN ('error', 'parked', 'discarded'), 'pending', status)"
                " WHERE did = ?",
                (time.time(), anew, did),
            ).rowcount
        )

    def choose(self, wanted: Filter) -> None:
        """Make everything due whose records were chosen by another filter, and leave alone what is excluded.

        Only when the settings have changed since the last time.
        """
        excluded = frozenset(_from_json(self._store.fact("excludes")))
        if self._store.fact("filter") == wanted.fingerprint and excluded == wanted.excludes:
            return
        with self._store.transaction():
            self._connection.execute(
                "UPDATE repos SET next_retry = ?, asked = asked + 1,"
                " status = iif(status = 'discarded', 'pending', status)"
                " WHERE status IN ('synced', 'discarded') AND filter NOT IN ('', ?)",
                (time.time(), wanted.fingerprint),
            )
            for did in excluded - wanted.excludes:
                self.ask(did)
            self._connection.executemany(
                "UPDATE repos SET tracked = 0, next_retry = NULL WHERE did = ?", [(did,) for did in wanted.excludes]
            )
            self._store.remember("filter", wanted.fingerprint)
            self._store.remember("excludes", _as_json(sorted(wanted.excludes)))

    # Leaving. Each raises Removed when the repository is no longer the one that was claimed.

    def located(self, claim: Claim, identity: Identity) -> None:
        """Note at which server it is; it stays due."""
        self._settle(claim, "host = ?, pds = ?, handle = ?", (identity.host, identity.pds or "", identity.handle or ""))

    def settled(self, claim: Claim, status: Literal["synced", "discarded"], chosen_by: str, **values: object) -> None:
        """It is stored, or has nothing that is wanted. `chosen_by` is a filter's fingerprint, `values` are columns."""
        values |= {"attempts": 0, "error_kind": "", "last_error": "", "synced": time.time()}
        values |= {"status": status, "tracked": status == "synced", "next_retry": None, "filter": chosen_by}
        if self._asked_since(claim):
            values["next_retry"] = time.time()
            if status == "discarded":
                values |= {"status": "pending", "tracked": True, "filter": ""}
            else:
                del values["filter"]  # the wish may have been to have its records chosen anew
        self._settle(claim, ", ".join(f"{name} = ?" for name in values), tuple(values.values()))

    def failed(self, claim: Claim, kind: Kind, why: str, *, until: float | None = None, counts: bool = True) -> str:
        """It could not be had; gives its new state. `until` is when it may be tried again, in place of a backoff.

        A fault that does not count is not the repository's, so that it is never parked for it. An account that is gone
        stays so until somebody says otherwise; it is not parked either, but looked at again in days.
        """
        again = self._asked_since(claim)
        before = 0 if again else claim.attempts
        attempts = before + counts
        enough = counts and not again and attempts >= self._settings.max_attempts
        wait = jittered(backoff(before, self._settings.retry_seconds, self._settings.retry_cap_seconds))
        due = until or time.time() + wait
        if claim.status in GONE:
            if enough:
                attempts, due = 0, time.time() + jittered(self._settings.recheck_days * 86_400)
            self._settle(claim, "attempts = ?, next_retry = ?, last_error = ?", (attempts, due, _kept(why)))
            return claim.status
        self._settle(
            claim,
            "status = ?, attempts = ?, next_retry = ?, error_kind = ?, last_error = ?",
            ("parked" if enough else "error", attempts, None if enough else due, kind, _kept(why)),
        )
        return "parked" if enough else "error"

    def gone(self, claim: Claim, status: str, why: str) -> None:
        """The account has no repository to be had; it is looked at again in days."""
        days = 0.0 if self._asked_since(claim) else self._settings.recheck_days
        due = time.time() + jittered(days * 86_400)
        # Nothing is stored of one that is deleted, so that there is no rev to compare with either.
        forgotten = "rev = '', data = '', filter = '', " if status == "deleted" else ""
        self._settle(
            claim,
            f"{forgotten} status = ?, attempts = 0, next_retry = ?, error_kind = '', last_error = ?",
            (status, due, _kept(why)),
        )

    def _asked_since(self, claim: Claim) -> bool:
        """Whether somebody wished to have it fetched after it was taken, which what was found then may not answer."""
        query = "SELECT 1 FROM repos WHERE id = ? AND asked != ?"
        return self._connection.execute(query, (claim.id, claim.asked)).fetchone() is not None

    def _settle(self, claim: Claim, columns: str, values: tuple[object, ...]) -> None:
        settled = self._connection.execute(
            f"UPDATE repos SET {columns}, tried = ?, changed = ? WHERE id = ?",  # noqa: S608 - columns of ours
            (*values, time.time(), time.time(), claim.id),
        )
        if not settled.rowcount:
            raise Removed(claim.did)


def _kept(why: str) -> str:
    """An error as it is stored and shown: its words may be a stranger's, with anything in them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in why[:MAX_WHY])


def _claim(row: sqlite3.Row) -> Claim:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    return Claim(**values | {name: _from_json(row[name]) for name in ("plc", "allow")})


def _as_json(words: Sequence[str]) -> str:
    """Several words in one column, which is empty for none."""
    return json.dumps(words) if words else ""


def _from_json(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()
