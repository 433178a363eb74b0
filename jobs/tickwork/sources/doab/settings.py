"""The `[doab]` table of the settings file; the defaults are the profile of DOAB itself."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.settings import AtLeastNone, AtLeastOne, Seconds, Share


class DoabSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which OAI-PMH repository, how gently, and where the lines lie that only a human may cross.

    `_share` is between 0 and 1; `_seconds`, `_days` and `_bytes` are what they say.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "rate": "interval_seconds",
        **{
            f"{name}_rate": f"{name}_share"
            for name in ("gone", "review", "fault", "malformed", "shrink", "mass_delete", "miscount")
        },
    }

    base_url: str = "https://directory.doabooks.org/oai/request"
    prefix: str = "oai_dc"
    set: str = ""
    identifier_pattern: str = r"oai:directory\.doabooks\.org:(?P<handle>20\.500\.12854/(?P<number>\d+)(?:\.\d+)?)"
    """Regular expression for a whole identifier; the groups `handle` and `number` (for the order) are optional."""

    interval_seconds: Seconds = 3.0
    """Seconds of silence between two requests."""
    jitter: Seconds = 0.2
    """Share of `interval_seconds` that is added to it at random."""
    connect_seconds: Seconds = 20.0
    read_seconds: Seconds = 120.0
    total_seconds: Seconds = 300.0
    max_bytes: AtLeastOne = 64 * 1024 * 1024
    """Largest answer accepted, decoded."""

    window_days: AtLeastNone = 3
    """A harvest looks at least this far back."""
    overlap_days: AtLeastNone = 1
    """How far behind the server's clock the cursor is kept: repositories index late."""
    window_items: AtLeastOne = 5000
    """A date window that lists more is halved, so that little is lost when a resumption token expires."""
    snapshot_days: AtLeastNone = 30
    """A list of identifiers older than this is crawled anew before the backfill goes on."""

    max_attempts: AtLeastOne = 5
    gone_share: Share = 0.30
    review_share: Share = 0.05
    fault_share: Share = 0.20
    malformed_share: Share = 0.05
    shrink_share: Share = 0.05
    mass_delete_share: Share = 0.10
    miscount_share: Share = 0.02
    """Largest stable difference between the server's own count and what it lists that is taken for a miscount."""

    def pattern(self) -> re.Pattern[str]:
        """The compiled identifier pattern; OperatorError if it is not a regular expression."""
        try:
            return re.compile(self.identifier_pattern)
        except re.error as error:
            raise OperatorError(f"[doab] identifier_pattern is not a regular expression: {error}") from error
