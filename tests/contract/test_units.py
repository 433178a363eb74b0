"""Units, budgets and durations."""

from __future__ import annotations

import pytest

from tickwork.contract.jobs import seconds
from tickwork.contract.outcomes import Halt, Held, Interrupted, OperatorError, Outcome, PassEnd, Transient
from tickwork.contract.units import Budget, Unit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_bounds_a_budget_is_never_exhausted() -> None:
    budget = Budget()
    budget.spend(Unit(items=10**9, size=10**12))
    assert budget.exhausted() == ""
    assert budget.remaining is None
    assert budget.seconds_left is None


def test_items_are_counted_down_and_never_below_zero() -> None:
    budget = Budget(items=5)
    budget.spend(Unit(items=3))
    assert budget.remaining == 2
    assert budget.exhausted() == ""
    budget.spend(Unit(items=4))
    assert budget.remaining == 0
    assert budget.exhausted() == "bound reached: 5 items"


def test_seconds_run_from_the_making_of_the_budget() -> None:
    clock = Clock()
    budget = Budget(seconds=10, clock=clock)
    clock.now += 9.5
    assert budget.seconds_left == pytest.approx(0.5)
    assert budget.exhausted() == ""
    clock.now += 100
    assert budget.seconds_left == 0
    assert budget.exhausted() == "bound reached: 10 seconds"


def test_bytes_are_a_bound_of_their_own() -> None:
    budget = Budget(size=100)
    budget.spend(Unit(items=0, size=99))
    assert budget.exhausted() == ""
    budget.spend(Unit(items=0, size=1))
    assert budget.exhausted() == "bound reached: 100 bytes"


def test_a_unit_without_items_spends_none() -> None:
    budget = Budget(items=1)
    budget.spend(Unit(items=0))
    assert budget.remaining == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("90", 90), ("45s", 45), ("20m", 1200), ("3h", 10800), ("7d", 604800), (" 5m ", 300)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-5", "1.5h", "20 m", "5w", "5mm", "٣m", "²", "1e3", "0x10", "20M"])
def test_anything_else_is_no_duration_and_the_message_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write 90, 45s, 20m, 3h or 7d"):
        seconds(text)


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {outcome.value: outcome.exit_code for outcome in Outcome} == {
        "drained": 0,
        "more": 3,
        "halted": 4,
        "busy": 75,
        "unreachable": 69,
        "crashed": 1,
        "killed": 1,
    }


def test_each_way_to_end_a_pass_has_its_outcome() -> None:
    assert Halt("x").outcome is Outcome.HALTED
    assert {kind.outcome for kind in (PassEnd, Transient, Interrupted, Held)} == {Outcome.MORE}
    assert not issubclass(OperatorError, PassEnd)
