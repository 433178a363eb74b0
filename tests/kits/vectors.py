"""What the tests of vectors, publishing and search share: a corpus of a few books, vectors by hand, models."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from tickwork.contract import database
from tickwork.contract.paths import Paths
from tickwork.corpus.corpus import Corpus
from tickwork.corpus.document import embedded, text_hash
from tickwork.generation.model_info import ModelInfo
from tickwork.sources.doab.corpus import CORPUS
from tickwork.sources.doab.store import DoabStore
from tickwork.store import changes
from tickwork.store.migrations import migrate
from tickwork.vectors.model import Batch
from tickwork.vectors.settings import VectorSettings
from tickwork.vectors.store import VectorStore

DOAB: Corpus = CORPUS
DIM = 32
"""Numbers of a vector of the tiny model."""

TOPICS = (
    *("archaeology", "migration", "kinship", "climate", "manuscripts", "archives", "soil", "taxation", "ballads"),
    *("irrigation", "whaling", "epidemics", "cartography", "theatre", "monasteries", "railways", "beekeeping"),
)
PLACES = ("Brazil", "Krakow", "Quebec", "Zurich", "Timor", "Lapland", "Senegal", "Sicily", "Ulster", "Anatolia")
SAYS = (
    "This volume brings together essays on {topic} by scholars working in {place}.",
    "It argues that {other} cannot be understood without the archives of {place}.",
    "The author follows {topic} and {other} through two centuries of letters.",
    "A closing chapter compares {place} with its neighbours and asks what is left to do.",
)
PUBLISHERS = ("Ledizioni", "De Gruyter", "Open Humanities Press", "Ausonius")
LANGUAGES = ("eng", "ger", "fre", "spa")

# Documents: `doab.db` of a deployment, without a server to harvest.


def make_state(state: Path, n: int, seed: int = 1) -> Path:
    """A deployment's folder whose doab.db has the books 1 to `n`; gives the folder."""
    with documents(state) as db:
        for number in range(1, n + 1):
            _insert(db, number, book(number, seed))
    return state


def book(number: int, seed: int = 1) -> dict[str, Any]:
    """The columns of a made-up book: the same for the same number and seed, and no two titles the same."""
    rng = random.Random(f"{seed} {number}")
    words = {"topic": rng.choice(TOPICS), "other": rng.choice(TOPICS), "place": rng.choice(PLACES)}
    return {
        "title": "A history of {topic} in {place}, volume {number}".format(number=number, **words),
        "description": " ".join(text.format(**words) for text in rng.sample(SAYS, rng.randint(1, len(SAYS)))),
        "creators": [f"Author{number}, Ana"],
        "subjects": [words["topic"], words["other"]],
        "publisher": rng.choice(PUBLISHERS),
        "year": rng.randint(1998, 2026),
        "language": rng.choice(LANGUAGES),
        "type": "book",
        "licence": "https://creativecommons.org/licenses/by/4.0/",
        "isbns": [f"978{number:010d}"],
        "doi": f"10.5555/{number}",
    }


def change(state: Path, number: int, **columns: Any) -> None:
    """Change columns of a book, as a harvest would; a book there is not yet is added."""
    change_all(state, {number: columns})


def change_all(state: Path, books: Mapping[int, Mapping[str, Any]]) -> None:
    """Change columns of books, in one transaction and in the order given."""
    with documents(state) as db:
        for number, columns in books.items():
            if not db.execute("SELECT 1 FROM records WHERE id = ?", (number,)).fetchone():
                _insert(db, number, book(number) | columns)
                continue
            names = ", ".join(f"{name} = ?" for name in columns)
            db.execute(f"UPDATE records SET {names} WHERE id = ?", (*map(_value, columns.values()), number))


def delete(state: Path, *numbers: int) -> None:
    """Make tombstones of books, as a harvest does of records deleted upstream."""
    for number in numbers:
        change(state, number, deleted=1, title="", description="", creators=[], subjects=[], publisher="", year=None)


@contextmanager
def documents(state: Path) -> Iterator[sqlite3.Connection]:
    """The open doab.db of a deployment; what was changed is committed."""
    connection = database.connect(Paths.under(state).database("doab"))
    try:
        migrate(connection, "tickwork.sources.doab.schema", DoabStore.version)
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()


def _insert(db: sqlite3.Connection, number: int, columns: Mapping[str, Any]) -> None:
    handle = f"20.500.12854/{number}"
    row = {
        "id": number,
        "identifier": f"oai:directory.doabooks.org:{handle}",
        "handle": handle,
        "datestamp": "2026-01-01T00:00:00Z",
        "first_seen": "2026-01-02T00:00:00Z",
        "last_changed": "2026-01-02T00:00:00Z",
        **columns,
    }
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO records ({', '.join(row)}) VALUES ({marks})", [_value(value) for value in row.values()])


def _value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


# Vectors: by hand, without a model.


def stored(state: Path) -> dict[int, npt.NDArray[np.float16] | None]:
    """The stored vector of each document, None where there is a fault instead."""
    path = Paths.under(state).database("doab-vectors")
    if not path.exists():
        return {}
    with VectorStore.open(path, read_only=True) as store:
        rows = store.connection.execute("SELECT id, vector FROM vectors ORDER BY id").fetchall()
    return {row[0]: None if row[1] is None else np.frombuffer(row[1], np.float16) for row in rows}


def store_vectors(
    state: Path, vectors: Mapping[int, Sequence[float] | npt.NDArray[Any]], fingerprint: str = "by hand"
) -> None:
    """Store vectors (made to be of unit length) for books there are, as an embedding pass would."""
    paths = Paths.under(state)
    unit = {number: _unit(vector) for number, vector in vectors.items()}
    dim = len(next(iter(unit.values()))) if unit else DIM
    with documents(state) as db, VectorStore.open(paths.database("doab-vectors")) as store:
        seqs = {row["id"]: row["seq"] for row in db.execute("SELECT id, seq FROM records_changes")}
        hashes = {one.id: text_hash(embedded(one)) for one in DOAB.rows(db, sorted(unit))}
        with store.transaction():
            model = store.model(by_hand(fingerprint, dim))
            store.put([(n, seqs[n], model, hashes[n], "float32", unit[n].tobytes(), "") for n in unit])
            store.remember("watermark", str(changes.newest(db, "records")))
            store.remember("fingerprint", fingerprint)


def forget_vectors(state: Path, *numbers: int) -> None:
    """Drop vectors, as an embedding pass does of deleted books."""
    with VectorStore.open(Paths.under(state).database("doab-vectors")) as store, store.transaction():
        store.drop(list(numbers))


def by_hand(fingerprint: str = "by hand", dim: int = DIM) -> ModelInfo:
    """The description of a model that is nowhere."""
    return ModelInfo(
        name="/nowhere", revision="", fingerprint=fingerprint, dim=dim, max_tokens=256, prefix="", query_prefix=""
    )


def random_vectors(numbers: Sequence[int], dim: int = DIM, seed: int = 1) -> dict[int, npt.NDArray[np.float16]]:
    """A random unit vector for each of `numbers`, the same for the same seed."""
    drawn = np.random.default_rng(seed).standard_normal((len(numbers), dim))
    return {number: _unit(row) for number, row in zip(numbers, drawn, strict=True)}


def _unit(vector: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    long = np.asarray(vector, np.float64)
    return (long / np.linalg.norm(long)).astype(np.float16)


# A model that computes nothing.


class FakeModel:
    """A model that keeps the texts it is given; a vector of its says which text it is of, and by which model."""

    def __init__(self) -> None:
        self.name = "first"
        self.texts: list[str] = []
        self.cannot: tuple[str, ...] = ()
        self.loaded = 0
        self.device = SimpleNamespace(dtype="torch.float32")

    def inspect(self, settings: VectorSettings, template: str) -> object:
        return by_hand(f"{self.name} {settings.max_tokens} {template}")

    def load(self, *_: object) -> FakeModel:
        self.loaded += 1
        return self

    def encode(self, texts: Sequence[str], batch_tokens: int) -> Iterator[Batch]:
        able = [place for place, text in enumerate(texts) if not any(word in text for word in self.cannot)]
        for start in range(0, len(able), batch_tokens):
            places = able[start : start + batch_tokens]
            self.texts += [texts[place] for place in places]
            yield Batch(places, np.array([self.vector(texts[place]) for place in places], np.float16))

    def vector(self, text: str) -> list[float]:
        digest = hashlib.sha256(f"{self.name}: {text}".encode()).digest()
        return [byte / 256 for byte in digest]


def right(state: Path, model: FakeModel) -> bool:
    """Whether every live document has the vector of its present text, and no other document has one."""
    with documents(state) as db:
        truth = {one.id: np.array(model.vector(embedded(one)), np.float16) for one in DOAB.after(db, 0, 10_000)}
    found = {number: vector for number, vector in stored(state).items() if vector is not None}
    return found.keys() == truth.keys() and all((found[number] == truth[number]).all() for number in truth)


# A model: small enough to be made for each test.


def tiny_model(folder: Path, seed: int = 1, *, pooling: str = "mean") -> Path:
    """A random BERT of two layers and 32 numbers in `folder`, in the paths of sentence-transformers; gives `folder`.

    It knows our words and otherwise letters; texts with words in common are near each other, and that is all it can.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    pieces = _vocabulary()
    tokenizer = Tokenizer(WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", pieces.index("[SEP]")), ("[CLS]", pieces.index("[CLS]")))
    tokenizer.save(str(folder / "tokenizer.json"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BertModel(
            BertConfig(
                vocab_size=len(pieces),
                hidden_size=DIM,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=512,
                initializer_range=0.2,
            )
        )
    with redirect_stderr(StringIO()):  # a progress bar
        network.save_pretrained(folder)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": DIM, **modes}))
    return folder


def _vocabulary() -> list[str]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    said = " ".join((*TOPICS, *PLACES, *SAYS, "a history of volume")).lower()
    words = sorted(set("".join(c if c.isalpha() else " " for c in said).split()) - {"topic", "other", "place"})
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    return [*special, *dict.fromkeys([*letters, *(f"##{letter}" for letter in letters), *words])]


def config(model: Path | str, **vectors: Any) -> str:
    """The text of a settings file with that model, computed the same on every processor; more keys of `[vectors]`."""
    keys = {"model": str(model), "dtype": "float32", "threads": 1, **vectors}
    return "\n".join(["[vectors]", *(f"{name} = {json.dumps(value)}" for name, value in keys.items())]) + "\n"
