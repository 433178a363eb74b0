"""Index, similar items and publishing beside their peers, on vectors like those of real texts.

    pip install -c constraints.txt -e '.[cpu,bench]'
    python -m bench.index [VECTORS] [--threads T] [--rounds R] [--vectors FILE.npy] [--only PART...] [--keep]

PART is one of
index     the published index, made by its own stage, beside hnswlib (M 16, ef 64), usearch (bfloat16, ef 64) and a flat
          index: building on T threads (ours with all its writing, the others in memory only), then searching for one
          vector after the other on one thread, vectors that are not in the index;
similar   the 20 nearest of every item, by their own stage (ours keeps 30, orders them, writes them to SQLite), beside
          FAISS's exact search, which gets a sample of the rows from 20,000 on; then 2 % of the vectors being new;
publish   `tickwork publish` as a process after 1 % of the items changed (half of that changed, a quarter new, a quarter
          deleted), beside `tickwork publish --full` of the same.

Vectors are drawn from a mixture: topics within topics, in directions of falling weight as sentence vectors have them,
1 % exact duplicates, 5 % in groups of near duplicates, as templated texts are. With --vectors they are those of the
file, and beyond their number those with noise. All is done in a temporary folder; --keep leaves it there.

Aims: the exact lists 1.5 times as fast as FAISS's; 2 % new vectors at most 12 % of finding all lists; 1 % changed items
at most 25 % of publishing all.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import faiss
import msgspec
import numpy as np

from bench.index_peers import NEAREST, SEED, Made, draw, exact_scores, make_flat, make_hnswlib, make_usearch
from bench.machine import at_least, at_most, calls_in_turn, describe
from bench.measure import ratio
from tests.kits import vectors as kit
from tickwork.contract import database
from tickwork.contract.paths import Paths
from tickwork.generation.generations import Generations
from tickwork.generation.meta import IDS, INDEX, SIMILAR, VECTORS, IndexMeta
from tickwork.publish import index as index_stage
from tickwork.publish import similar as similar_stage
from tickwork.publish.campaign_context import Campaign, CampaignContext
from tickwork.vectors.device import free_cores, open_device
from tickwork.vectors.exact_search import ExactSearch

PARTS = ("index", "similar", "publish")
QUERIES, FLAT_QUERIES = 1000, 100
TOP_K, CHECKED = 20, 500
ALL_ROWS_BELOW, SAMPLE = 20_000, 8192
"""FAISS multiplies 4096 rows at once: the sample is two such blocks."""
NEW, CHANGED = 0.02, 0.01
EXACT_SPEED, NEW_SHARE, CHANGED_SHARE = 1.5, 0.12, 0.25


def main() -> None:
    """Measure the parts one after the other, each in rounds, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", metavar="VECTORS", type=int, nargs="?", default=100_000)
    parser.add_argument("--threads", type=int, default=0, help="0, the default, takes the free cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy", help="real vectors, (n, dim)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    given = parser.parse_args()
    threads = given.threads or free_cores()
    describe(threads, ("faiss-cpu", "hnswlib", "usearch", "torch", "numpy"))
    rng = np.random.default_rng(SEED)
    changing = math.ceil(given.count * CHANGED) * given.rounds
    there = np.load(given.vectors) if given.vectors else None
    vectors = draw(rng, given.count + QUERIES + changing, there)
    stored, queries, others = np.split(vectors, [given.count, given.count + QUERIES])
    kind = f"like those of {given.vectors}" if given.vectors else "of a mixture"
    print(f"{given.count} vectors of {vectors.shape[1]} numbers in float16, {kind}; {given.rounds} rounds")
    folder = Path(tempfile.mkdtemp(prefix="tickwork-bench-"))
    try:
        bench = Bench(folder, stored, threads, given.rounds)
        if "index" in given.only:
            bench.index(queries)
        if "similar" in given.only or "publish" in given.only:
            bench.begin_state()
        if "similar" in given.only:
            bench.similar(rng)
        if "publish" in given.only:
            bench.publish(rng, iter(others))
    finally:
        if given.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


# The parts.


class Bench:
    """The vectors, and the folder all is done in. Rows of `stored` are the items 1 to n."""

    def __init__(self, folder: Path, stored: np.ndarray, threads: int, rounds: int) -> None:
        self.folder = folder
        self.stored = stored
        self.threads = threads
        self.rounds = rounds
        self.state = folder / "state"
        self.base_count = len(stored) - math.ceil(len(stored) * NEW)

    def build(self, state: Path, campaign: Campaign, rows: np.ndarray) -> CampaignContext:
        """A campaign's workplace as it is when the stage `matrix` is done."""
        paths = Paths.under(state)
        generations = Generations(paths, "doab")
        shutil.rmtree(generations.building, ignore_errors=True)
        generations.building.mkdir(parents=True)
        np.save(generations.building / IDS, np.arange(1, len(rows) + 1))
        np.save(generations.building / VECTORS, rows)
        return CampaignContext(
            corpus=kit.DOAB,
            paths=paths,
            generations=generations,
            campaign=campaign,
            open_device=lambda: open_device("cpu", self.threads),
            warn=lambda text: print(f"WARNING: {text}"),
        )

    # Index.

    def index(self, queries: np.ndarray) -> None:
        """CampaignContext and search each index in turn."""
        print(f"\nindex: recall at {NEAREST} and searches with {len(queries)} other vectors")
        folder = self.folder / "indexes"
        folder.mkdir()
        makers = {"hnswlib M16 ef64": make_hnswlib, "usearch bf16 ef64": make_usearch, "faiss Flat": make_flat}
        nlist = round(4 * math.sqrt(len(self.stored)))
        ours = f"tickwork IVF{nlist},SQfp16"
        made: dict[str, Made] = {}

        def make(name: str) -> None:
            made.pop(name, None)
            if name == ours:
                made[name] = self._make_ours(nlist)
            else:
                made[name] = makers[name](self.stored, folder, self.threads)

        names = [ours, *makers]
        built = calls_in_turn({name: lambda name=name: make(name) for name in names}, self.rounds)
        faiss.omp_set_num_threads(1)
        wide = queries.astype(np.float32)
        asked = {name: wide[:FLAT_QUERIES] if name == "faiss Flat" else wide for name in names}
        found = {name: np.array([made[name].search(query) for query in asked[name]]) for name in names}
        searched = calls_in_turn(
            {name: lambda name=name: [made[name].search(query) for query in asked[name]] for name in names}, self.rounds
        )
        hits = self._hits(queries, found)
        for name in names:
            seconds, rate = statistics.median(built[name]), len(asked[name]) / statistics.median(searched[name])
            speed = rate * statistics.median(searched["hnswlib M16 ef64"]) / len(queries)
            print(
                f"  {name:26} {seconds:7.1f} s built  {made[name].size() / 1e6:7.1f} MB  recall {hits[name]:.4f}"
                f"  {rate:8.0f} searches/s  {seconds / statistics.median(built['hnswlib M16 ef64']):.2f} x the building"
                f" time and {speed:.2f} x the searches of hnswlib"
            )
        faiss.omp_set_num_threads(self.threads)

    def _make_ours(self, nlist: int) -> Made:
        build = self.build(self.folder / "index-state", Campaign(full=True, nlist=nlist), self.stored)
        for _ in index_stage.index(build):
            pass
        meta = msgspec.json.decode((build.folder / index_stage.DESCRIPTION).read_bytes(), type=IndexMeta)
        mapped = index_stage.read_index(build.folder, meta)
        return Made(
            lambda query: mapped.search(query[None], NEAREST)[1][0] - 1,
            lambda: (build.folder / INDEX).stat().st_size,
        )

    def _hits(self, queries: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, float]:
        """The share of the nearest that each index found; of vectors that are equally near, any will do."""
        hits: dict[str, list[float]] = {name: [] for name in found}
        for place, scores in enumerate(exact_scores(self.stored, queries)):
            least = np.partition(scores, -NEAREST)[-NEAREST]
            for name, rows in found.items():
                if place < len(rows):
                    there = np.unique(rows[place][rows[place] >= 0])
                    hits[name].append((scores[there] >= least).sum() / NEAREST)
        return {name: float(np.mean(shares)) for name, shares in hits.items()}

    # The deployment that is published.

    def begin_state(self) -> None:
        """Publish a deployment with all but the newest 2 % of the items."""
        kit.make_state(self.state, self.base_count)
        kit.store_vectors(self.state, {n: self.stored[n - 1] for n in range(1, self.base_count + 1)})
        wall, cpu, memory = self._tickwork("publish", "doab", "--full")
        # As they are stored: scaled to unit length once more.
        current = Generations(Paths.under(self.state), "doab").current_name()
        self.stored[: self.base_count] = np.load(self.state / "generations/doab" / current / VECTORS)
        print(
            f"\nfirst publishing of {self.base_count} items: {wall:.1f} s, {cpu:.1f} s CPU,"
            f" {memory / 1e6:.0f} MB of memory at most"
        )

    def _tickwork(self, *arguments: str) -> tuple[float, float, int]:
        bounds = ("--seconds", "86400", "--threads", str(self.threads))
        return self._process("-m", "tickwork", "--state", str(self.state), *arguments, *bounds)

    def _process(self, *arguments: str) -> tuple[float, float, int]:
        """Wall seconds, CPU seconds and most bytes of memory of one run of Python, which must end with 0."""
        log = self.folder / "log"
        begun = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output)
            _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{log.read_text()}")
        return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024

    # Similar items.

    def similar(self, rng: np.random.Generator) -> None:
        """All lists, and those after new items, in turn with FAISS's exact search."""
        count = len(self.stored)
        sampled = count > ALL_ROWS_BELOW
        rows = np.sort(rng.permutation(count)[:SAMPLE]) if sampled else np.arange(count)
        wide = self.stored.astype(np.float32)
        flat = faiss.IndexFlatIP(wide.shape[1])
        flat.add(wide)
        base = Generations(Paths.under(self.state), "doab").current_name()
        exact = ExactSearch(self.stored, open_device("cpu", self.threads))
        faiss.omp_set_num_threads(self.threads)
        results: dict[str, CampaignContext] = {}

        def stage(name: str, campaign: Campaign) -> None:
            results[name] = self.build(self.state, campaign, self.stored)
            begun = time.perf_counter()
            for _ in similar_stage.similar(results[name]):
                pass
            stages[name].append(time.perf_counter() - begun)
            if name == "all":
                shutil.copy(results[name].folder / SIMILAR, self.folder / SIMILAR)

        stages: dict[str, list[float]] = {"all": [], "new": []}
        # Each of FAISS's samples lies between two of ours.
        taken = calls_in_turn(
            {
                "faiss": lambda: flat.search(wide[rows], TOP_K + 1),
                "stage, all": lambda: stage("all", Campaign(base=base, full=True, top_k=TOP_K)),
                "exact": lambda: exact.nearest(rows, TOP_K),
                "faiss again": lambda: flat.search(wide[rows], TOP_K + 1),
                "stage, new": lambda: stage("new", Campaign(base=base, top_k=TOP_K)),
            },
            self.rounds,
        )
        pairs = zip(taken["faiss"], taken["faiss again"], strict=True)
        theirs = [statistics.mean(pair) * count / len(rows) for pair in pairs]
        part = [seconds * len(rows) / count for seconds in theirs]
        note = f"extrapolated from {len(rows)} of {count} rows" if sampled else "all rows"
        flop = 2.0 * count * count * wide.shape[1]
        print(f"\nsimilar: the {TOP_K} nearest of each of {count}, exactly")
        print(f"  {'faiss IndexFlatIP.search':34} {_seconds(theirs)}  {_rate(flop, theirs)}  {note}")
        print(
            f"  {'tickwork ExactSearch.nearest, same rows':34} {_seconds(taken['exact'])}"
            f"  {_rate(flop * len(rows) / count, taken['exact'])}  {ratio(part, taken['exact']):.2f} x faiss"
        )
        print(
            f"  {'tickwork stage similar, all':34} {_seconds(stages['all'])}  {_rate(flop, stages['all'])}"
            f"  {at_least(ratio(theirs, stages['all']), EXACT_SPEED)} x faiss"
        )
        self._check(rng, self.folder / SIMILAR)
        print(
            f"  {f'{count - self.base_count} of them new':34} {_seconds(stages['new'])}"
            f"  {at_most(ratio(stages['new'], stages['all']), NEW_SHARE)} of all lists;"
            f" the same lists: {'yes' if self._same(self.folder / SIMILAR, results['new']) else 'NO'}"
        )
        shutil.rmtree(results["new"].folder)

    def _check(self, rng: np.random.Generator, path: Path) -> None:
        """Print how the lists of sampled items compare with brute force in float64."""
        rows = np.sort(rng.permutation(len(self.stored))[:CHECKED])
        recall, equal = [], 0
        with closing(database.connect(path, read_only=True)) as lists:
            query = "SELECT similar FROM similar WHERE source = ? ORDER BY rank"
            for row, scores in zip(rows.tolist(), exact_scores(self.stored, self.stored[rows]), strict=True):
                scores[row] = -np.inf
                near = np.flatnonzero(scores >= np.partition(scores, -TOP_K)[-TOP_K])
                truth = (near[np.lexsort((near, -scores[near]))][:TOP_K] + 1).tolist()
                ours = [found[0] for found in lists.execute(query, (row + 1,))]
                recall.append(len(set(ours) & set(truth)) / len(truth))
                equal += ours == truth
        print(
            f"  {'':34} recall at {TOP_K} against brute force in float64 {np.mean(recall):.6f},"
            f" {equal} of {len(rows)} lists equal to the last rank"
        )

    def _same(self, path: Path, increment: CampaignContext) -> bool:
        """Whether the increment published the same lists."""
        with closing(database.connect(path, read_only=True)) as lists:
            lists.execute("ATTACH ? AS other", (str(increment.folder / SIMILAR),))
            query = "SELECT * FROM {} EXCEPT SELECT * FROM {}"
            sides = [("main.similar", "other.similar"), ("other.similar", "main.similar")]
            return not any(lists.execute(query.format(*side)).fetchone() for side in sides)

    # Publishing.

    def publish(self, rng: np.random.Generator, others: Iterator[np.ndarray]) -> None:
        """Publish after changes, and all of it, in turn."""
        print(f"\npublish: {self.base_count} items, {CHANGED:.0%} of them changed in each round")
        live, newest = list(range(1, self.base_count + 1)), self.base_count
        quarter = max(1, round(self.base_count * CHANGED / 4))
        taken: dict[str, list[tuple[float, float, int]]] = {"changed": [], "full": [], "start": []}
        for _ in range(self.rounds):
            rng.shuffle(live)
            gone, changed, live = live[:quarter], live[quarter : 3 * quarter], live[quarter:]
            new = list(range(newest + 1, newest + quarter + 1))
            newest += quarter
            live += new
            kit.delete(self.state, *gone)
            kit.forget_vectors(self.state, *gone)
            for number in changed:
                edition = kit.book(number, seed=newest)["description"] + f" Edition {newest}."
                kit.change(self.state, number, description=edition)
            for number in new:
                kit.change(self.state, number, year=2026)
            kit.store_vectors(self.state, {number: next(others) for number in (*changed, *new)})
            taken["changed"].append(self._tickwork("publish", "doab"))
            taken["full"].append(self._tickwork("publish", "doab", "--full"))
            taken["start"].append(self._process("-c", "import faiss, numpy, torch"))
        for place, unit in enumerate(("", " CPU")):
            figures = {name: [run[place] for run in runs] for name, runs in taken.items()}
            changed, full = figures["changed"], figures["full"]
            share = at_most(ratio(changed, full), CHANGED_SHARE)
            print(f"  after the change {_seconds(changed)}{unit}, all {_seconds(full)}{unit}: {share}")
            print(f"  in each of them, importing alone {_seconds(figures['start'])}{unit}")
        memory = {name: max(run[2] for run in runs) / 1e6 for name, runs in taken.items()}
        print(f"  memory at most {memory['changed']:.0f} MB after the change, {memory['full']:.0f} MB for all")


def _seconds(figures: list[float]) -> str:
    return f"{statistics.median(figures):7.2f} s ({min(figures):.2f} to {max(figures):.2f})"


def _rate(flop: float, seconds: list[float]) -> str:
    return f"{flop / statistics.median(seconds) / 1e9:4.0f} GFLOP/s"


if __name__ == "__main__":
    main()
