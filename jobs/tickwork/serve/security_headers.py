"""What surrounds every answer: which requests are let through, and the headers that tell browsers what may run."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_ADDRESS = 8_000
"""Bytes of path and query string."""
OURS = ("/browse", "/item", "/api", "/assets", "/-/health")
"""The first parts of our addresses besides the front page; corpora may bring more."""
_STRICT = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Datasette's own pages have scripts of their own within them.
_DATASETTE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class SecurityHeaders:
    """An ASGI application around another."""

    def __init__(self, app: Asgi, addresses: Iterable[str] = ()) -> None:
        """`addresses` are the first parts of further addresses of ours, such as `/handle`."""
        self._app = app
        self._ours = (*OURS, *addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """SearchResult one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        ours = path == "/" or any(path == one or path.startswith(f"{one}/") for one in self._ours)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_ours(message.get("headers", ()), ours=ours)
            await send(message)

        refusal = _refusal(scope, ours=ours)
        if refusal:
            status, words = refusal
            kind, body = b"text/plain", f"{words}\n".encode()
            if path.startswith("/api/"):
                kind, body = b"application/json", json.dumps({"error": words}).encode()
            headers = [(b"content-type", kind + b"; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            if status == 405:
                headers.append((b"allow", b"GET, HEAD"))
            await guarded({"type": "http.response.start", "status": status, "headers": headers})
            await guarded({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})
            return
        await self._app(scope, receive, guarded)


def _refusal(scope: Scope, *, ours: bool) -> tuple[int, str] | None:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string") or b""
    if scope["method"] not in ("GET", "HEAD"):
        return 405, "Everything here is read-only."
    if len(raw) + len(query) > MAX_ADDRESS:
        return 414, f"The address is longer than {MAX_ADDRESS} bytes."
    if _is_about_datasette(scope["path"]):
        return 404, "There is nothing at this address."
    # Two slashes at the beginning would make a redirect lead to another server.
    if raw.startswith(b"//") or b"\\" in raw or any(byte < 0x21 or byte > 0x7E for byte in raw + query):
        return 400, "The address is malformed."
    # Datasette puts some arguments into its SQL, escaped, and SQLite takes no null character there.
    if b"%00" in query and not ours:
        return 400, "The address is malformed."
    return None


def _is_about_datasette(path: str) -> bool:
    """Whether it is one of its pages about itself, which say where files lie and what threads do."""
    return path.startswith("/-/") and path != "/-/health" and not path.startswith("/-/static/")


def _with_ours(headers: Iterable[tuple[bytes, bytes]], *, ours: bool) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with ours in place of others of the same name."""
    added = {**_ALWAYS, "content-security-policy": _STRICT if ours else _DATASETTE}
    kept = [(name, value) for name, value in headers if name.decode("latin-1").lower() not in added]
    return [*kept, *((name.encode(), value.encode()) for name, value in added.items())]
