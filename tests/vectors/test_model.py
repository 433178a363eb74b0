"""The model: where it is found, by what it is known again, and that its vectors depend on the text alone."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.kits.doab import real_data
from tests.kits.vectors import DIM, book, tiny_model
from tickwork.contract.outcomes import OperatorError
from tickwork.vectors import model
from tickwork.vectors.device import Device, open_device
from tickwork.vectors.settings import VectorSettings

TEMPLATE = "title and text"
Vectors = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def cpu() -> Device:
    return open_device("cpu", 1, "float32")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """A model of the test's own, to do harm to."""
    return Path(shutil.copytree(shared, tmp_path / "model"))


@pytest.fixture(scope="module")
def tiny(shared: Path, cpu: Device) -> model.Model:
    return model.load(VectorSettings(model=str(shared)), TEMPLATE, cpu)


def encoded(loaded: model.Model, texts: Sequence[str], batch_tokens: int = 2048) -> Vectors:
    """The vectors in the order of the texts; NaN where a text is in no batch."""
    found = np.full((len(texts), loaded.info.dim), np.nan)
    for batch in loaded.encode(texts, batch_tokens):
        assert np.isnan(found[batch.places]).all(), "a text is in two batches"
        found[batch.places] = batch.vectors
    return found


def cosines(left: Vectors, right: Vectors) -> Vectors:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine: Vectors = (left * right).sum(axis=1) / norms
    return cosine


def texts(count: int) -> list[str]:
    return [f"{book(n)['title']} {book(n)['description']}" if n % 3 else book(n)["title"] for n in range(count)]


# Where it is.


def test_a_model_is_found_in_a_folder_and_in_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.locate(VectorSettings(model=str(folder))) == folder
    monkeypatch.chdir(folder.parent)
    assert model.locate(VectorSettings(model="./model")).samefile(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert model.locate(VectorSettings(model="~/model")) == folder
    package = folder.parent / "our_model"
    package.mkdir()
    (package / "__init__.py").write_text(f"def get_model_path():\n    return {str(folder)!r}\n")
    monkeypatch.syspath_prepend(folder.parent)
    assert model.locate(VectorSettings(model="pkg:our_model")) == folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "pkg:there_is_none",
            "there is no package 'there_is_none' with a model; run: pip install tickwork.default-model",
        ),
        ("pkg:json", "there is no package 'json' with a model"),
        ("pkg:", "there is no package ''"),
        ("pkg:..model", "there is no package '..model'"),
        ("/no/such/folder", "the model /no/such/folder has no config.json, tokenizer.json, model.safetensors"),
        ("minilm", "model 'minilm' is neither pkg:MODULE, nor a folder, nor a hub's owner/name"),
        ("", "model '' is neither pkg:MODULE"),
        ("a/b/c", "model 'a/b/c' is neither pkg:MODULE"),
    ],
)
def test_a_model_that_is_nowhere_is_told_of_by_its_name(name: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        model.locate(VectorSettings(model=name))


@pytest.mark.parametrize("revision", ["", "main", "1110a24", "g" * 40, "1" * 41, "1" * 40 + "\n", "A" * 40])
def test_a_hub_s_model_without_a_full_revision_is_refused(revision: str) -> None:
    with pytest.raises(OperatorError, match="owner/name needs a revision of 40 hexadecimal digits, not "):
        model.locate(VectorSettings(model="owner/name", revision=revision))


def test_a_hub_s_model_that_was_never_fetched_is_told_of_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read once, when it is imported
    with pytest.raises(OperatorError, match=r"owner/name at 1{40} is not on this machine; .* HF_HUB_OFFLINE=0"):
        model.locate(VectorSettings(model="owner/name", revision="1" * 40))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_a_missing_file_of_a_model_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(OperatorError, match=f"has no {name} in {folder}"):
        model.locate(VectorSettings(model=str(folder)))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("config.json", b"{", "cannot read .*config.json"),
        ("config.json", b"{}", "config.json has no hidden_size"),
        ("model.safetensors", b"garbage", "cannot load the model in "),
        ("tokenizer.json", b"{", "cannot load the model in "),
        ("1_Pooling/config.json", b'{"pooling_mode_max_tokens": true}', "pooling by pooling_mode_max_tokens is not"),
        ("1_Pooling/config.json", b'{"pooling_mode": "lasttoken"}', "pooling by lasttoken is not supported"),
        ("1_Pooling/config.json", b'{"pooling_mode": ["mean", "cls"]}', "is not supported; use mean or cls"),
        ("1_Pooling/config.json", b"{}", "pooling by nothing is not supported"),
        ("modules.json", b'[{"type": "sentence_transformers.models.Dense"}]', "the module 'Dense' is not supported"),
        ("modules.json", b"{", "cannot read .*modules.json"),
    ],
)
def test_a_damaged_or_foreign_model_is_an_error_that_names_it(
    folder: Path, cpu: Device, name: str, content: bytes, says: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(OperatorError, match=says) as told:
        model.load(VectorSettings(model=str(folder)), TEMPLATE, cpu)
    assert str(folder) in str(told.value)


@pytest.mark.parametrize("said", [{"pooling_mode": "mean"}, {"pooling_mode_mean_tokens": True}])
def test_pooling_is_read_as_sentence_transformers_writes_it_now_and_wrote_it_before(
    folder: Path, cpu: Device, tiny: model.Model, said: dict[str, Any]
) -> None:
    (folder / "1_Pooling/config.json").write_text(json.dumps(said))
    loaded = model.load(VectorSettings(model=str(folder)), TEMPLATE, cpu)
    np.testing.assert_array_equal(encoded(loaded, texts(3)), encoded(tiny, texts(3)))


def test_a_model_pooled_by_its_first_token_gives_that_token_s_vector(folder: Path, cpu: Device) -> None:
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    loaded = model.load(VectorSettings(model=str(folder)), TEMPLATE, cpu)
    import torch

    ids = torch.tensor([loaded._tokenizer.encode("bees of sicily").ids])
    with torch.inference_mode():
        first = loaded._network(input_ids=ids).last_hidden_state[:, 0].double().numpy()
    assert cosines(first, encoded(loaded, ["bees of sicily"])) > 0.9999


def test_more_tokens_than_the_model_has_places_for_are_refused(folder: Path) -> None:
    with pytest.raises(OperatorError, match=r"max_tokens 513: .* accepts 512 at most"):
        model.inspect(VectorSettings(model=str(folder), max_tokens=513), TEMPLATE)
    assert model.inspect(VectorSettings(model=str(folder), max_tokens=512), TEMPLATE).max_tokens == 512


# By what it is known again.


def fingerprint(folder: Path, template: str = TEMPLATE, **settings: Any) -> str:
    return model.inspect(VectorSettings(model=str(folder), **settings), template).fingerprint


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_a_model_with_another_file_is_another_model(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    spoil(folder / name)
    assert fingerprint(folder) != before


@pytest.mark.parametrize("changed", [{"max_tokens": 128}, {"prefix": "passage: "}, {"query_prefix": "query: "}])
def test_vectors_made_in_another_way_have_another_fingerprint(folder: Path, changed: dict[str, Any]) -> None:
    assert fingerprint(folder, **changed) != fingerprint(folder)


def test_texts_of_another_template_have_another_fingerprint(folder: Path) -> None:
    assert fingerprint(folder, "title, text and authors") != fingerprint(folder)


@pytest.mark.parametrize(
    "same", [{"dtype": "bfloat16"}, {"device": "gpu"}, {"threads": 7}, {"batch_tokens": 1}, {"top_k": 3}]
)
def test_how_it_is_computed_is_not_part_of_the_fingerprint(folder: Path, same: dict[str, Any]) -> None:
    assert fingerprint(folder, **same) == fingerprint(folder)


def test_the_same_files_elsewhere_are_the_same_model(folder: Path, shared: Path) -> None:
    assert fingerprint(folder) == fingerprint(shared)


def test_published_vectors_are_searched_with_their_own_model_whatever_the_settings_say(
    folder: Path, tmp_path: Path, cpu: Device
) -> None:
    info = model.inspect(VectorSettings(model=str(folder), max_tokens=64), TEMPLATE)
    other = VectorSettings(model=str(tmp_path / "another"), max_tokens=128)
    assert model.load_for(info, other, TEMPLATE, cpu).info == info
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    with pytest.raises(OperatorError, match=r"the vectors come from another model .* embed and publish again"):
        model.load_for(info, other, TEMPLATE, cpu)
    shutil.rmtree(folder)
    with pytest.raises(OperatorError, match=f"the model {folder} has no config.json"):
        model.load_for(info, other, TEMPLATE, cpu)
    with pytest.raises(OperatorError, match="nothing is embedded in what is published"):
        model.load_for(None, other, TEMPLATE, cpu)


# What it makes of texts.


def test_vectors_are_of_unit_length_and_there_is_one_for_each_text(tiny: model.Model) -> None:
    found = encoded(tiny, texts(50))
    assert found.shape == (50, DIM)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_different_texts_have_different_vectors(tiny: model.Model) -> None:
    """Or the tests of likeness below would hold for a model that is deaf."""
    found = encoded(tiny, texts(50))
    near = found @ found.T - 2 * np.eye(50)
    assert near.max() < 0.9999
    assert near.min() < 0.95


@pytest.mark.parametrize("batch_tokens", [1, 7, 100, 100_000])
def test_a_vector_does_not_depend_on_the_texts_beside_it(tiny: model.Model, batch_tokens: int) -> None:
    some = texts(60)
    alone = np.vstack([encoded(tiny, [text]) for text in some])
    assert cosines(encoded(tiny, some, batch_tokens), alone).min() >= 0.9999
    mixed = list(range(60))
    random.Random(3).shuffle(mixed)
    assert cosines(encoded(tiny, [some[n] for n in mixed], batch_tokens), alone[mixed]).min() >= 0.9999


def test_batches_hold_about_as_many_tokens_as_asked_for_longest_first(tiny: model.Model) -> None:
    some = texts(80)
    lengths = [len(tiny._tokenizer.encode(text).ids) for text in some]
    batches = list(tiny.encode(some, 300))
    assert sorted(place for batch in batches for place in batch.places) == list(range(80))
    for batch in batches:
        longest = max(lengths[place] for place in batch.places)
        assert len(batch.places) == 1 or len(batch.places) * longest <= 300
    order = [lengths[place] for batch in batches for place in batch.places]
    assert order == sorted(order, reverse=True)


def test_a_long_text_counts_up_to_the_last_token_that_fits(shared: Path, cpu: Device) -> None:
    loaded = model.load(VectorSettings(model=str(shared), max_tokens=12), TEMPLATE, cpu)
    start = "whaling in sicily and beekeeping in ulster and railways in"  # ten tokens, first and last besides
    found = encoded(loaded, [start, f"{start} brazil", f"{start} brazil " * 50, start.replace("railways", "soil")])
    assert cosines(found[[0, 0]], found[[1, 2]]).min() >= 0.9999
    assert cosines(found[[0]], found[[3]]) < 0.9999


def test_no_texts_are_no_batches(tiny: model.Model) -> None:
    assert list(tiny.encode([], 100)) == []
    assert tiny.query([]).shape == (0, DIM)


def test_a_query_is_embedded_as_a_text_is(tiny: model.Model) -> None:
    some = texts(20)
    np.testing.assert_array_equal(tiny.query(some), encoded(tiny, some, 4096))


def test_prefixes_go_before_texts_and_queries_each_its_own(shared: Path, cpu: Device, tiny: model.Model) -> None:
    settings = VectorSettings(model=str(shared), prefix="a history of ", query_prefix="essays on ")
    loaded = model.load(settings, TEMPLATE, cpu)
    np.testing.assert_array_equal(encoded(loaded, ["soil"]), encoded(tiny, ["a history of soil"]))
    np.testing.assert_array_equal(loaded.query(["soil"]), tiny.query(["essays on soil"]))


@pytest.mark.parametrize("text", ["", " ", "\0", "\ud800 bees", "e\u0301", "蜜蜂" * 500, "\U0001f41d", "a" * 100_000])
def test_any_text_whatever_has_a_vector(tiny: model.Model, text: str) -> None:
    assert np.isfinite(encoded(tiny, ["bees", text, "soil"])).all()
    assert np.isfinite(tiny.query([text])).all()


def test_a_text_without_a_finite_vector_is_left_out_and_the_others_are_not(
    tiny: model.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tiny._forward

    def broken(ids: list[list[int]], longest: int) -> npt.NDArray[np.float32]:
        found = forward(ids, longest)
        found[[12 <= len(tokens) < 30 for tokens in ids]] = np.nan
        return found

    monkeypatch.setattr(tiny, "_forward", broken)
    some = texts(30)
    found = encoded(tiny, some, 200)
    bad = np.array([12 <= len(tiny._tokenizer.encode(text).ids) < 30 for text in some])
    assert 0 < bad.sum() < 30
    assert (np.isnan(found).any(axis=1) == bad).all()


def test_a_text_with_a_token_the_network_does_not_know_is_left_out(shared: Path, cpu: Device, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared, tmp_path / "model"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zeppelin"] = 100_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    loaded = model.load(VectorSettings(model=str(folder)), TEMPLATE, cpu)
    found = encoded(loaded, ["soil", "a zeppelin", "bees"])
    assert np.isnan(found).any(axis=1).tolist() == [False, True, False]


# The model that is shipped.


def real_texts(count: int) -> list[str]:
    with gzip.open(real_data() / "papers_titles_abstracts.jsonl.gz", "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    return [f"{one['title']}\n\n{one['abstract']}" for one in random.Random(5).sample(read, count)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("dtype", "count"), [("auto", 60), pytest.param("auto", 2000, marks=pytest.mark.soak), ("float32", 30)]
)
def test_the_vectors_are_those_of_sentence_transformers(dtype: str, count: int, show: Callable[[str], None]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    some = real_texts(count)
    ours = model.load(VectorSettings(), TEMPLATE, open_device("cpu", 0, dtype))
    theirs = sentence_transformers.SentenceTransformer(
        str(model.locate(VectorSettings())), device="cpu", model_kwargs={"dtype": "float32"}
    )
    theirs.max_seq_length = 256
    found = cosines(encoded(ours, some), theirs.encode(some, batch_size=16).astype(np.float64))
    show(f"{ours.device.dtype}: cosine with sentence-transformers at least {found.min():.5f} on {count} texts")
    assert found.min() >= (0.999 if dtype == "auto" else 0.99999)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a figure although the test passes."""

    def print_it(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return print_it
