"""The stage that makes the FAISS index: anew in durable parts, or from the one before by taking out and adding.

Ids are given to the inverted file itself (`add_with_ids`): an IndexIDMap2 around one gives wrong ids after
`remove_ids`, without a word (faiss issue 4535). Only kinds of index for which taking out and adding again was seen to
be right are treated so; the others are made anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.units import Unit
from tickwork.generation.index import read_index
from tickwork.generation.matrix import Matrix, Vectors, difference
from tickwork.generation.meta import INDEX, IndexMeta
from tickwork.publish.campaign_context import CampaignContext, Impossible
from tickwork.vectors.exact_search import ExactSearch

DESCRIPTION = "index.json"
FLAT_BELOW = 20_000
"""Below so many vectors looking at all of them is as fast as an index, and exact."""
PART = 65_536
PROBES = 200
OWN_PROBES = 50
RECALL_AT = 10
MAX_LOST_RECALL = 0.005
"""An index that was changed and finds so much less than when it was trained is trained anew."""
TRAIN_A_LIST = 100
_MUTABLE = re.compile(r"IVF\d+,(Flat|SQfp16|SQ8)")
_SEED = 20_260_101


class _UntrainableError(Exception):
    """These vectors are not enough for the index that is wanted."""


def index(context: CampaignContext) -> Iterator[Unit]:
    """Make the index of the folder's matrix; units are the training and parts of 65,536 vectors."""
    faiss.omp_set_num_threads(context.device.threads)
    matrix = Matrix.load(context.folder)
    changed = _changed(context, matrix)
    if changed is not None:
        made, meta = changed
    else:
        factory = _factory(context, len(matrix.ids))
        try:
            made = yield from _anew(context, matrix, factory)
        except _UntrainableError as error:
            if context.request.kind == "index":
                raise Impossible(str(error)) from error
            # There are too few vectors yet, or only few are left: they are searched all the same.
            context.warn(f"{error}; building a flat index instead")
            factory = "Flat"
            made = _wrapped(factory, matrix)
        meta = _describe(context, matrix, made, factory, trained_on=len(matrix.ids))
        meta = msgspec.structs.replace(meta, recall_trained=meta.recall)
    if made.ntotal != len(matrix.ids):
        raise RuntimeError(f"the index has {made.ntotal} vectors, the matrix {len(matrix.ids)}")
    with files.whole(context.folder / DESCRIPTION) as path:
        path.write_bytes(msgspec.json.encode(meta))
    with files.whole(context.folder / INDEX) as path:
        _write(made, path)
    for part in _parts(context.folder):
        part.unlink()
    yield Unit(items=0, note=f"index {meta.factory}")


def _write(made: Any, path: Path) -> None:  # noqa: ANN401
    """Write an index. FAISS's own way does not tell when the disk is too full for the last few bytes."""
    refused: list[OSError] = []
    with path.open("wb") as file:

        def write(content: bytes) -> int:
            try:
                return file.write(content)
            except OSError as error:
                refused.append(error)
                return 0

        faiss.write_index(made, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]
    if refused:
        raise refused[0]


def _changed(context: CampaignContext, matrix: Matrix) -> tuple[Any, IndexMeta] | None:
    """The base's index with what changed since, or None where it has to be made anew."""
    base = context.base
    if base is None or not _still_fits(context, base.meta.index, len(matrix.ids), matrix.vectors.shape[1]):
        return None
    before = context.base_matrix
    if before is None or context.of_base(INDEX) is None:
        return None
    changes = difference(before, matrix)
    made = read_index(base.folder, base.meta.index, mapped=False)
    ivf = faiss.extract_index_ivf(made)
    if len(changes.removed):
        ivf.remove_ids(faiss.IDSelectorBatch(changes.removed))
    if len(changes.added):
        ivf.add_with_ids(matrix.vectors[changes.added].astype(np.float32), matrix.ids[changes.added])
    meta = _describe(context, matrix, made, base.meta.index.factory, trained_on=base.meta.index.trained_on)
    meta = msgspec.structs.replace(meta, recall_trained=base.meta.index.recall_trained)
    if meta.recall < meta.recall_trained - MAX_LOST_RECALL:
        context.warn(
            f"the index finds {meta.recall:.3f} of the nearest, {meta.recall_trained:.3f} when trained: rebuilding it"
        )
        return None
    if problem := unfound(made, matrix):
        # One byte a number cannot tell apart what lies outside the range that it was trained on.
        context.warn(f"{problem} after the changes: it is rebuilt")
        return None
    return made, meta


def unfound(made: Any, matrix: Matrix) -> str:  # noqa: ANN401
    """What is wrong where an index does not find more than a tenth of the vectors that it has; empty where it does."""
    if not len(matrix.ids):
        return ""
    places = np.unique(np.linspace(0, len(matrix.ids) - 1, OWN_PROBES).astype(np.int64))
    vectors = matrix.vectors[places].astype(np.float32)
    scores, found = made.search(vectors, 1)
    # Among equal vectors any may come first; a lossy index may be off by what it loses.
    own = (vectors * vectors).sum(axis=1)
    lost = int(((found[:, 0] != matrix.ids[places]) & (scores[:, 0] < own - 0.05)).sum())
    return f"the index does not find {lost} of {len(places)} vectors" if lost > len(places) // 10 else ""


def _still_fits(context: CampaignContext, before: IndexMeta, count: int, dim: int) -> bool:
    campaign = context.request
    return (
        not campaign.full
        and context.base is not None
        and context.base.meta.dim == dim
        and _MUTABLE.fullmatch(before.factory) is not None
        and (campaign.factory == before.factory if campaign.factory else count >= FLAT_BELOW)
        and campaign.nlist in (0, before.nlist)
        and before.trained_on / 2 <= count <= before.trained_on * 2
    )


def _factory(context: CampaignContext, count: int) -> str:
    if not count:  # nothing to train on
        return "Flat"
    if context.request.factory:
        return context.request.factory
    if count < FLAT_BELOW and not context.request.nlist:
        return "Flat"
    return f"IVF{min(context.request.nlist or round(4 * math.sqrt(count)), max(1, count))},SQfp16"


def _make(factory: str, dim: int) -> Any:  # noqa: ANN401
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise Impossible(f"{factory!r} is not an index that FAISS knows: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """What FAISS says without where in its code it says so."""
    return re.split(r"\.cpp:\d+: ", str(error))[-1].strip()


def _anew(context: CampaignContext, matrix: Matrix, factory: str) -> Generator[Unit, None, Any]:
    if factory.startswith("IVF") and "Refine" not in factory:  # a refining index takes no ids
        return (yield from _in_parts(context, matrix, factory))
    return _wrapped(factory, matrix)


def _train(made: Any, vectors: Vectors, factory: str) -> None:  # noqa: ANN401
    try:
        made.train(vectors.astype(np.float32))
    except RuntimeError as error:
        raise _UntrainableError(f"{factory!r} cannot be trained on {len(vectors)} vectors: {_reason(error)}") from error


def _wrapped(factory: str, matrix: Matrix) -> Any:  # noqa: ANN401
    made = faiss.IndexIDMap2(_make(factory, max(1, matrix.vectors.shape[1])))
    if len(matrix.ids):
        _train(made, matrix.vectors, factory)
        made.add_with_ids(matrix.vectors.astype(np.float32), matrix.ids)
    return made


def _in_parts(context: CampaignContext, matrix: Matrix, factory: str) -> Generator[Unit, None, Any]:
    """Train, then add part by part, each to a file of its own; the parts are joined at the end. Gives the index."""
    trained = context.folder / "index-trained.part"
    if not trained.exists():
        made = _make(factory, matrix.vectors.shape[1])
        ivf = faiss.extract_index_ivf(made)
        ivf.cp.seed = _SEED
        ivf.cp.min_points_per_centroid = 1  # below it FAISS only complains
        if context.device.is_gpu:
            _train_on_gpu(ivf)
        some = np.random.default_rng(_SEED).permutation(len(matrix.ids))[: TRAIN_A_LIST * ivf.nlist]
        _train(made, matrix.vectors[np.sort(some)], factory)
        with files.whole(trained) as path:
            _write(made, path)
        yield Unit(items=0, note="index trained")
    for number, start in enumerate(range(0, len(matrix.ids), PART)):
        part = context.folder / f"index-{number:05d}.part"
        if not part.exists():
            made = faiss.read_index(str(trained))
            places = slice(start, start + PART)
            made.add_with_ids(matrix.vectors[places].astype(np.float32), matrix.ids[places])
            with files.whole(part) as path:
                _write(made, path)
            yield Unit(items=int(made.ntotal), note="index")
    whole = faiss.read_index(str(trained))
    for part in _parts(context.folder):
        if part != trained:
            added = faiss.read_index(str(part))  # a name of its own: the view below does not keep it alive
            faiss.extract_index_ivf(whole).merge_from(faiss.extract_index_ivf(added), 0)
    whole.ntotal = faiss.extract_index_ivf(whole).ntotal
    return whole


def _train_on_gpu(ivf: Any) -> None:  # noqa: ANN401
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise OperatorError("--gpu: this FAISS cannot use a GPU: install tickwork[gpu], or use --cpu")
    ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(ivf.d))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("index-*.part"))


def _describe(context: CampaignContext, matrix: Matrix, made: Any, factory: str, trained_on: int) -> IndexMeta:  # noqa: ANN401
    ivf = faiss.extract_index_ivf(made) if factory.startswith("IVF") else None
    nprobe = min(context.request.nprobe, ivf.nlist) if ivf else 0
    if ivf:
        ivf.nprobe = nprobe
    recall, probes = _recall(context, matrix, made)
    return IndexMeta(
        index_type=type(faiss.downcast_index(ivf or made.index)).__name__,
        factory=factory,
        nlist=ivf.nlist if ivf else 0,
        nprobe=nprobe,
        metric="inner product",
        trained_on=trained_on,
        recall=recall,
        recall_trained=recall,
        probes=probes,
        acceleration="gpu" if context.device.is_gpu else "cpu",
    )


def _recall(context: CampaignContext, matrix: Matrix, made: Any) -> tuple[float, int]:  # noqa: ANN401
    """Share of the 10 nearest of evenly chosen vectors that the index finds, and of how many vectors.

    Of items that are equally near, as those with the same text are, any will do.
    """
    count = len(matrix.ids)
    if count <= RECALL_AT:
        return 1.0, 0
    places = np.unique(np.linspace(0, count - 1, min(PROBES, count)).astype(np.int64))
    _, nearest = ExactSearch(matrix.vectors, context.device).nearest(places, RECALL_AT)
    _, found = made.search(matrix.vectors[places].astype(np.float32), RECALL_AT + 1)
    hits = 0
    for place, scores, ids in zip(places, nearest, found, strict=True):
        others = np.searchsorted(matrix.ids, ids[(ids >= 0) & (ids != matrix.ids[place])])
        near = matrix.vectors[others].astype(np.float64) @ matrix.vectors[place].astype(np.float64)
        hits += min(RECALL_AT, int((near >= scores[-1]).sum()))
    return hits / (len(places) * RECALL_AT), len(places)
