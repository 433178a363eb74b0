"""The `[atproto]` table of the settings file."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from tickwork.contract.settings import AtLeastNone, AtLeastOne, Days, Hours, Seconds


class FilterSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`[atproto.filter]`: which records are stored. Patterns are the names of collections, or end in `.*`."""

    mode: Literal["full", "filter"] = "full"
    collections: tuple[str, ...] = ()
    """With mode filter, the collections whose records are stored; all where none is named."""
    signals: tuple[str, ...] = ()
    """With mode filter, a repository counts only if it has a record of one of these, or was added by name."""
    excludes: tuple[str, ...] = ()
    """Accounts (DIDs) that are left alone, whatever the mode."""


class AtprotoSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where repositories are found, how gently they are fetched, and how often a fault is met before giving up.

    `_seconds`, `_hours`, `_days` and `_bytes` are what they say; an interval is between two requests to one host.
    """

    RENAMED: ClassVar[dict[str, str]] = {f"{name}_rate": f"{name}_interval_seconds" for name in ("plc", "list", "host")}

    plc: tuple[str, ...] = ("https://plc.directory",)
    """Directories of did:plc; when one fails, or asks for silence, the next is asked."""
    plc_interval_seconds: Seconds = 0.1
    plc_concurrency: AtLeastOne = 4
    relays: tuple[str, ...] = ()
    """Relays whose lists of repositories are gone through, such as https://relay1.us-east.bsky.network."""
    hosts: tuple[str, ...] = ()
    """Servers (PDS) whose lists are gone through as well, or instead."""
    list_interval_seconds: Seconds = 1.0
    list_again_seconds: Seconds = 3600.0
    """A list that was gone through is begun anew after so long."""
    high_water: AtLeastOne = 20_000
    """So many repositories waiting to be fetched make discovery pause."""
    low_water: AtLeastNone = 10_000

    host_interval_seconds: Seconds = 0.2
    host_concurrency: AtLeastOne = 2
    connect_seconds: Seconds = 10.0
    read_seconds: Seconds = 60.0
    total_seconds: Seconds = 300.0
    max_bytes: AtLeastOne = 512 * 1024 * 1024
    """Largest repository accepted, decoded."""
    verify_signatures: bool = True

    retry_seconds: Seconds = 60.0
    """Wait after a first fault; each further one doubles it."""
    retry_cap_seconds: Seconds = 3600.0
    max_attempts: AtLeastOne = 16
    """After so many faults in a row a repository is parked until it changes, or a human asks for it."""
    recheck_days: Days = 7.0
    """How often an account that is gone is looked at."""

    ephemeral: bool = False
    """Keep events only, no records."""
    event_retention_hours: Hours = 168.0
    """How long events are kept; in ephemeral mode one hour."""
    shard: str = "1/1"
    """Which part of the servers is this machine's: `2/8` is the second of eight."""
    filter: FilterSettings = msgspec.field(default_factory=FilterSettings)
