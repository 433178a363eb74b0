"""The current generation of every corpus, kept open and replaced when another is published.

A new generation is read through before it takes the place of the old one, which stays open for a while for whoever
began with it; one that is damaged is refused and the old one stays.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tickwork.contract.layout import Layout
from tickwork.contract.outcomes import OperatorError
from tickwork.publish.generations import Generation, Generations
from tickwork.serve.edition import Edition
from tickwork.serve.encoder import Encoder
from tickwork.vectors.corpus import Corpus
from tickwork.vectors.settings import VectorSettings

log = logging.getLogger(__name__)


@dataclass
class Shelf:
    """A corpus and what is open of it."""

    corpus: Corpus
    edition: Edition | None = None
    refused: str = ""
    """A generation that is damaged: it is not looked at again."""
    trouble: str = ""


class Library:
    """What is published of all corpora. One thread at a time looks for what is fresh; reading is for all."""

    def __init__(self, layout: Layout, corpora: Sequence[Corpus], settings: VectorSettings) -> None:
        self.shelves = {corpus.name: Shelf(corpus) for corpus in corpora}
        self._layout = layout
        self._settings = settings
        self._encoders: dict[str, Encoder] = {}

    def editions(self) -> dict[str, Edition]:
        """The open edition of each corpus of which something is published, by name."""
        return {name: shelf.edition for name, shelf in self.shelves.items() if shelf.edition is not None}

    def fresh(self, corpus: str) -> Edition | None:
        """What was published of `corpus` since, read through and open, its model perhaps not; None without anything."""
        shelf = self.shelves[corpus]
        found = Generations(self._layout, corpus)
        name = found.current_name()
        if not name or (shelf.edition and shelf.edition.generation.name == name):
            shelf.refused = shelf.trouble = ""
            return None
        if name == shelf.refused:
            return None
        try:
            generation = found.verify(name)
            if generation.meta.corpus != corpus:
                raise OperatorError(f"generation {name} is one of {generation.meta.corpus}, not of {corpus}")
            edition = self._open(shelf.corpus, generation)
        except (OperatorError, sqlite3.DatabaseError) as error:
            shelf.refused = name
            self._trouble(shelf, name, error)
        except OSError as error:  # files that cannot be read now, or were pruned while they were read
            self._trouble(shelf, name, error)
        else:
            return edition
        return None

    def _trouble(self, shelf: Shelf, name: str, error: Exception) -> None:
        if str(error) != shelf.trouble:
            log.error("%s is not opened: %s", name, error)
        shelf.trouble = str(error)

    def _open(self, corpus: Corpus, generation: Generation) -> Edition:
        info = generation.meta.model if generation.meta.vectors else None
        if info and info.fingerprint not in self._encoders:
            self._encoders[info.fingerprint] = Encoder(info, self._settings, corpus.template)
        encoder = self._encoders[info.fingerprint] if info else None
        return Edition(corpus, generation, encoder, self._settings.words_weight)

    def place(self, corpus: str, edition: Edition) -> Edition | None:
        """Have readers find `edition` from now on; gives the one before, to be closed later."""
        shelf = self.shelves[corpus]
        old, shelf.edition = shelf.edition, edition
        shelf.refused = shelf.trouble = ""
        log.info("%s: generation %s is open", corpus, edition.generation.name)
        return old

    def forget_models(self) -> None:
        """Drop the models that no open edition needs."""
        needed = {edition.encoder.info.fingerprint for edition in self.editions().values() if edition.encoder}
        for fingerprint in self._encoders.keys() - needed:
            del self._encoders[fingerprint]

    def to_load(self) -> list[Callable[[], None]]:
        """Loading the models that are not loaded."""
        return [encoder.load for encoder in list(self._encoders.values()) if not encoder.ready]
