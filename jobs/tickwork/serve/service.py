"""The service: Datasette with our routes, which replaces its databases as generations are published."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from datasette.app import Datasette
from datasette.database import Database
from datasette.plugins import pm

from tickwork.corpus.display import Display
from tickwork.serve import datasette_errors
from tickwork.serve.library import Library
from tickwork.serve.open_generation import THREADS, OpenGeneration
from tickwork.serve.routes import Routes
from tickwork.serve.security_headers import SecurityHeaders

POLL_SECONDS = 2.0
GRACE_SECONDS = 10.0
"""That a generation stays open after another took its place: longer than any request."""
LOAD_AGAIN_SECONDS = 60.0
OPENING_ROUNDS, OPENING_SECONDS = 50, 0.01
_CATALOGUE = ("columns", "foreign_keys", "indexes", "tables", "databases")
"""Datasette's tables of what its databases have, those that refer to others first."""

log = logging.getLogger(__name__)

SETTINGS = {
    "default_allow_sql": False,
    "allow_download": False,
    "sql_time_limit_ms": 2000,
    "max_returned_rows": 1000,
    "num_sql_threads": THREADS,
    "facet_time_limit_ms": 500,
    "suggest_facets": False,
    "max_csv_mb": 200,
    "default_cache_ttl": 0,
}
"""Of Datasette. A page that was kept would show a generation that is gone."""


class Service:
    """Everything that lives as long as the server; `app` is what speaks ASGI."""

    def __init__(self, library: Library, displays: dict[str, Display], poll: float = POLL_SECONDS) -> None:
        """`displays` by the name of the corpus; `poll` in seconds."""
        self.published = library
        self._poll = poll
        self._threads = ThreadPoolExecutor(THREADS, "search")
        self._work: set[asyncio.Task[None]] = set()
        self._retired: list[OpenGeneration] = []
        self.datasette = Datasette(settings=SETTINGS)
        self.datasette.databases.pop("_memory")
        datasette_errors.install()
        pm.register(routes := Routes(library, displays, self._threads))
        try:
            self.app = SecurityHeaders(
                self.datasette.app(), [address.prefix for display in displays.values() for address in display.addresses]
            )
        finally:
            pm.unregister(routes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open what is published, and follow it until the end."""
        await self.datasette.invoke_startup()
        await self._look()
        self._start(self._follow(self._look, self._poll))
        self._start(self._follow(self._load, self._poll))
        try:
            yield
        finally:
            for task in self._work:
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)
            await asyncio.to_thread(self._threads.shutdown)
            for opened in (*self.published.open_generations().values(), *self._retired):
                opened.close()
            for database in self.datasette.databases.values():
                database.close()
            self.datasette.executor.shutdown(wait=False)

    # Following what is published

    async def _look(self) -> None:
        """Open what was published since; a model is loaded before its generation takes another's place."""
        for corpus, entry in self.published.entries.items():
            opened = await asyncio.to_thread(self.published.fresh, corpus)
            if opened is None:
                continue
            if entry.opened is not None and opened.encoder is not None:
                await asyncio.to_thread(opened.encoder.load)
            try:
                database = await self._database(opened)
            except BaseException:
                opened.close()
                raise
            old = self.published.place(corpus, opened)
            retired = self._show(database, corpus)
            if old is not None:
                self._start(self._retire(old, retired))
            self.published.forget_models()

    async def _load(self) -> None:
        for load in self.published.to_load():
            await asyncio.to_thread(load)
        if self.published.to_load():
            await asyncio.sleep(LOAD_AGAIN_SECONDS)

    async def _follow(self, step: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            try:
                await step()
            except Exception:
                # What is open stays open; the next look may find what is wrong mended.
                log.exception("looking for what is published failed")
            await asyncio.sleep(every)

    async def _database(self, opened: OpenGeneration) -> Database:
        """The opened for Datasette, open in each of its threads.

        Those would open it when they are first asked for it, and a file that is pruned can be opened by nobody: the
        catalogue goes through the retired ones as well. Datasette keeps connections by a database's name, so each
        opened has one of its own and only the route is the same.
        """
        corpus = opened.corpus.name
        database = Database(self.datasette, path=str(opened.generation.database), is_mutable=False)
        database.name, database.route = f"{corpus} {opened.generation.name}", corpus
        threads: set[int] = set()

        def note(connection: object) -> None:
            if threading.get_ident() in threads:
                time.sleep(OPENING_SECONDS)  # so that another thread takes the next
            threads.add(threading.get_ident())

        for _ in range(OPENING_ROUNDS):
            await asyncio.gather(*(database.execute_fn(note) for _ in range(THREADS)))
            if len(threads) == THREADS:
                break
        return database

    def _show(self, database: Database, corpus: str) -> list[str]:
        """Have Datasette serve this at the name of its corpus; gives the names of those that did before.

        The dictionary is replaced and never changed: requests are going through it.
        """
        before = [name for name, one in self.datasette.databases.items() if one.route == corpus]
        for name in before:
            self.datasette.databases[name].route = f"{corpus} retired"
        self.datasette.databases = {**self.datasette.databases, database.name: database}
        return before

    async def _retire(self, opened: OpenGeneration, names: list[str]) -> None:
        self._retired.append(opened)
        await asyncio.sleep(GRACE_SECONDS)
        # Whoever holds this is going through the databases, one query to each, to note them in the catalogue.
        async with self.datasette._refresh_schemas_lock:
            gone = [one for name, one in self.datasette.databases.items() if name in names]
            self.datasette.databases = {
                name: one for name, one in self.datasette.databases.items() if name not in names
            }
            catalogue = self.datasette.get_database("_internal")
            for database in gone if self.datasette.internal_db_created else ():
                for table in _CATALOGUE:
                    await catalogue.execute_write(f"DELETE FROM {table} WHERE database_name = ?", [database.name])  # noqa: S608
        for database in gone:
            database.close()
        opened.close()
        self._retired.remove(opened)

    def _start(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
