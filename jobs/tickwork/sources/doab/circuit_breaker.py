"""The circuit breaker of the backfill: too many records gone or unusable means that something is wrong upstream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tickwork.contract.outcomes import Halt
from tickwork.sources.doab.settings import DoabSettings

WINDOW = 100
"""Outcomes looked back at."""
FEW = 5
"""So many reviews are a few, whatever share of a short worklist they are."""
SAMPLE = 50
"""Outcomes needed before the share of reviews or faults counts."""


class CircuitBreaker:
    """Judges the last outcomes (`ok`, `gone`, `review`) since the job was armed, and the faults of this pass.

    It is filled from the store at the start of a pass, so it looks across passes, and a kill between an outcome and
    the halt only delays the halt to the next pass.
    """

    def __init__(self, settings: DoabSettings, outcomes: Iterable[str]) -> None:
        self._settings = settings
        self._last = deque(outcomes, maxlen=WINDOW)
        self._requests: deque[str] = deque(maxlen=WINDOW)

    def saw(self, *outcomes: str) -> None:
        """Count what is already committed; raises Halt with the figures when it opens the breaker.

        A `fault` is a request that failed while others around it succeeded.
        """
        for outcome in outcomes:
            self._requests.append(outcome)
            if outcome in ("ok", "gone", "review"):
                self._last.append(outcome)
        self.check()

    def drained(self) -> None:
        """At the end of the worklist: raises Halt when too many of the last outcomes were for review."""
        review = self._last.count("review")
        if review >= FEW and review > self._settings.review_share * len(self._last):
            raise Halt(
                f"drained, but {review} of the last {len(self._last)} records cannot be used. See: tickwork doab stats"
            )

    def check(self) -> None:
        """Raise Halt if the breaker is open."""
        seen, gone, review = len(self._last), self._last.count("gone"), self._last.count("review")
        if seen >= WINDOW and gone > self._settings.gone_share * seen:
            raise Halt(
                f"{gone} of the last {seen} records are gone (limit {self._settings.gone_share:.0%}). "
                "Check the repository, and whether the list of identifiers is out of date"
            )
        asked, faults = len(self._requests), self._requests.count("fault")
        if asked >= SAMPLE and faults > self._settings.fault_share * asked:
            raise Halt(
                f"{faults} of the last {asked} requests failed while others succeeded (limit "
                f"{self._settings.fault_share:.0%}). Wait, or ask the repository's operator, before re-arming"
            )
        if seen >= SAMPLE and review > self._settings.review_share * seen:
            raise Halt(
                f"{review} of the last {seen} records cannot be used (limit {self._settings.review_share:.0%}). "
                "See: tickwork doab stats"
            )
