"""Books from an OAI-PMH repository: harvest, discover, backfill, reconcile (DOAB is the shipped profile)."""

from tickwork.contract.jobs import Job

# All of them speak to the same server, so they share one lock.
JOBS = (
    Job(name="doab-harvest", command=("doab", "harvest"), locks=("doab-oai",), lock_wait="30m", schedule="30 4 * * *"),
    Job(name="doab-discover", command=("doab", "discover"), locks=("doab-oai",)),
    Job(
        name="doab-backfill",
        command=("doab", "backfill"),
        locks=("doab-oai",),
        drains=True,
        schedule="*/30 * * * *",
    ),
    Job(name="doab-reconcile", command=("doab", "reconcile"), locks=("doab-oai",)),
    # These two call nobody; they share the processor with whatever else embeds or publishes here.
    Job(name="doab-embed", command=("embed", "doab"), locks=("vectors",), schedule="*/20 * * * *"),
    Job(name="doab-publish", command=("publish", "doab"), locks=("vectors",), schedule="10 * * * *"),
)
