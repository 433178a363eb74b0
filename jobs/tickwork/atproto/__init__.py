"""Repositories of the AT Protocol: discover, backfill, events (filtered or whole, verified, from any server)."""

from tickwork.contract.jobs import Job

# Discovery writes while repositories are fetched, so each has a lock of its own. It ticks more often than lists are
# begun anew, so that each is begun soon after it may be.
JOBS = (
    Job(name="atproto-discover", command=("atproto", "discover"), locks=("atproto-lists",), schedule="*/20 * * * *"),
    Job(name="atproto-backfill", command=("atproto", "backfill"), locks=("atproto-repos",), schedule="*/30 * * * *"),
    # These two call nobody; they share the processor with whatever else embeds or publishes here, and leave the minutes
    # of doab's free.
    Job(name="atproto-embed", command=("embed", "atproto"), locks=("vectors",), schedule="18,38 * * * *"),
    Job(name="atproto-publish", command=("publish", "atproto"), locks=("vectors",), schedule="40 */2 * * *"),
)
