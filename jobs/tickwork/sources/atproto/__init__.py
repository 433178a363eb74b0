"""Repositories of the AT Protocol: discover, backfill, events (whole or filtered, verified, from any server)."""

from __future__ import annotations

from collections.abc import Mapping

from tickwork.contract.jobs import Job
from tickwork.source import Settings, Source


def _jobs(_settings: Settings) -> tuple[Job, ...]:
    # Discovery writes while repositories are fetched, so each has a lock of its own. It ticks more often than lists are
    # started again, so that each is started soon after it may be.
    lists, repositories, vectors = ("atproto-lists",), ("atproto-repos",), ("vectors",)
    return (
        Job(
            name="atproto-discover",
            command=("atproto", "discover", "--seconds", "900"),
            locks=lists,
            schedule="*/20 * * * *",
            timeout="17m",
        ),
        Job(
            name="atproto-backfill",
            command=("atproto", "backfill", "--limit", "50000", "--seconds", "1440"),
            locks=repositories,
            schedule="*/30 * * * *",
            timeout="27m",
        ),
        # These two call nobody; they share the processor with whatever else embeds or publishes here, and leave the
        # minutes of doab's free.
        Job(
            name="atproto-embed",
            command=("embed", "atproto", "--seconds", "840"),
            locks=vectors,
            schedule="18,38 * * * *",
            timeout="16m",
        ),
        Job(
            name="atproto-publish",
            command=("publish", "atproto", "--seconds", "1080"),
            locks=vectors,
            lock_wait="19m",
            schedule="40 */2 * * *",
        ),
    )


def _corpora(_settings: Settings) -> Mapping[str, str]:
    return {"atproto": "tickwork.sources.atproto.corpus:CORPUS"}


SOURCE = Source(
    name="atproto",
    title="Repositories of the AT Protocol: discover, backfill, events (whole or filtered, verified, from any server).",
    jobs=_jobs,
    settings="tickwork.sources.atproto.settings:AtprotoSettings",
    commands="tickwork.sources.atproto.commands:app",
    corpora=_corpora,
    extras=("atproto",),
)
