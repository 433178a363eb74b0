"""The table `[vectors]`, and the device: what is wrong with them is told by name, and nothing falls back silently."""

from __future__ import annotations

import os
import re

import pytest

from tests.kits.operate import Tickwork
from tests.kits.vectors import config, make_state
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.vectors import device


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("modle = 'x'", "modle"),
        ("max_tokens = 'many'", "`max_tokens`"),
        ("max_tokens = 2", "`max_tokens`: expected `int` >= 3"),
        ("dtype = 'int8'", "`dtype`"),
        ("device = 'tpu'", "`device`"),
        ("threads = -1", "`threads`: expected `int` >= 0"),
        ("nlist = -1", "`nlist`: expected `int` >= 0"),
        ("batch_tokens = 0", "`batch_tokens`: expected `int` >= 1"),
        ("nprobe = 0", "`nprobe`: expected `int` >= 1"),
        ("top_k = 0", "`top_k`: expected `int` >= 1"),
        ("keep_generations = 0", "`keep_generations`: expected `int` >= 1"),
        ("words_weight = 1.5", "`words_weight`: expected `float`"),
        ("words_weight = nan", "`words_weight`: expected `float`"),
    ],
)
def test_what_is_wrong_in_the_table_is_named(tickwork: Tickwork, line: str, key: str) -> None:
    said = tickwork("embed", "doab", config=f"[vectors]\n{line}\n")
    assert said.code == 2
    assert said.err.startswith("tickwork: ")
    assert said.err.count("\n") == 1
    assert re.search(key, said.err), said.err


def test_the_table_must_be_one(tickwork: Tickwork) -> None:
    said = tickwork("embed", "doab", config="vectors = 5\n")
    assert said.code == 2
    assert "[vectors] must be a table" in said.err


@pytest.mark.parametrize("command", [("embed", "daob"), ("search", "daob", "x"), ("similar", "daob", "1")])
def test_a_corpus_there_is_not_is_told_with_those_there_are(tickwork: Tickwork, command: tuple[str, ...]) -> None:
    said = tickwork(*command)
    assert said.code == 2
    assert "no corpus 'daob'; the corpora are: atproto, doab" in said.err


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_not_there_is_an_error_and_the_processor_is_no_substitute() -> None:
    with pytest.raises(OperatorError, match=r"--gpu: no usable GPU: .* Use --cpu"):
        device.open_device("gpu")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("option", "setting"), [("--gpu", "cpu"), ("", "gpu")])
def test_a_pass_on_a_missing_gpu_embeds_nothing_and_fails(
    tickwork: Tickwork, paths: Paths, option: str, setting: str
) -> None:
    make_state(paths.state, 3)
    said = tickwork("embed", "doab", *filter(None, [option]), config=config("/nowhere", device=setting))
    assert said.code == 1, "a fault that the wrapper counts, not a pass with work left"
    assert "pass=crashed items=0" in said.err
    assert "no usable GPU" in said.err
    assert "Traceback" not in said.err


@pytest.mark.usefixtures("no_gpu")
def test_the_command_line_says_cpu_whatever_the_settings_say(tickwork: Tickwork, paths: Paths) -> None:
    make_state(paths.state, 3)
    said = tickwork("embed", "doab", "--cpu", config=config("/nowhere", device="gpu"))
    assert "GPU" not in said.err
    assert "the model /nowhere has no config.json" in said.err


def test_a_gpu_that_computes_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: ones(*shape, dtype=dtype) * 2)
    with pytest.raises(OperatorError, match="computes wrong results"):
        device.open_device("gpu")

    def no_kernel(*shape: int, **kind: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(OperatorError, match=r"--gpu: the GPU cannot be used: no kernel image is available$"):
        device.open_device("gpu")


@pytest.mark.parametrize(("cores", "load", "free"), [(8, 0.2, 8), (8, 2.6, 5), (2, 1.0, 1), (2, 9.0, 1), (1, 0.0, 1)])
def test_the_free_cores_are_those_that_were_not_busy_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, cores: int, load: float, free: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert device.free_cores() == free
    assert device.open_device("cpu").threads == free
    assert device.open_device("cpu", 3).threads == 3


@pytest.mark.parametrize(
    ("dtype", "native", "expected"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("bfloat16", False, "bfloat16"),
        ("float32", True, "float32"),
    ],
)
def test_bfloat16_is_taken_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, dtype: str, native: bool, expected: str
) -> None:
    monkeypatch.setattr(device, "has_native_bf16", lambda: native)
    assert str(device.open_device("cpu", 1, dtype).dtype) == f"torch.{expected}"
