"""Commands as processes of their own, many of them, without the second or two that each would take to import."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import ClassVar, Self

_BORN = """
def born():
    pass

"""
_LOOP = """
import json, multiprocessing, sys
from tickwork.cli import main

def life(arguments, orders):
    born(**orders)
    main(arguments)

for line in sys.stdin:
    child = multiprocessing.get_context("fork").Process(target=life, args=json.loads(line))
    child.start()
    print(child.pid, flush=True)
    child.join()
    print(child.exitcode, flush=True)
"""


class Nursery:
    """Starts commands as processes of their own, forked ready-made, one after the other.

    A command that ends waits for its threads, as any does; but its interpreter is not taken apart, which would take
    longer than all the rest where torch has been imported.
    """

    prepare: ClassVar[str]
    """Python that is run once and imports what the commands need; if it defines `born`, each runs that first."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _BORN + self.prepare + _LOOP]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, arguments: list[str], **orders: int) -> int:
        """Start a command, which is born with these orders; gives its pid. The one before must have ended."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([arguments, orders]) + "\n")
        self._process.stdin.flush()
        return self._line()

    def ended(self) -> int:
        """Wait for the command's end; gives its exit code, negative for a signal."""
        return self._line()

    def run(self, arguments: list[str], **orders: int) -> int:
        """Start a command and wait for its end."""
        self.start(arguments, **orders)
        return self.ended()

    def _line(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())
