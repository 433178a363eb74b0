"""Campaigns: stages that any later pass takes up, with no state but what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tickwork.contract.campaign import Stage, StageReport, run_stages
from tickwork.contract.outcomes import Transient
from tickwork.contract.units import Unit

NAMES = ("crawl", "merge", "release")


class Work:
    """Three stages of three units each; a stage is done when its file has three lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[StageReport] = []
        self.looked: list[str] = []

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def stages(self) -> list[Stage]:
        return [self._stage(name) for name in NAMES]

    def _stage(self, name: str) -> Stage:
        def done() -> bool:
            self.looked.append(name)
            return len(self.lines(name)) == 3

        def run() -> Iterator[Unit]:
            while len(self.lines(name)) < 3:
                with (self.folder / name).open("a") as file:
                    file.write("a line\n")
                yield Unit(items=2)

        return Stage(name, done, run)

    def units(self, most: int) -> int:
        """One pass of at most so many units; gives how many it made."""
        source = run_stages(self.stages(), self.told.append)
        made = 0
        for _ in range(most):
            if next(source, None) is None:
                break
            made += 1
        source.close()  # type: ignore[attr-defined]
        return made


@pytest.mark.parametrize("every", range(1, 11))
def test_a_campaign_stopped_after_any_number_of_units_is_taken_up_by_the_next_pass(tmp_path: Path, every: int) -> None:
    work = Work(tmp_path)
    made = 0
    while units := work.units(every):
        made += units
    assert made == 9
    assert all(work.lines(name) == ["a line"] * 3 for name in NAMES)


def test_stages_run_in_their_order_and_one_that_is_done_is_left_alone(tmp_path: Path) -> None:
    work = Work(tmp_path)
    (tmp_path / "crawl").write_text("there\n" * 3)
    assert work.units(100) == 6
    assert work.lines("crawl") == ["there"] * 3
    assert [report.name for report in work.told] == ["merge", "release"]


def test_what_a_stage_left_is_all_that_counts(tmp_path: Path) -> None:
    work = Work(tmp_path)
    assert work.units(100) == 9
    (tmp_path / "merge").unlink()
    assert work.units(100) == 3, "somebody took it away, so it is done again"


def test_each_stage_that_was_worked_on_is_reported_also_when_the_pass_ends_within_it(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.units(4)
    assert [(report.name, report.units, report.items, report.finished) for report in work.told] == [
        ("crawl", 3, 6, True),
        ("merge", 1, 2, False),
    ]
    assert all(0 <= report.seconds < 60 for report in work.told)


def test_what_a_stage_raises_ends_the_campaigns_pass_and_is_reported() -> None:
    def run() -> Iterator[Unit]:
        yield Unit()
        raise Transient("the server is down")

    told: list[StageReport] = []
    with pytest.raises(Transient, match="the server is down"):
        list(run_stages([Stage("crawl", lambda: False, run), Stage("merge", lambda: False, run)], told.append))
    assert [(report.name, report.units, report.finished) for report in told] == [("crawl", 1, False)]


def test_a_stage_that_ends_without_a_trace_is_an_error_and_the_next_is_not_begun() -> None:
    begun: list[str] = []

    def run() -> Iterator[Unit]:
        begun.append("run")
        yield from ()

    with pytest.raises(RuntimeError, match="'crawl' has ended, but its result is missing"):
        list(run_stages([Stage("crawl", lambda: False, run), Stage("merge", lambda: False, run)]))
    assert begun == ["run"]
