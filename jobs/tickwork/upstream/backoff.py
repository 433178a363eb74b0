"""How long to wait after faults: the first wait doubled with each further fault up to a cap, and jitter after that."""

from __future__ import annotations

import random

JITTER = 0.1
_MAX_DOUBLINGS = 1023
"""The next power of two is beyond a float."""


def backoff(faults_before: int, first_seconds: float, cap_seconds: float) -> float:
    """Seconds to wait after a fault that `faults_before` others preceded: min(first * 2^faults_before, cap)."""
    return min(first_seconds * 2.0 ** min(faults_before, _MAX_DOUBLINGS), cap_seconds)


def jittered(seconds: float, share: float = JITTER) -> float:
    """`seconds`, a share of them more or less at random, so that what waits equally long does not come back in step.

    It belongs after the cap: what has waited the longest would march in step otherwise.
    """
    return seconds * random.uniform(1 - share, 1 + share)  # noqa: S311 - a spread, not a secret
