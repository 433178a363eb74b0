"""A campaign: the stages from a snapshot to the switch, each taken up where it was left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from tickwork.contract import database, files
from tickwork.contract.campaign import Stage, run_stages
from tickwork.contract.outcomes import OperatorError, Transient
from tickwork.contract.paths import Paths
from tickwork.contract.units import Unit
from tickwork.corpus.corpus import Corpus
from tickwork.generation.generations import CAMPAIGN, Generations
from tickwork.generation.meta import IDS, INDEX, META, SIMILAR, VECTORS, Watermark
from tickwork.publish.campaign_context import (
    SNAPSHOT,
    CampaignContext,
    CampaignRequest,
    Impossible,
    read_request,
    write_request,
)
from tickwork.store import changes
from tickwork.vectors.store import VectorStore

_VERBS = {"publish": "publish", "index": "index", "similar": "find similar items of"}
_KEPT_OF_BASE = {"index": (IDS, VECTORS, SIMILAR), "similar": (IDS, VECTORS, INDEX)}


def nothing_to_do(paths: Paths, corpus: Corpus, generations: Generations) -> bool:
    """Whether what is current reaches up to the last change, and no campaign is under way."""
    try:
        current = generations.current()
    except OperatorError:  # CampaignContext.base says what is wrong with it
        return False
    if current is None or generations.building.exists() or generations.unswitched():
        return False
    return current.meta.watermark == newest(paths, corpus)


def newest(paths: Paths, corpus: Corpus) -> Watermark:
    """Up to where documents and vectors reach now."""
    with closing(database.connect(paths.database(corpus.database), read_only=True)) as source:
        documents = changes.newest(source, corpus.table)
    path, vectors = paths.database(f"{corpus.name}-vectors"), 0
    if path.exists():
        with VectorStore.open(path, read_only=True) as store:
            vectors = store.revision
    return Watermark(documents=documents, vectors=vectors)


def begin(generations: Generations, asked: CampaignRequest, warn: Callable[[str], None]) -> CampaignRequest:
    """The campaign that is under way, or else the one asked for, begun now.

    Raises OperatorError when one of another kind is under way; to publish takes up any.
    """
    generations.sweep()
    under_way = read_request(generations.building)
    if under_way and (why := _outdated(under_way, asked)):
        warn(f"the campaign to {_VERBS[under_way.kind]} {generations.corpus} starts over: {why}")
        under_way = None
    if under_way is None:
        generations.remove(generations.building)  # killed before its first file was whole, perhaps
        write_request(generations.building, asked)
        return asked
    if under_way.kind != asked.kind and asked.kind != "publish":
        raise OperatorError(
            f"a campaign to {_VERBS[under_way.kind]} {generations.corpus} is under way;"
            f" finish it first: tickwork publish {generations.corpus}"
        )
    return under_way


def _outdated(under_way: CampaignRequest, asked: CampaignRequest) -> str:
    """Why a campaign must not go on, or an empty string."""
    if under_way.base != asked.base:  # rolled back meanwhile: nothing is to be had from what was taken back
        return f"it started from generation {under_way.base or 'none'}, but {asked.base or 'none'} is current"
    return "--full" if asked.full and not under_way.full and under_way.kind == asked.kind else ""


def run(context: CampaignContext, keep: int) -> Iterator[Unit]:
    """Go through the stages that are not done yet; exhaustion means that the generation is current."""
    try:
        yield from run_stages(_stages(context))
    except Impossible:
        context.generations.remove(context.folder)
        raise
    yield from _switch(context, keep)


def finish_switch(generations: Generations, warn: Callable[[str], None]) -> Iterator[Unit]:
    """Make a generation current that was whole when its campaign was killed."""
    for name in generations.unswitched():
        try:
            generations.verify(name)
        except OperatorError as error:
            warn(f"removed a generation that was about to become current: {error}")
            generations.remove(generations.folder / name)
            continue
        _make_current(generations, name)
        yield Unit(items=0, note=f"{name} is current")


def _make_current(generations: Generations, name: str) -> None:
    """Switch to a generation, unless another one was made current since its campaign began."""
    campaign = read_request(generations.folder / name)
    current = generations.current_name()
    if campaign and current not in (campaign.base, name):
        generations.remove(generations.folder / name)
        raise Transient(f"{current} became current meanwhile: what was built from {campaign.base} is discarded")
    generations.switch(name)
    (generations.folder / name / CAMPAIGN).unlink()


def _stages(context: CampaignContext) -> list[Stage]:
    """The stages in their order; each is done when its file is there."""
    # Here and not above: a tick with nothing to do must not wait for numpy and torch.
    from tickwork.publish.full_text import full_text
    from tickwork.publish.gather_vectors import gather_vectors
    from tickwork.publish.index import index
    from tickwork.publish.similar import similar
    from tickwork.publish.snapshot import snapshot
    from tickwork.publish.verify import verify

    def stage(name: str, file: str, work: Callable[[CampaignContext], Iterator[Unit]]) -> Stage:
        return Stage(name, (context.folder / file).exists, lambda: work(context))

    if (context.folder / META).exists():  # killed while it tidied up
        return []
    items = f"{context.corpus.name}.db"
    last = stage("verify", META, verify)
    of_index, of_similar = stage("index", INDEX, index), stage("similar", SIMILAR, similar)
    match context.request.kind:
        case "publish":
            first = [stage("snapshot", SNAPSHOT, snapshot), stage("full text", items, full_text)]
            return [*first, stage("vectors", VECTORS, gather_vectors), of_index, of_similar, last]
        case "index":
            return [stage("share", items, _share_with_base), of_index, last]
        case "similar":
            return [stage("share", items, _share_with_base), of_similar, last]


def _share_with_base(context: CampaignContext) -> Iterator[Unit]:
    """Take all files of the base but the one to be made: the same files, under a second name."""
    if not context.request.base:
        raise Impossible(f"nothing of {context.corpus.name} is published yet; tickwork publish {context.corpus.name}")
    shared = (*_KEPT_OF_BASE[context.request.kind], f"{context.corpus.name}.db")  # the items last: by them it is done
    try:
        base = context.generations.verify(context.request.base, shared)
    except OperatorError as error:
        raise Impossible(f"{error}; rebuild it: tickwork publish {context.corpus.name} --full") from error
    for name in shared:
        target = context.folder / name
        target.unlink(missing_ok=True)
        os.link(base.folder / name, target)
    yield Unit(items=0, note="sharing")


def _switch(context: CampaignContext, keep: int) -> Iterator[Unit]:
    """Give what was built its name and make it current; one unit."""
    meta = msgspec.json.decode((context.folder / META).read_bytes())
    name = context.generations.fresh_name(context.folder / META)
    for path in context.folder.iterdir():
        if path.name not in {*meta["sha256"], META, CAMPAIGN}:
            path.unlink()
    generations = context.generations
    context.folder.rename(generations.folder / name)
    files.sync(generations.folder)
    _make_current(generations, name)
    generations.prune(keep, context.request.base)
    yield Unit(items=meta["total"], note=f"{name} is current")
