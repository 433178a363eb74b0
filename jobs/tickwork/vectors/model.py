"""A sentence model: where its files are, by what it is known again, and texts to vectors.

The files are those of the sentence-transformers layout (config.json, tokenizer.json, model.safetensors,
1_Pooling/config.json). Only safetensors are read and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from tickwork.contract.outcomes import OperatorError
from tickwork.generation.model_info import ModelInfo
from tickwork.vectors.device import Device
from tickwork.vectors.settings import VectorSettings

if TYPE_CHECKING:
    import torch

Vectors = npt.NDArray[np.float16]

_REVISION = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MODULES = ("Transformer", "Pooling", "Normalize")
_FILES = ("config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the texts given to `encode`: their places among them, and their vectors (len(places), dim)."""

    places: list[int]
    vectors: Vectors


class Model:
    """A loaded model. Make one with `load`."""

    def __init__(self, info: ModelInfo, folder: Path, device: Device) -> None:
        self.info = info
        self.device = device
        self._mean = _pooling(folder) == "mean"
        self._tokenizer, self._network = _load_network(folder, device, info.max_tokens)
        self._known_tokens: int = self._network.get_input_embeddings().num_embeddings

    def query(self, texts: Sequence[str]) -> Vectors:
        """The vectors of queries, (len(texts), dim), in their order."""
        vectors = np.zeros((len(texts), self.info.dim), np.float16)
        for batch in self.encode([self.info.query_prefix + text for text in texts], 4096, prefix=""):
            vectors[batch.places] = batch.vectors
        return vectors

    def encode(self, texts: Sequence[str], batch_tokens: int, prefix: str | None = None) -> Iterator[Batch]:
        """Embed `texts` in batches of about `batch_tokens` tokens of like length, the longest texts first.

        Vectors are of unit length, rounded to float16: products of such numbers are exact in float64, so that a
        similarity does not depend on who computes it. A text is in no batch when its vector is not finite, or the
        tokenizer makes nothing of it that the network knows.
        """
        prefix = self.info.prefix if prefix is None else prefix
        # The tokenizer takes no half of a surrogate pair, as a command line or JSON may have it.
        clean = [(prefix + text).encode("utf-8", "replace").decode() for text in texts]
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(clean)]
        known = [place for place, ids in enumerate(tokens) if ids and max(ids) < self._known_tokens]
        order = sorted(known, key=lambda place: -len(tokens[place]))
        while order:
            longest = len(tokens[order[0]])
            count = max(1, batch_tokens // longest)
            places, order = order[:count], order[count:]
            vectors = self._forward([tokens[place] for place in places], longest)
            finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))
            if finite.size:
                yield Batch([places[row] for row in finite], vectors[finite].astype(np.float16))

    def _forward(self, ids: list[list[int]], longest: int) -> npt.NDArray[np.float32]:
        import torch

        padded = torch.zeros((len(ids), longest), dtype=torch.long)
        mask = torch.zeros((len(ids), longest), dtype=torch.long)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        padded, mask = padded.to(self.device.torch_device), mask.to(self.device.torch_device)
        with torch.inference_mode():
            # Without padding there is nothing to mask, and attention without a mask is faster.
            whole = len({len(tokens) for tokens in ids}) == 1
            hidden = self._network(input_ids=padded, attention_mask=None if whole else mask).last_hidden_state
            if self._mean:
                weights = mask.unsqueeze(-1).float()
                pooled = (hidden.float() * weights).sum(1) / weights.sum(1)
            else:
                pooled = hidden[:, 0].float()
            unit: torch.Tensor = torch.nn.functional.normalize(pooled, dim=1)
        numbers: npt.NDArray[np.float32] = unit.cpu().numpy()
        return numbers


def load(settings: VectorSettings, template: str, device: Device) -> Model:
    """Load the model of the settings onto `device`. Raises OperatorError, naming the model and what is missing."""
    folder = locate(settings)
    return Model(inspect(settings, template, folder), folder, device)


def load_for(info: ModelInfo | None, settings: VectorSettings, template: str, device: Device) -> Model:
    """Load the model that published vectors are of, whatever the settings name meanwhile.

    Raises OperatorError when that model is not there any more, or its files are others.
    """
    if info is None:
        raise OperatorError("nothing is embedded in what is published")
    settings = msgspec.structs.replace(
        settings,
        model=info.name,
        revision=info.revision,
        max_tokens=info.max_tokens,
        prefix=info.prefix,
        query_prefix=info.query_prefix,
    )
    found = load(settings, template, device)
    if found.info.fingerprint != info.fingerprint:
        raise OperatorError(
            f"the vectors come from another model ({info.fingerprint[:8]}) than {info.name} is now"
            f" ({found.info.fingerprint[:8]}): embed and publish again, or restore the old files"
        )
    return found


def inspect(settings: VectorSettings, template: str, folder: Path | None = None) -> ModelInfo:
    """What the settings' model is, without loading it: reads its files once."""
    folder = folder or locate(settings)
    config = _read_json(folder / "config.json")
    dim, positions = config.get("hidden_size"), config.get("max_position_embeddings", settings.max_tokens)
    if not isinstance(dim, int):
        raise OperatorError(f"{folder / 'config.json'} has no hidden_size: this kind of model is not supported")
    if settings.max_tokens > positions:
        raise OperatorError(f"[vectors] max_tokens {settings.max_tokens}: {settings.model} accepts {positions} at most")
    digest = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    parts = [str(settings.max_tokens), settings.prefix, settings.query_prefix, template]
    digest.update(json.dumps(parts).encode())
    return ModelInfo(
        name=settings.model,
        revision=settings.revision,
        fingerprint=digest.hexdigest(),
        dim=dim,
        max_tokens=settings.max_tokens,
        prefix=settings.prefix,
        query_prefix=settings.query_prefix,
    )


def locate(settings: VectorSettings) -> Path:
    """The folder of the settings' model. Raises OperatorError when it is not there or not whole."""
    name = settings.model
    if name.startswith("pkg:"):
        folder = _of_package(name.removeprefix("pkg:"))
    elif name.startswith(("/", "./", "../", "~")):
        folder = Path(name).expanduser()
    elif _HUB_ID.fullmatch(name):
        folder = _of_hub(name, settings.revision)
    else:
        raise OperatorError(f"[vectors] model {name!r} is neither pkg:MODULE, nor a folder, nor a hub's owner/name")
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing:
        raise OperatorError(f"the model {name} has no {', '.join(missing)} in {folder}; see [vectors] model")
    return folder


def _of_package(module: str) -> Path:
    try:
        path: str = import_module(module).get_model_path()
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two for what is no name
        raise OperatorError(
            f"[vectors] model: there is no package {module!r} with a model; run: pip install tickwork[default-model]"
        ) from error
    return Path(path)


def _of_hub(name: str, revision: str) -> Path:
    if not _REVISION.fullmatch(revision):
        raise OperatorError(f"[vectors] the model {name} needs a revision of 40 hexadecimal digits, not {revision!r}")
    # Without this a pass would ask the hub, at each start, whether anything is new. Set HF_HUB_OFFLINE=0 to fetch.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise OperatorError(
            f"[vectors] the model {name} at {revision} is not on this machine; fetch it once with HF_HUB_OFFLINE=0"
        ) from error


def _pooling(folder: Path) -> str:
    """How the vectors of a text's tokens become one, `mean` or `cls`. Raises OperatorError for any other way."""
    config = _read_json(folder / "1_Pooling/config.json")
    said = config.get("pooling_mode")  # the key since sentence-transformers 6, those below before
    old = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    chosen = [said] if said else [old.get(k, k) for k, v in config.items() if k.startswith("pooling_mode_") and v]
    if chosen not in (["mean"], ["cls"]):
        raise OperatorError(
            f"{folder}: pooling by {', '.join(map(str, chosen)) or 'nothing'} is not supported; use mean or cls"
        )
    modules = folder / "modules.json"
    for module in _read_json(modules, list) if modules.is_file() else []:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _MODULES:
            raise OperatorError(f"{modules}: the module {kind!r} is not supported; these are: {', '.join(_MODULES)}")
    return str(chosen[0])


def _load_network(folder: Path, device: Device, max_tokens: int) -> tuple[Any, Any]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        with redirect_stderr(StringIO()):  # it tells of weights that a sentence model has no use for
            from transformers import AutoModel

            network = AutoModel.from_pretrained(
                folder,
                dtype=device.dtype if device.dtype in (torch.bfloat16, torch.float32) else torch.float32,
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except Exception as error:  # of damaged files these libraries raise errors of many kinds, some of no kind at all
        raise OperatorError(f"cannot load the model in {folder}: {str(error).partition(chr(10))[0]}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer, network.to(device.torch_device).eval()


def _read_json(path: Path, kind: type = dict) -> Any:  # noqa: ANN401 - any JSON of that kind
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot read {path}: {error}") from error
    if not isinstance(found, kind):
        raise OperatorError(f"{path} is not a JSON {'object' if kind is dict else 'list'}")
    return found
