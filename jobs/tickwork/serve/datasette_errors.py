"""What is answered when Datasette cannot make one of its pages.

By itself it takes many a wrong argument for a fault of its own, and prints all it knows where `rich` is installed.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

from datasette import handle_exception as theirs
from datasette import hookimpl
from datasette.plugins import pm
from datasette.utils.asgi import Base400
from datasette.views.base import DatasetteError

_OF_ARGUMENTS = (ValueError, LookupError, TypeError, OverflowError, sqlite3.OperationalError)

log = logging.getLogger(__name__)


class DatasetteErrors:
    """The plugin that stands in place of Datasette's own."""

    __name__ = "tickwork mishaps"  # as a module has it: plugins are told apart by this

    @hookimpl  # type: ignore[untyped-decorator]
    def handle_exception(self, datasette: Any, request: Any, exception: Exception) -> Any:  # noqa: ANN401
        """Datasette's page of what went wrong, with a status that says whose fault it is."""
        return theirs.handle_exception(datasette, request, _told(exception, bool(request.query_string)))


def install() -> None:
    """Put it in place, once in a process."""
    if pm.is_registered(theirs):
        theirs.rich = None
        pm.unregister(theirs)
        pm.register(DatasetteErrors())


def _told(exception: Exception, has_arguments: bool) -> Any:  # noqa: ANN401
    """The exception whose page is shown."""
    if isinstance(exception, Base400):
        return exception
    if isinstance(exception, DatasetteError):
        # Without a status of its own it is about an argument.
        exception.status = exception.status if exception.status < 500 else 400
        return exception
    if has_arguments and isinstance(exception, _OF_ARGUMENTS):
        return DatasetteError(f"This request cannot be answered: {exception}", status=400)
    log.error("a page of Datasette's failed", exc_info=exception)
    return DatasetteError("Something went wrong here; it is in the server's log.", status=500)
