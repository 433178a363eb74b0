"""Waiting in tests: for a condition, never for a time, and with a patience that only something broken exhausts."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
"""Long enough for anything on a machine that is busy with other things. What hangs in a test hangs for longer."""


def until(condition: Callable[[], object], failure: str | Callable[[], object] = "waited in vain") -> None:
    """Wait until the condition holds; fails, saying why, if it does not in the end."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, failure() if callable(failure) else failure
        time.sleep(0.005)
