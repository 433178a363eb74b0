"""The mutation check: with one safeguard taken away, the proof of it fails. A proof that cannot fail proves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.jobs import harvests, proofs
from tests.kits.wrappers import LIBRARY

pytestmark = pytest.mark.slow

# name: what is taken out of tick.sh, what stands there instead, the proof that must notice, and in which words
SHELL: dict[str, tuple[str, str, Callable[..., None], str]] = {
    "the flock": (r'flock -n -E 75 "\$fd"', "true", proofs.two_wrappers_never_overlap, "two passes at once"),
    "the halt test": (
        r"(?<=_tick_read \.skips _tick_skips _tick_row _tick_told\n)  if _tick_is_halted; then",
        "  if false; then",
        proofs.a_halted_job_does_not_run,
        "ran although halted",
    ),
    "the halt test under the lock": (
        r"(?<=since tick_ready looked\.\n)      _tick_markers$",
        ":",
        proofs.a_tick_that_waited_while_its_own_job_halted_does_not_run,
        "ran once more",
    ),
    "the refusal without a reserve": (
        r"_tick_full_reserve \|\| tick_cannot .*$",
        ":",
        proofs.nothing_runs_without_a_full_reserve,
        "ran without a reserve",
    ),
    "the reserve": (
        r"^ *(_tick_full_reserve \|\| _tick_rarely _tick_rearmed|_tick_rarely _tick_full_reserve \|\| _tick_rearmed)$",
        "_tick_rarely :",
        proofs.nothing_runs_without_a_full_reserve,
        "ran without a reserve",
    ),
    "the making of the reserve": (
        r"^ *(_tick_full_reserve \|\| _tick_rarely _tick_rearmed|_tick_rarely _tick_full_reserve \|\| _tick_rearmed)$",
        "_tick_rarely :",
        proofs.a_run_leaves_a_full_reserve,
        "no full reserve while it ran",
    ),
    "the kill of the process group": (
        r'kill -KILL -- "-\$_tick_child"',
        "false",
        proofs.what_a_job_leaves_behind_is_dead_before_the_lock_is_free,
        "outlived the pass",
    ),
}

PYTHON: dict[str, tuple[str, Callable[..., None], str]] = {
    "the hold": (harvests.NO_HOLD, harvests.nothing_is_sent_inside_a_hold, "a request inside the hold"),
    "the transaction": (
        harvests.NO_TRANSACTION,
        harvests.data_and_progress_are_committed_together,
        "of which the crawl knows nothing",
    ),
}


def mutated(home: Path, pattern: str, instead: str) -> Path:
    """A copy of the wrappers' library without the safeguard; fails when the safeguard is not where it was."""
    found = 0
    for name in (LIBRARY.name, "tick-pass.sh"):
        text, count = re.subn(pattern, instead, LIBRARY.with_name(name).read_text(), flags=re.MULTILINE)
        (home / name).write_text(text)
        found += count
    assert found, f"{pattern} is not in the library any more: mend this check"
    return home / LIBRARY.name


@pytest.mark.parametrize("name", SHELL)
def test_without_a_safeguard_of_the_wrapper_its_proof_fails(tmp_path: Path, name: str) -> None:
    pattern, instead, proof, words = SHELL[name]
    proof(tmp_path / "whole", library=mutated(tmp_path, r"\Z", "# a copy, changed in nothing\n"))
    with pytest.raises(AssertionError, match=words):
        proof(tmp_path / "mutated", library=mutated(tmp_path, pattern, instead))


@pytest.mark.parametrize("name", PYTHON)
def test_without_a_safeguard_of_the_jobs_its_proof_fails(tmp_path: Path, name: str) -> None:
    sabotage, proof, words = PYTHON[name]
    proof(tmp_path / "whole")
    with pytest.raises(AssertionError, match=words):
        proof(tmp_path / "mutated", sabotage)
