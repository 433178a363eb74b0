"""Running commands in turn and comparing them pair by pair, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each command in each round, the commands taking turns; one round of warm-up is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            if number:
                taken[name].append(time.perf_counter() - begun)
    return taken


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios pair by pair."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def line(name: str, seconds: Sequence[float], note: str) -> str:
    """One line of a report: median, minimum and maximum in milliseconds."""
    low, middle, high = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{name:34} {middle:8.2f} ms  ({low:.2f} to {high:.2f})  {note}"
