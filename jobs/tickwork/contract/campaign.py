"""A campaign: stages over many passes, each taken up where it was left, by any later pass.

It keeps no state of its own: whether a stage is done is seen by what the stage left behind (a file, a row), so that
nothing can contradict it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tickwork.contract.units import Unit


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `done` looks at what it leaves behind, `run` goes on with it and yields committed units."""

    name: str
    done: Callable[[], bool]
    run: Callable[[], Iterator[Unit]]


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a pass did of one stage; `finished` is False where the pass ended within it."""

    name: str
    units: int
    items: int
    seconds: float
    finished: bool


def run_stages(stages: Sequence[Stage], report: Callable[[StageReport], None] = lambda _report: None) -> Iterator[Unit]:
    """Run the stages that are not done, in their order; exhausted when all are.

    `report` is told of each stage that this pass worked on, also when the pass ends within it, for whatever reason.
    Raises what the stages raise, and RuntimeError for a stage that has ended and is not done: the next pass would find
    it undone for ever.
    """
    for stage in stages:
        if stage.done():
            continue
        begun, units, items, finished = time.monotonic(), 0, 0, False
        try:
            for unit in stage.run():
                units, items = units + 1, items + unit.items
                yield unit
            finished = stage.done()
        finally:
            report(StageReport(stage.name, units, items, time.monotonic() - begun, finished))
        if not finished:
            raise RuntimeError(f"the stage {stage.name!r} has ended, but its result is missing")
