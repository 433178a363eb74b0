"""The command `tickwork serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError
from tickwork.corpus.display import Display
from tickwork.deployment import Deployment
from tickwork.options import Gpu, Threads
from tickwork.source import load
from tickwork.vectors.settings import vector_settings

app = typer.Typer(no_args_is_help=True)

STOP_SECONDS = 10
"""That requests under way have to end when the service is stopped."""
_FIRST_OF_SYSTEMD = 3
"""The first descriptor it hands over: sd_listen_fds(3)."""
AT_ONCE = 200
"""Connections; who comes after that gets 503."""


@app.command("serve")
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8001,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between two checks for a new generation.")] = 2.0,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address to this file once requests are answered.")
    ] = None,
    threads: Threads = 1,
    gpu: Gpu = None,
) -> None:
    """Serve what is published until stopped: web pages, a JSON API and Datasette."""
    # Many small searches: threads within each would only get into each other's way. Read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    deployment: Deployment = context.obj
    settings = vector_settings(deployment, gpu=gpu, threads=threads)
    try:
        import uvicorn

        from tickwork.serve.library import Library
        from tickwork.serve.request_timeout import RequestTimeout
        from tickwork.serve.service import Service
    except ImportError as error:
        raise OperatorError(f"{error}: install tickwork[serve]") from error
    corpora = [deployment.corpus(name) for name in deployment.corpora()]
    displays = {corpus.name: load(corpus.display) if corpus.display else Display() for corpus in corpora}
    logging.basicConfig(format="level=%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("tickwork").setLevel(logging.INFO)
    library = Library(deployment.paths, corpora, settings)
    service = Service(library, displays, poll)
    listening = _listen(host, port)
    config = uvicorn.Config(
        service.app,
        http=RequestTimeout,
        access_log=False,
        log_level="warning",
        limit_concurrency=AT_ONCE,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_keep_alive=15,
        server_header=False,
        lifespan="off",
        ws="none",
    )

    async def run() -> None:
        async with service.running():
            at, opened_port = listening.getsockname()[:2]
            address = f"http://{at if ':' not in at else f'[{at}]'}:{opened_port}/"
            typer.echo(f"serving at {address}")
            if ready_file:
                with files.whole(ready_file, lasts=False) as partial:
                    partial.write_text(address, encoding="utf-8")
            # Once it has answered what was under way, uvicorn sends itself the signal that ended it.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            await uvicorn.Server(config).serve(sockets=[listening])

    asyncio.run(run())


def _listen(host: str, port: int) -> socket.socket:
    """The socket that systemd opened for us, else one bound to the address. Raises OperatorError."""
    handed_over = os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"
    try:
        if handed_over:
            return socket.socket(fileno=_FIRST_OF_SYSTEMD)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(AT_ONCE)
    except OSError as error:
        where = "the socket that was handed over" if handed_over else f"{host} port {port}"
        raise OperatorError(f"cannot listen on {where}: {error.strerror or error}") from error
    return listening
