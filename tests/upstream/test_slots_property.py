"""Any interleaving of claims, settles, holds and clock changes keeps the promises made to a host."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tickwork.contract.outcomes import Held
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Flight, Slots

HOSTS = st.sampled_from(["a.example", "b.example:8080"])
SECONDS = st.floats(0, 200, allow_nan=False)
LEASE = 50.0
SLACK = 1e-3  # unix times have microseconds at best


class Manners(RuleBasedStateMachine):
    """Two openings of one database, as two processes would have, and what one host's server would note down."""

    concurrency = 1

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_770_000_000.0
        path = Path(self.folder.name) / "slots.db"
        self.openings = [Slots(path, clock=lambda: self.now) for _ in range(2)]
        self.last: dict[str, tuple[float, float]] = {}  # host: when it last heard from us, the interval then
        self.flying: list[tuple[Flight, float]] = []  # and until when the lease is good
        self.held: dict[str, float] = {}

    def teardown(self) -> None:
        for opening in self.openings:
            opening.close()
        self.folder.cleanup()

    @rule(host=HOSTS, who=st.integers(0, 1), interval=st.sampled_from([0.0, 1.0, 30.0]), jitter=st.sampled_from([0, 2]))
    def claim(self, host: str, who: int, interval: float, jitter: float) -> None:
        policy = Policy(
            interval_seconds=interval, jitter_seconds=jitter, concurrency=self.concurrency, max_hold_seconds=1000
        )
        try:
            slot = self.openings[who].claim(host, policy, LEASE)
        except Held as refusal:
            until = refusal.until.timestamp()
        else:
            until = 0.0
        if abs(self.held.get(host, 0) - self.now) < SLACK:
            return  # at the very end of a hold both answers are right: times are rounded
        if self.held.get(host, 0) > self.now:
            assert abs(until - self.held[host]) < SLACK, "not refused, or until another time"
            return
        assert until == 0, "refused without a hold"
        if isinstance(slot, float):
            assert 0 < slot <= 32 + SLACK
            return
        last, before = self.last.get(host, (0.0, 0.0))
        assert self.now - last >= max(interval, before) - SLACK, "two slots closer than the interval"
        out = [1 for flight, end in self.flying if flight.host == host and end > self.now]
        assert len(out) < self.concurrency, "one too many at once"
        self.last[host] = (self.now, interval)
        self.flying.append((slot, self.now + LEASE))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), status=st.sampled_from([0, 200, 404, 429, 500, 503]), told=st.none() | SECONDS)
    def settle(self, data: st.DataObject, status: int, told: float | None) -> None:
        flight, _ = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        until = None if told is None else dt.datetime.fromtimestamp(self.now + told, dt.UTC)
        held = self.openings[0].settle(flight, bytes=1, status=status, hold_until=until)
        assert (held is not None) == (told is not None or status in (429, 503))
        if held is not None:
            self.note_hold(flight.host, held.until.timestamp(), told)
        if self.concurrency == 1:
            _, interval = self.last[flight.host]
            self.last[flight.host] = (self.now, interval)

    @rule(host=HOSTS, seconds=st.floats(0.001, 5000))
    def hold(self, host: str, seconds: float) -> None:
        until = dt.datetime.fromtimestamp(self.now + seconds, dt.UTC)
        held = self.openings[1].hold(host, until, "asked", max_hold_seconds=1000)
        self.note_hold(host, held.until.timestamp(), min(seconds, 1000))

    def note_hold(self, host: str, until: float, told: float | None) -> None:
        if self.held.get(host, 0) > self.now:
            assert until >= self.held[host] - SLACK, "a hold was shortened"
        assert until <= self.now + 1000 + SLACK
        if told is not None:
            assert until >= self.now + told - SLACK
        self.held[host] = max(until, 0)

    @rule(host=HOSTS)
    def clear(self, host: str) -> None:
        if self.held.get(host, 0) > self.now + SLACK:
            self.openings[0].clear(host, "ada", "because")
            del self.held[host]

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.0, 29.0, 60.0, 900.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds


class MannersOfFour(Manners):
    concurrency = 4


TestOneAtOnce = Manners.TestCase
TestFourAtOnce = MannersOfFour.TestCase
TestOneAtOnce.settings = TestFourAtOnce.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
