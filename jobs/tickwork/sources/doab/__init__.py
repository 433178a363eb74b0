"""Books from an OAI-PMH repository: harvest, discover, backfill, reconcile (DOAB is the shipped profile)."""

from __future__ import annotations

from collections.abc import Mapping

from tickwork.contract.jobs import Job
from tickwork.source import Settings, Source


def _jobs(_settings: Settings) -> tuple[Job, ...]:
    # All that speak to the server share one lock.
    oai, vectors = ("doab-oai",), ("vectors",)
    return (
        Job(name="doab-harvest", command=("doab", "harvest"), locks=oai, lock_wait="30m", schedule="30 4 * * *"),
        Job(name="doab-discover", command=("doab", "discover"), locks=oai),
        Job(
            name="doab-backfill",
            command=("doab", "backfill", "--limit", "500", "--seconds", "1080"),
            locks=oai,
            drains=True,
            schedule="*/30 * * * *",
        ),
        Job(name="doab-reconcile", command=("doab", "reconcile"), locks=oai),
        # These two call nobody; they share the processor with whatever else embeds or publishes here.
        Job(
            name="doab-embed",
            command=("embed", "doab", "--seconds", "840"),
            locks=vectors,
            schedule="*/20 * * * *",
            timeout="16m",
        ),
        Job(
            name="doab-publish",
            command=("publish", "doab", "--seconds", "1080"),
            locks=vectors,
            lock_wait="19m",
            schedule="10 * * * *",
        ),
    )


def _corpora(_settings: Settings) -> Mapping[str, str]:
    return {"doab": "tickwork.sources.doab.corpus:CORPUS"}


SOURCE = Source(
    name="doab",
    title="Books from an OAI-PMH repository: harvest, discover, backfill, reconcile (DOAB is the shipped profile).",
    jobs=_jobs,
    settings="tickwork.sources.doab.settings:DoabSettings",
    commands="tickwork.sources.doab.commands:app",
    corpora=_corpora,
)
