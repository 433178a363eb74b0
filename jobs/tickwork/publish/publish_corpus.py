"""Publishing a corpus as a function: for its command, and for a campaign of a source within its own pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass
from tickwork.contract.units import Unit
from tickwork.corpus.corpus import Corpus
from tickwork.corpus.database import opened_source
from tickwork.generation.generations import Generations
from tickwork.publish import campaign
from tickwork.publish.campaign_context import CampaignContext, CampaignRequest
from tickwork.vectors.settings import VectorSettings

Only = Literal["index", "similar"]


def publish_corpus(
    corpus: Corpus,
    paths: Paths,
    settings: VectorSettings,
    one_pass: Pass,
    *,
    only: Only | None = None,
    full: bool = False,
) -> Iterator[Unit]:
    """Take the publication of `corpus` further, or begin one; units are parts of its stages.

    Exhausted when what is current reaches up to the last change. `only` rebuilds one file of the current generation,
    `full` takes nothing from the generation before. Raises Transient, Halt and OperatorError as the stages do.
    """
    published = Generations(paths, corpus.name)
    if not _has_documents(paths, corpus, published, one_pass):
        return
    yield from campaign.finish_switch(published, one_pass.warn)
    if only is None and not full and campaign.nothing_to_do(paths, corpus, published):
        return
    top_k = settings.top_k
    if only == "index" and (current := published.current()):
        top_k = current.meta.top_k
    asked = CampaignRequest(
        kind=only or "publish",
        base=published.current_name(),
        full=full or only == "index",
        factory=settings.factory,
        nlist=settings.nlist,
        nprobe=settings.nprobe,
        top_k=top_k,
    )
    from tickwork.vectors.device import open_device

    device = cache(lambda: open_device(settings.device, settings.threads, settings.dtype))
    if settings.device == "gpu":
        device()  # without it no campaign is begun
    context = CampaignContext(
        corpus=corpus,
        paths=paths,
        generations=published,
        request=campaign.begin(published, asked, one_pass.warn),
        open_device=device,
        warn=one_pass.warn,
    )
    yield from campaign.run(context, settings.keep_generations)
    if context.request.kind != asked.kind:  # one by hand was under way, and is finished: now to what was asked for
        yield from publish_corpus(corpus, paths, settings, one_pass, only=only, full=full)


def _has_documents(paths: Paths, corpus: Corpus, published: Generations, one_pass: Pass) -> bool:
    """Whether there is anything to publish from. Raises OperatorError where there must be."""
    path = paths.database(corpus.database)
    if not path.exists():
        if published.names():
            raise OperatorError(f"{path} is missing, from which {corpus.name} was published: restore it from a copy")
        one_pass.notes.append(f"{path} does not exist yet")
        return False
    with opened_source(path, corpus):
        return True
