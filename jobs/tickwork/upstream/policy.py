"""How one remote service is to be treated: rate, concurrency, deadlines, sizes."""

from __future__ import annotations

from dataclasses import dataclass

DAY_SECONDS = 86_400.0
MAX_HOLD_SECONDS = 7 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Policy:
    """Manners towards every host of one upstream; raises ValueError for figures that make no sense.

    With `concurrency` 1 the interval is the silence between the end of a request and the start of the next, with more
    it is the time between two starts. `jitter` is added to the interval, at random, up to its value.
    """

    interval_seconds: float = 1.0
    jitter_seconds: float = 0.0
    concurrency: int = 1
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    total_seconds: float = 300.0
    max_bytes: int = 64 * 2**20
    retries: int = 2
    max_hold_seconds: float = MAX_HOLD_SECONDS

    def __post_init__(self) -> None:
        if min(self.interval_seconds, self.jitter_seconds, self.retries) < 0 or self.concurrency < 1:
            raise ValueError(f"interval, jitter and retries must be 0 or more, concurrency 1 or more: {self}")
        if min(self.connect_seconds, self.read_seconds, self.total_seconds, self.max_bytes, self.max_hold_seconds) <= 0:
            raise ValueError(f"deadlines, max_bytes and max_hold_seconds must be more than 0: {self}")
