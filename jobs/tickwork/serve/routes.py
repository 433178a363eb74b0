"""Our addresses within Datasette: which page or answer each one gives, and what a refusal looks like."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from datasette import Response, hookimpl

from tickwork.corpus.display import Display
from tickwork.serve.api import Api
from tickwork.serve.library import Library
from tickwork.serve.pages import Pages, by_other_name
from tickwork.serve.render import STYLE, STYLE_PATH
from tickwork.serve.search_request import RefusedError

View = Callable[..., Awaitable[Response]]
Arguments = Mapping[str, Sequence[str]]
T = TypeVar("T")

ANSWER_SECONDS = 15.0
"""After which a request gets 503, whatever its thread still does: SQLite has given up long before."""
_OPENAPI = files("tickwork.serve").joinpath("openapi.json").read_text(encoding="utf-8")
_CORPUS = "(?P<corpus>[a-z0-9-]{1,40})"
_ITEM = _CORPUS + "/(?P<id>[0-9]{1,18})"

log = logging.getLogger(__name__)


class Routes:
    """The plugin that Datasette asks for routes."""

    __name__ = "tickwork"  # as a module has it: Datasette lists its plugins by this

    def __init__(self, library: Library, displays: Mapping[str, Display], threads: Executor) -> None:
        self._library = library
        self._displays = displays
        self._threads = threads
        self._pages = Pages(library, displays)
        self._api = Api(library)

    @hookimpl  # type: ignore[untyped-decorator]
    def register_routes(self) -> list[tuple[str, View]]:
        """Patterns of paths and their views, which come before Datasette's."""
        pages, api = self._pages, self._api
        named: list[tuple[str, View]] = [
            (
                rf"^{re.escape(address.prefix)}/(?P<value>{address.value})$",
                self._redirect(partial(by_other_name, self._library, corpus, address.column)),
            )
            for corpus, display in self._displays.items()
            for address in display.addresses
        ]
        return [
            (r"^/$", self._page(lambda of, asked: pages.home(asked))),
            (rf"^/browse/{_CORPUS}$", self._page(lambda of, asked: pages.browse(of["corpus"], asked))),
            (rf"^/item/{_ITEM}$", self._page(lambda of, asked: pages.item(of["corpus"], int(of["id"])))),
            *named,
            (r"^/api/search$", self._json(lambda of, asked: api.search(asked))),
            (r"^/api/corpora$", self._json(lambda of, asked: api.corpora())),
            (rf"^/api/items/{_ITEM}$", self._json(lambda of, asked: api.item(of["corpus"], int(of["id"])))),
            (
                rf"^/api/items/{_ITEM}/similar$",
                self._json(lambda of, asked: api.similar(of["corpus"], int(of["id"]), asked)),
            ),
            (r"^/api/openapi\.json$", self._described),
            (r"^/api(/.*)?$", self._json(_nothing)),
            (r"^/(item|browse)(/.*)?$", self._page(_nothing)),
            (r"^/-/health$", self._health),
            (f"^{STYLE_PATH}$", self._style),
        ]

    def _page(self, make: Callable[[Mapping[str, str], Arguments], str]) -> View:
        """A view that gives the page that `make` makes of the path's parts and the query string."""

        async def view(request: Any) -> Response:  # noqa: ANN401 - Datasette has no types
            try:
                return Response.html(await self._in_thread(make, request.url_vars, _arguments(request)))
            except RefusedError as error:
                return self._refusal(error)

        return view

    def _json(self, make: Callable[[Mapping[str, str], Arguments], object]) -> View:
        async def view(request: Any) -> Response:  # noqa: ANN401
            try:
                return _json_response(await self._in_thread(make, request.url_vars, _arguments(request)))
            except RefusedError as error:
                return _json_response({"error": error.message}, error.status, _retry(error))

        return view

    def _redirect(self, find: Callable[[str], str]) -> View:
        async def view(request: Any) -> Response:  # noqa: ANN401
            try:
                return Response.redirect(await self._in_thread(find, request.url_vars["value"]))
            except RefusedError as error:
                return self._refusal(error)

        return view

    def _refusal(self, error: RefusedError) -> Response:
        page = self._pages.error(error.status, error.message)
        return Response.html(page, status=error.status, headers=_retry(error))

    async def _in_thread(self, make: Callable[..., T], *arguments: object) -> T:
        """What `make` gives. Raises RefusedError, also for what nobody foresaw: a page of ours says it."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, make, *arguments), ANSWER_SECONDS)
        except RefusedError:
            raise
        except TimeoutError as error:
            raise RefusedError(503, "That took too long; ask for less, or try again in a moment.") from error
        except Exception as error:
            log.exception("a request failed")
            raise RefusedError(500, "Something went wrong here; it is in the server's log.") from error

    async def _described(self) -> Response:
        return Response(_OPENAPI, content_type="application/json; charset=utf-8")

    async def _health(self) -> Response:
        status, said = self._api.health()
        return _json_response(said, status)

    async def _style(self) -> Response:
        kept = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(STYLE, content_type="text/css; charset=utf-8", headers=kept)


def _nothing(_of: Mapping[str, str], _asked: Arguments) -> str:
    raise RefusedError(404, "There is nothing at this address.")


def _arguments(request: Any) -> Arguments:  # noqa: ANN401
    return {name: request.args.getlist(name) for name in request.args}


def _json_response(said: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(said, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status=status, headers=headers, content_type="application/json; charset=utf-8")


def _retry(error: RefusedError) -> dict[str, str]:
    return {"retry-after": "5"} if error.status == 503 else {}
