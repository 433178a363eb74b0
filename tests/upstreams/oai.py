"""A strict fake of DOAB's OAI-PMH server that also judges the manners of its clients.

    with FakeOai(generated_books(3000), faults=[Fault("truncate", verb="ListRecords", nth=3)]) as oai:
        harvest(oai.base_url)
        assert not oai.history.overlaps()

From the command line: `python -m tests.upstreams.oai --books 3000 --fault '429:nth=4,after=5,via=date'`.
It needs the standard library only, and nothing of the programs it tests.
"""

import argparse
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.upstreams.books import Book, books_from_csv, books_from_page, generated_books
from tests.upstreams.faults import Fault, Switches, faulty_answer, pick_to_shift
from tests.upstreams.oai_control import control
from tests.upstreams.oai_history import History, Recorder, Seen
from tests.upstreams.oai_protocol import Protocol
from tests.upstreams.oai_records import DAYS, SECONDS, Records
from tests.upstreams.oai_wire import Answer, HttpServer, Line, Request

PATH = "/oai/request"


def _now() -> datetime:
    return datetime.now(UTC)


class FakeOai:
    """The server, from construction until `close`; records and faults can change while it serves.

    `page_size`, `granularity` (YYYY-MM-DDThh:mm:ssZ or YYYY-MM-DD), `with_sets` and `token_lifetime`
    (for expirationDate) are the repository's; `clock` gives responseDate and the datestamp of changes.
    """

    def __init__(
        self,
        books: Iterable[Book] = (),
        *,
        port: int = 0,
        page_size: int = 100,
        granularity: str = SECONDS,
        with_sets: bool = True,
        token_lifetime: timedelta | None = None,
        clock: Callable[[], datetime] = _now,
        faults: Iterable[Fault] = (),
        history_path: str | Path | None = None,
    ) -> None:
        self.records = Records(books, granularity)
        self.clock = clock
        self.switches = Switches(faults)
        self.recorder = Recorder(history_path)
        self._http = HttpServer(port, self)
        self.port: int = self._http.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}{PATH}"
        self._protocol = Protocol(self.records, self.base_url, clock, page_size, granularity, with_sets, token_lifetime)
        self._http.start()

    def __enter__(self) -> "FakeOai":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; the history stays."""
        self._http.stop()

    @property
    def history(self) -> History:
        """Every request up to now, and the oracle's methods over them."""
        return self.recorder.snapshot()

    def fault(self, kind: str, **fields: Any) -> Fault:
        """Switch one more fault on; see `Fault` for the fields."""
        return self.switches.add(Fault(kind, **fields))

    def put(self, book: Book) -> None:
        """Add a record, or replace the one of the same identifier."""
        self.records.put(book)

    def delete(self, identifier: str, when: datetime | None = None) -> None:
        """Mark a record deleted, at `when` (default: now)."""
        self.records.delete(identifier, when or self.clock())

    def touch(self, identifier: str, when: datetime | None = None) -> None:
        """Give a record the datestamp `when` (default: now), which moves it in the list."""
        self.records.touch(identifier, when or self.clock())

    def remove(self, identifier: str) -> None:
        """Forget a record without a trace."""
        self.records.remove(identifier)

    def reply(self, request: Request, seen: Seen, line: Line) -> Answer:
        """The answer to a client's request, faulty if a switch says so."""
        if request.path != PATH:
            return Answer(404, b"Not found\n", "text/plain")
        if request.method not in ("GET", "POST"):
            return Answer(405, b"GET or POST\n", "text/plain", {"Allow": "GET, POST"})
        struck = self.switches.strike(request)
        seen.fault = ",".join(fault.kind for fault in struck) or None
        for fault in struck:
            self._before_answer(fault, request, line)
        own = next((fault for fault in struck if not fault.goes_with_others()), None)
        if own:
            return faulty_answer(own, self._protocol, request)
        return Answer(200, self._protocol.answer(request.arguments))

    def control(self, request: Request) -> Answer:
        """The answer to a request under `/-/`."""
        return control(self, request)

    def _before_answer(self, fault: Fault, request: Request, line: Line) -> None:
        if fault.kind == "slow":
            line.wait(fault.seconds)
        elif fault.kind == "shift" and fault.change:
            fault.change(self)
        elif fault.kind == "shift":
            chosen = pick_to_shift(fault, self._protocol, request.params)
            if chosen:
                self.touch(chosen)


def parse_fault(text: str) -> Fault:
    """A fault from `kind:key=value,...`; numbers are numbers, `count=none` means always."""
    kind, _, rest = text.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return Fault.from_json({"kind": kind, **{name: _value(value) for name, _, value in pairs}})


def _value(text: str) -> Any:
    if text == "none":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstreams.oai", description="A strict fake of DOAB's OAI-PMH server."
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--books", type=int, help="generated records (3000 if no other source is given)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="DOAB's CSV export")
    parser.add_argument("--page", type=Path, help="a saved ListRecords page")
    parser.add_argument("--page-size", type=int, default=100)
    parser.add_argument("--granularity", choices=[SECONDS, DAYS], default=SECONDS)
    parser.add_argument("--history", type=Path, help="JSON lines of the finished requests")
    parser.add_argument("--fault", type=parse_fault, action="append", default=[], metavar="KIND:KEY=VALUE,...")
    parser.add_argument("--ready-file", type=Path, help="gets the base URL once the server answers")
    return parser.parse_args()


def _books(args: argparse.Namespace) -> list[Book]:
    books = books_from_csv(args.csv) if args.csv else []
    books += books_from_page(args.page) if args.page else []
    count = args.books if args.books is not None else 0 if books else 3000
    return books + generated_books(count, args.seed)


def main() -> None:
    """Serve in the foreground until TERM or INT."""
    args = _arguments()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    server = FakeOai(
        _books(args),
        port=args.port,
        page_size=args.page_size,
        granularity=args.granularity,
        faults=args.fault,
        history_path=args.history,
    )
    with server:
        print(server.base_url, flush=True)
        if args.ready_file:
            _write_whole(args.ready_file, f"{server.base_url}\n")
        done.wait()


def _write_whole(path: Path, text: str) -> None:
    """Write so that a reader polling for the file never finds it half written."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    main()
