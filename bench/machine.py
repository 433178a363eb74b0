"""What figures were measured on, functions that take turns in one process, and how far a figure is from its aim."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
"""Flags of /proc/cpuinfo that decide how fast a matrix product is."""
QUIET = 0.5


def describe(threads: int, packages: tuple[str, ...]) -> None:
    """Print the machine, its load and the versions of the packages that are compared; warn where others are at work."""
    info = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        info.setdefault(name.strip().lower(), value.strip())
    there = set(info.get("flags", info.get("features", "")).split())
    flags = ", ".join(f"{'' if flag in there else 'no '}{flag}" for flag in FLAGS)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"machine: {cores} cores, {info.get('model name', platform.machine())}; {flags}")
    print(f"         load average {load:.2f} before; {threads} threads for each; Python {platform.python_version()}")
    print(f"         {', '.join(f'{name} {version(name)}' for name in packages)}")
    if load > QUIET:
        print(f"WARNING: load average {load:.2f} is above {QUIET}: others are at work, these are no figures to keep")
    if threads < cores:
        print(f"WARNING: {threads} of {cores} cores are used")
    sys.stdout.flush()


def calls_in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each call in each round, the calls taking turns. Warming up is left to the caller."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begun)
    return taken


def at_least(figure: float, aim: float) -> str:
    """A figure that should be large, as text, beside its aim."""
    return f"{figure:.2f} (aim: at least {aim:g}; {'met' if figure >= aim else 'MISSED'})"


def at_most(figure: float, aim: float) -> str:
    """A share that should be small, as text, beside its aim."""
    return f"{figure:.1%} (aim: at most {aim:.0%}; {'met' if figure <= aim else 'MISSED'})"
