"""The `[doab]` table of the settings file; the defaults are the profile of DOAB itself."""

from __future__ import annotations

import re

import msgspec

from tickwork.contract.outcomes import OperatorError


class DoabSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which OAI-PMH repository, how gently, and where the lines lie that only a human may cross.

    Rates between 0 and 1 are shares; `_seconds`, `_days` and `_bytes` are what they say.
    """

    base_url: str = "https://directory.doabooks.org/oai/request"
    prefix: str = "oai_dc"
    set: str = ""
    identifier_pattern: str = r"oai:directory\.doabooks\.org:(?P<handle>20\.500\.12854/(?P<number>\d+)(?:\.\d+)?)"
    """Regular expression for a whole identifier; the groups `handle` and `number` (for the order) are optional."""

    rate: float = 3.0
    """Seconds of silence between two requests."""
    jitter: float = 0.2
    """Share of `rate` added at random; never less than `rate`."""
    connect_seconds: float = 20.0
    read_seconds: float = 120.0
    total_seconds: float = 300.0
    max_bytes: int = 64 * 1024 * 1024
    """Largest answer accepted, decoded."""

    window_days: int = 3
    """A harvest looks at least this far back."""
    overlap_days: int = 1
    """How far behind the server's clock the cursor is kept: repositories index late."""
    window_items: int = 5000
    """A date window that lists more is halved, so that little is lost when a resumption token expires."""
    snapshot_days: int = 30
    """A list of identifiers older than this is crawled anew before the backfill goes on."""

    max_attempts: int = 5
    gone_rate: float = 0.30
    review_rate: float = 0.05
    fault_rate: float = 0.20
    malformed_rate: float = 0.05
    shrink_rate: float = 0.05
    mass_delete_rate: float = 0.10
    miscount_rate: float = 0.02
    """Largest stable difference between the server's own count and what it lists that is taken for a miscount."""

    def pattern(self) -> re.Pattern[str]:
        """The compiled identifier pattern; OperatorError if it is not a regular expression."""
        try:
            return re.compile(self.identifier_pattern)
        except re.error as error:
            raise OperatorError(f"[doab] identifier_pattern is not a regular expression: {error}") from error
