"""The current generation of every corpus, kept open and replaced when another is published.

A new generation is read through before it takes the place of the old one, which stays open for a while for whoever
began with it; one that is damaged is refused and the old one stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tickwork.contract.layout import Layout
from tickwork.contract.outcomes import OperatorError
from tickwork.publish.generations import Generation, Generations
from tickwork.serve.edition import Edition
from tickwork.serve.encoder import Encoder, NotReadyError
from tickwork.vectors.corpus import Corpus
from tickwork.vectors.exact import Vectors
from tickwork.vectors.settings import VectorSettings

log = logging.getLogger(__name__)


@dataclass
class Shelf:
    """A corpus and what is open of it."""

    corpus: Corpus
    edition: Edition | None = None
    refused: str = ""
    """The generation that `trouble` is about: it is not looked at again."""
    trouble: str = ""


class Library:
    """What is published of all corpora. `refresh` is called by one thread; reading is for all."""

    def __init__(self, layout: Layout, corpora: Sequence[Corpus], settings: VectorSettings) -> None:
        self.shelves = {corpus.name: Shelf(corpus) for corpus in corpora}
        self._layout = layout
        self._settings = settings
        self._encoders: dict[str, Encoder] = {}

    def editions(self) -> dict[str, Edition]:
        """The open edition of each corpus of which something is published, by name."""
        return {name: shelf.edition for name, shelf in self.shelves.items() if shelf.edition is not None}

    def encoder_of(self, edition: Edition) -> Encoder | None:
        """The model of an edition's vectors, None when it has none."""
        return self._encoders.get(edition.generation.meta.fingerprint)

    def fresh(self, corpus: str) -> Generation | None:
        """The generation that should be opened for `corpus`, read through; None when there is nothing new."""
        shelf = self.shelves[corpus]
        found = Generations(self._layout, corpus)
        name = found.current_name()
        if not name or name == shelf.refused or (shelf.edition and shelf.edition.generation.name == name):
            return None
        try:
            generation = found.verify(name)
            if generation.meta.corpus != corpus:
                raise OperatorError(f"generation {name} is one of {generation.meta.corpus}, not of {corpus}")
        except OperatorError as error:
            shelf.refused, shelf.trouble = name, str(error)
            log.error("%s is not opened: %s", name, error)
            return None
        return generation

    def open(self, corpus: str, generation: Generation) -> Edition:
        """An edition of a generation that `fresh` gave; its model is not loaded yet."""
        shelf = self.shelves[corpus]
        info = generation.meta.model
        if info and info.fingerprint not in self._encoders:
            self._encoders[info.fingerprint] = Encoder(info, self._settings, shelf.corpus.template)
        encoder = self._encoders.get(info.fingerprint) if info else None
        return Edition(shelf.corpus, generation, encoder.encode if encoder else _no_model, self._settings.words_weight)

    def place(self, corpus: str, edition: Edition) -> Edition | None:
        """Have readers find `edition` from now on; gives the one before, to be closed later."""
        shelf = self.shelves[corpus]
        old, shelf.edition = shelf.edition, edition
        shelf.refused = shelf.trouble = ""
        log.info("%s: generation %s is open", corpus, edition.generation.name)
        return old

    def forget_models(self) -> None:
        """Drop the models that no open edition needs."""
        needed = {edition.generation.meta.fingerprint for edition in self.editions().values()}
        for fingerprint in self._encoders.keys() - needed:
            del self._encoders[fingerprint]

    def to_load(self) -> list[Callable[[], None]]:
        """Loading the models that are not loaded."""
        return [encoder.load for encoder in self._encoders.values() if not encoder.ready]


def _no_model(_texts: Sequence[str]) -> Vectors:
    raise NotReadyError("nothing is embedded yet")
