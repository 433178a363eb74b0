"""Killed at any moment of a campaign, started again: what is published is the same, and never half-made."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kits.publish import DRAINED, PublishNursery, Shelf, agrees, changed, content, some
from tickwork.generation.generations import Generation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SOAK = bool(os.environ.get("TICKWORK_SOAK"))
SEED = int(os.environ.get("TICKWORK_SEED", "20261122"))
STEP = 1 if SOAK else 6
"""Of the things done to files, each so-manieth is died before."""
CAMPAIGNS = 300 if SOAK else 3
"""Each is killed up to four times."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[PublishNursery]:
    with PublishNursery() as running:
        yield running


def first(home: Path) -> Shelf:
    """Books of which nothing is published."""
    shelf = Shelf(home, factory="IVF4,SQfp16", nprobe=4, keep_generations=1)
    shelf.add(some(80))
    return shelf


def increment(home: Path) -> Shelf:
    """Books that changed since they were published; publishing them removes the generation there is."""
    shelf = first(home)
    shelf.publish()
    changed(shelf)
    return shelf


def whole(shelf: Shelf) -> Generation | None:
    """What is current, which must be whole if there is any."""
    if not shelf.generations.folder.exists() or not shelf.generations.current_name():
        return None
    return shelf.current()


@pytest.mark.parametrize(
    ("made", "command"),
    [
        (first, ("publish", "doab")),
        (increment, ("publish", "doab")),
        (increment, ("publish", "doab", "--only", "index", "--nlist", "6")),
    ],
    ids=["first", "increment", "index"],
)
def test_a_campaign_that_dies_before_anything_it_does_to_a_file_ends_as_if_it_had_not(
    nursery: PublishNursery, tmp_path: Path, made: Any, command: tuple[str, ...]
) -> None:
    origin = made(tmp_path / "origin")
    undisturbed = origin.clone(tmp_path / "undisturbed")
    assert undisturbed.run(*command).code == DRAINED
    truth, before = content(undisturbed.current()), whole(origin)
    states, deaths = {content_of(before), content_of(undisturbed.current())}, 0
    for die_at in range(1 + SEED % STEP, 1000, STEP):
        shelf = origin.clone(tmp_path / str(die_at))
        code = nursery.run(shelf.command(*command), die_at=die_at)
        deaths += code == -signal.SIGKILL
        assert content_of(whole(shelf)) in states
        # Once more on the way, a little later: what was taken up must be as good as what was begun.
        if code:
            nursery.run(shelf.command(*command), die_at=1 + die_at % 7)
            assert content_of(whole(shelf)) in states
            # An index is asked for each time it is asked for; it is what is under way that must be finished.
            assert nursery.run(shelf.command(*command)) == DRAINED
        assert content(shelf.current()) == truth
        assert not shelf.leftovers()
        if code == DRAINED:
            break
    print(f"\n{deaths} deaths")
    assert deaths * STEP > 60
    assert code == DRAINED, "there was more to die before"


def content_of(generation: Generation | None) -> str:
    return repr(content(generation)) if generation else ""


def test_a_campaign_killed_at_random_moments_ends_as_if_it_had_not(nursery: PublishNursery, tmp_path: Path) -> None:
    moments, kills = random.Random(SEED), 0
    shelf = Shelf(tmp_path / "shelf", factory="IVF32,SQfp16", nprobe=8)
    shelf.add(some(1000))
    anew = shelf.mirror(tmp_path / "anew")
    assert nursery.run(anew.command("publish", "doab")) == DRAINED  # the nursery, too, is ready after it
    began = time.monotonic()
    assert nursery.run(anew.command("publish", "doab", "--full")) == DRAINED
    lasts = time.monotonic() - began
    for campaign in range(CAMPAIGNS):
        for _ in range(4):
            before = whole(shelf)
            pid = nursery.start(shelf.command("publish", "doab"))
            time.sleep(moments.uniform(0, lasts / 4))  # the moment of the kill is what is drawn
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            code = nursery.ended()
            assert code in (DRAINED, -signal.SIGKILL)
            current = whole(shelf)
            if code == DRAINED or (current and before and current.name != before.name):
                break
            kills += 1
        assert nursery.run(shelf.command("publish", "doab")) == DRAINED
        assert nursery.run(anew.command("publish", "doab", "--full")) == DRAINED
        agrees(shelf, shelf.current())
        assert content(shelf.current()) == content(anew.current())
        assert not shelf.leftovers()
        live = sorted(shelf.words)
        shelf.change({identifier: some(1, identifier + campaign)[0] for identifier in moments.sample(live, 40)})
        shelf.delete(moments.sample(sorted(shelf.words), 40))
        shelf.add(some(40, campaign))
    print(f"\nseed {SEED}: {kills} kills in {CAMPAIGNS} campaigns of {lasts:.1f} s")
    assert kills
