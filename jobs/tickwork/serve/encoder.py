"""The model that turns queries into vectors: loaded once, in the background, its vectors remembered."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tickwork.contract.outcomes import OperatorError
from tickwork.generation.model_info import ModelInfo
from tickwork.vectors.settings import VectorSettings

if TYPE_CHECKING:
    from tickwork.vectors.exact_search import Vectors
    from tickwork.vectors.model import Model

REMEMBERED = 10_000
"""Vectors of queries that are kept: below a kilobyte each."""

log = logging.getLogger(__name__)


class NotReadyError(Exception):
    """The model is still being loaded, or cannot be."""


class Encoder:
    """The model of one fingerprint."""

    def __init__(self, info: ModelInfo, settings: VectorSettings, template: str) -> None:
        self.info = info
        self.trouble = ""
        """Why the model cannot be loaded; empty while it is loading or when it is."""
        self._settings = settings
        self._template = template
        self._model: Model | None = None
        self._loading = threading.Lock()
        self._turn = threading.Lock()
        self._remembered: OrderedDict[str, Vectors] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether queries can be encoded."""
        return self._model is not None

    def load(self) -> None:
        """Load the model, once; what goes wrong is kept in `trouble`, and may be mended and tried again."""
        with self._loading:
            if self._model is None:
                self._load()

    def _load(self) -> None:
        from tickwork.vectors import model
        from tickwork.vectors.device import open_device

        try:
            device = open_device(self._settings.device, self._settings.threads, self._settings.dtype)
            loaded = model.load_for(self.info, self._settings, self._template, device)
            loaded.query(["the first query is slow"])
        except OperatorError as error:
            if str(error) != self.trouble:
                log.error("searching by meaning is off: %s", error)
            self.trouble = str(error)
        else:
            self.trouble, self._model = "", loaded

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of queries, (len(texts), dim). Raises NotReadyError."""
        import numpy as np

        if self._model is None:
            raise NotReadyError(self.trouble or "the model is being loaded")
        with self._turn:
            missing = [text for text in dict.fromkeys(texts) if text not in self._remembered]
            if missing:
                self._remembered.update(zip(missing, self._model.query(missing)[:, None], strict=True))
            vectors = [self._remembered[text] for text in texts]
            for text in texts:
                self._remembered.move_to_end(text)
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return np.concatenate(vectors)
