"""The embedding pass: documents whose text has no vector of the current model get one; deleted ones lose theirs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tickwork.contract.runner import Pass
from tickwork.contract.units import Unit
from tickwork.corpus.corpus import Corpus
from tickwork.corpus.document import embedded, text_hash
from tickwork.generation.model_info import ModelInfo
from tickwork.store import changes
from tickwork.vectors.store import Row, VectorStore

if TYPE_CHECKING:
    from tickwork.vectors.model import Model

WINDOW = 2048
"""Changes looked at in one go: enough to sort their texts by length, few enough to hold in memory."""

NO_TEXT = "it has no text"
NO_VECTOR = "the model gives no vector for it"


def nothing_to_do(corpus: Corpus, source: sqlite3.Connection, store: VectorStore, settings: str) -> bool:
    """Whether every change is dealt with under the same `settings`; costs two small queries and loads nothing."""
    return store.fact("settings") == settings and _watermark(store) == changes.newest(source, corpus.table)


def begin(corpus: Corpus, source: sqlite3.Connection, store: VectorStore, info: ModelInfo, settings: str) -> None:
    """Note under which model a pass runs; with another one than before, the feed is followed from its beginning.

    So it is when the documents were restored from a copy. `settings` stands for all that decide on the model.
    """
    with store.transaction():
        seqs, stored = changes.seqs(source, corpus.table), store.seqs()
        if any(seqs.get(identifier, -1) < seq for identifier, seq in stored):
            store.drop([identifier for identifier, _ in stored if identifier not in seqs])
            store.remember("watermark", "0")
        if store.fact("fingerprint") != info.fingerprint:
            store.remember("watermark", "0")
        store.remember("fingerprint", info.fingerprint)
        store.remember("settings", settings)


def embed(
    corpus: Corpus,
    source: sqlite3.Connection,
    store: VectorStore,
    info: ModelInfo,
    load: Callable[[], Model],
    batch_tokens: int,
    one_pass: Pass,
) -> Iterator[Unit]:
    """Follow the corpus's feed of changes; one unit is one batch of texts, committed.

    `load` is called once there is a text to embed. Call `begin` before.
    """
    with store.transaction():
        number = store.model(info)
    model: Model | None = None
    while window := changes.after(source, corpus.table, _watermark(store), WINDOW):
        one_pass.backlog = _left(corpus, source, store)
        found = _look(corpus, source, store, window, number)
        if found.valid or found.gone or found.empty:
            with store.transaction():
                store.still_valid(found.valid)
                store.drop(found.gone)
                store.put(found.empty)
            yield Unit(items=0, note=f"{len(found.gone)} deleted, {len(found.valid)} with the same text")
        while todo := found.todo[: one_pass.budget.remaining]:
            del found.todo[: len(todo)]
            model = model or load()
            yield from _compute(store, model, todo, batch_tokens, number, one_pass)
        with store.transaction():
            store.remember("watermark", str(window[-1][0]))
        yield Unit(items=0, note="changes followed")
    one_pass.backlog = 0


@dataclass(frozen=True, slots=True)
class _Todo:
    id: int
    seq: int
    text: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class _Found:
    """What a window of changes comes to."""

    todo: list[_Todo] = field(default_factory=list)
    valid: list[tuple[int, int]] = field(default_factory=list)
    """(seq, id) of documents that changed elsewhere than in their text."""
    gone: list[int] = field(default_factory=list)
    empty: list[Row] = field(default_factory=list)


def _look(
    corpus: Corpus, source: sqlite3.Connection, store: VectorStore, window: list[tuple[int, int]], number: int
) -> _Found:
    seqs = {identifier: seq for seq, identifier in window}
    known = store.known(list(seqs))
    found = _Found()
    live = set()
    for document in corpus.rows(source, list(seqs)):
        live.add(document.id)
        text, seq, before = embedded(document), seqs[document.id], known.get(document.id)
        digest = text_hash(text)
        if before and before.model == number and before.hash == digest:
            if before.seq != seq:
                found.valid.append((seq, document.id))
        elif text:
            found.todo.append(_Todo(document.id, seq, text, digest))
        else:
            found.empty.append((document.id, seq, number, digest, "", None, NO_TEXT))
    found.gone.extend(identifier for identifier in known if identifier not in live)
    return found


def _compute(
    store: VectorStore, model: Model, todo: list[_Todo], batch_tokens: int, number: int, one_pass: Pass
) -> Iterator[Unit]:
    dtype = str(model.device.dtype).removeprefix("torch.")
    started, done = time.monotonic(), 0
    failed = dict(enumerate(todo))
    for batch in model.encode([item.text for item in todo], batch_tokens):
        items = [failed.pop(place) for place in batch.places]
        with store.transaction():
            store.put(
                [
                    (item.id, item.seq, number, item.hash, dtype, vector.tobytes(), "")
                    for item, vector in zip(items, batch.vectors, strict=True)
                ]
            )
        done += len(items)
        if one_pass.backlog is not None:
            one_pass.backlog -= len(items)
        yield Unit(items=len(items), note=f"{done / (time.monotonic() - started):.0f} texts/s")
    if failed:
        # Recorded, so that one bad text neither stops the pass nor is tried at every tick.
        with store.transaction():
            store.put([(item.id, item.seq, number, item.hash, dtype, None, NO_VECTOR) for item in failed.values()])
        first = min(item.id for item in failed.values())
        one_pass.warn(f"texts that could not be embedded: {len(failed)}, the first is that of document {first}")
        yield Unit(items=0, note=f"{len(failed)} failed")


def _watermark(store: VectorStore) -> int:
    return int(store.fact("watermark") or 0)


def _left(corpus: Corpus, source: sqlite3.Connection, store: VectorStore) -> int:
    """Changes still to look at, most of which have a text to embed."""
    feed = changes.feed_of(corpus.table)
    row = source.execute(f"SELECT count(*) FROM {feed} WHERE seq > ?", (_watermark(store),)).fetchone()  # noqa: S608
    return int(row[0])
