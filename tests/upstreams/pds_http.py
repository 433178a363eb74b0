"""The servers of the fake network: one thread, and for each host a port of its own."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from tests.upstreams.pds_history import History, Seen
from tests.upstreams.pds_wire import Answer, Line, Request, head_of, in_chunks, parsed

CONTROL = "/-/"
_LAST_BYTES = 4096
_MAX_HEAD = 64 * 1024


class Listener:
    """One host: a port that stays its own, also while connections are refused."""

    def __init__(self, name: str, address: str, port: int, called: str = "") -> None:
        self.name = name
        self._address = address
        # Bound but not listening, it keeps others off the port.
        self._guard = _bound(address, port)
        self.port: int = self._guard.getsockname()[1]
        self.url = f"http://{called or address}:{self.port}"
        self.server: asyncio.Server | None = None
        self.connections: set[asyncio.Task[None]] = set()

    def socket(self) -> socket.socket:
        """A socket to listen with."""
        return _bound(self._address, self.port)

    def release(self) -> None:
        """Give the port up."""
        self._guard.close()


Reply = Callable[[Listener, Request, Seen], Awaitable[Answer]]


class Server:
    """The thread that serves all listeners."""

    def __init__(self, listeners: list[Listener], reply: Reply, control: Reply, history: History) -> None:
        self._listeners = listeners
        self._reply, self._control = reply, control
        self._history = history
        self._thread = threading.Thread(target=self._run, name="fake-network", daemon=True)

    def start(self) -> None:
        """Listen on every port."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._do(self._open_all())

    def stop(self) -> None:
        """Close every port and every connection; also right without `start`."""
        if self._thread.is_alive():
            self._do(self._close_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        for listener in self._listeners:
            listener.release()

    def refuse(self, listener: Listener) -> None:
        """Close a host's port and its connections: new ones are refused."""
        self._do(self._refuse(listener))

    def accept(self, listener: Listener) -> None:
        """Open a refused host's port again."""
        self._do(self._open(listener))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _do(self, task: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(task, self._loop).result(10)

    async def _open_all(self) -> None:
        for listener in self._listeners:
            await self._open(listener)

    async def _close_all(self) -> None:
        for listener in self._listeners:
            await self._refuse(listener)
        # Connections that were taken but not begun with.
        late = asyncio.all_tasks() - {asyncio.current_task()}
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _open(self, listener: Listener) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(listener, reader, writer)

        if listener.server is None:
            listener.server = await asyncio.start_server(
                connected, sock=listener.socket(), backlog=256, limit=_MAX_HEAD
            )

    async def _refuse(self, listener: Listener) -> None:
        if listener.server:
            listener.server.close()
            listener.server = None
        tasks = list(listener.connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        listener.connections.add(task)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Clients are killed on purpose here, and a server that closes cancels its connections.
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            line = Line(reader, writer)
            while await self._one(listener, reader, line):
                pass
        listener.connections.discard(task)
        writer.close()

    async def _one(self, listener: Listener, reader: asyncio.StreamReader, line: Line) -> bool:
        """Read one request and answer it; gives whether the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        if f" {CONTROL}".encode() in head.partition(b"\r\n")[0]:
            seen, ended = Seen(0, listener.name, 0, 0), False
        else:
            seen, ended = self._history.begin(listener.name, line.hung_up), True
        line.sent = 0
        try:
            request = parsed(head)
            if (size := request.headers.get("content-length", "")).isdigit():
                await reader.readexactly(int(size))
            reply = self._reply if ended else self._control
            return await self._send(await reply(listener, request, seen), request, seen, line)
        except (ConnectionError, asyncio.CancelledError):
            self._history.end(seen, gone=True)
            raise
        except Exception:
            # A fault of the fake's own must not look like one of those it plays.
            traceback.print_exc(file=sys.stderr)
            seen.problems.append(f"the fake itself failed: {traceback.format_exc(limit=-1)}")
            raise ConnectionAbortedError from None
        finally:
            seen.bytes = max(seen.bytes, line.sent)
            self._history.end(seen)

    async def _send(self, answer: Answer, request: Request, seen: Seen, line: Line) -> bool:
        if answer.instead == "silence":
            await line.gone()
            raise ConnectionAbortedError
        if answer.instead == "reset":
            self._history.end(seen)
            line.reset()
            return False
        coding, body = answer.in_coding(request)
        whole = len(body)
        body = body if answer.keep is None else body[: int(whole * answer.keep)]
        cut = answer.keep is not None and answer.stated
        stays = not cut and not answer.stream and request.headers.get("connection", "").lower() != "close"
        seen.status = answer.status
        if answer.stream:
            length = {}
        elif answer.chunked:
            length = {"Transfer-Encoding": "chunked"}
            body = in_chunks(body, ended=not cut)
        else:
            length = {"Content-Length": str(whole if cut else len(body))}
        wire = head_of(answer, coding, length, stays or cut) + body
        if answer.stream:
            await line.write(wire)
            await answer.stream(line)
            return False
        # The client may act on the last bytes sooner than this thread goes on, so the request ends just before them.
        await line.write(wire[:-_LAST_BYTES])
        if answer.delivered:
            answer.delivered()
        seen.hold_until = answer.hold_until
        seen.bytes = len(wire)
        self._history.end(seen)
        await line.write(wire[-_LAST_BYTES:])
        return stays


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    return made
