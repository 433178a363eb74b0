"""The current generation of every corpus, kept open and replaced when another is published.

A new generation is read through before it takes the place of the old one, which stays open for a while for whoever
began with it; one that is damaged is refused and the old one stays.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.corpus.corpus import Corpus
from tickwork.generation.generations import Generation, Generations
from tickwork.serve.encoder import Encoder
from tickwork.serve.open_generation import OpenGeneration
from tickwork.vectors.settings import VectorSettings

log = logging.getLogger(__name__)


@dataclass
class Entry:
    """A corpus and what is open of it."""

    corpus: Corpus
    opened: OpenGeneration | None = None
    refused: str = ""
    """A generation that is damaged: it is not looked at again."""
    trouble: str = ""


class Library:
    """What is published of all corpora. One thread at a time looks for what is fresh; reading is for all."""

    def __init__(self, paths: Paths, corpora: Sequence[Corpus], settings: VectorSettings) -> None:
        self.entries = {corpus.name: Entry(corpus) for corpus in corpora}
        self._paths = paths
        self._settings = settings
        self._encoders: dict[str, Encoder] = {}

    def open_generations(self) -> dict[str, OpenGeneration]:
        """The open opened of each corpus of which something is published, by name."""
        return {name: entry.opened for name, entry in self.entries.items() if entry.opened is not None}

    def fresh(self, corpus: str) -> OpenGeneration | None:
        """What was published of `corpus` since, read through and open, its model perhaps not; None without anything."""
        entry = self.entries[corpus]
        found = Generations(self._paths, corpus)
        name = found.current_name()
        if not name or (entry.opened and entry.opened.generation.name == name):
            entry.refused = entry.trouble = ""
            return None
        if name == entry.refused:
            return None
        try:
            generation = found.verify(name)
            if generation.meta.corpus != corpus:
                raise OperatorError(f"generation {name} is one of {generation.meta.corpus}, not of {corpus}")
            opened = self._open(entry.corpus, generation)
        except (OperatorError, sqlite3.DatabaseError) as error:
            entry.refused = name
            self._trouble(entry, name, error)
        except OSError as error:  # files that cannot be read now, or were pruned while they were read
            self._trouble(entry, name, error)
        else:
            return opened
        return None

    def _trouble(self, entry: Entry, name: str, error: Exception) -> None:
        if str(error) != entry.trouble:
            log.error("%s is not opened: %s", name, error)
        entry.trouble = str(error)

    def _open(self, corpus: Corpus, generation: Generation) -> OpenGeneration:
        info = generation.meta.model if generation.meta.vectors else None
        if info and info.fingerprint not in self._encoders:
            self._encoders[info.fingerprint] = Encoder(info, self._settings, corpus.template)
        encoder = self._encoders[info.fingerprint] if info else None
        return OpenGeneration(corpus, generation, encoder, self._settings.words_weight)

    def place(self, corpus: str, opened: OpenGeneration) -> OpenGeneration | None:
        """Have readers find `opened` from now on; gives the one before, to be closed later."""
        entry = self.entries[corpus]
        old, entry.opened = entry.opened, opened
        entry.refused = entry.trouble = ""
        log.info("%s: generation %s is open", corpus, opened.generation.name)
        return old

    def forget_models(self) -> None:
        """Drop the models that no open opened needs."""
        needed = {opened.encoder.info.fingerprint for opened in self.open_generations().values() if opened.encoder}
        for fingerprint in self._encoders.keys() - needed:
            del self._encoders[fingerprint]

    def to_load(self) -> list[Callable[[], None]]:
        """Loading the models that are not loaded."""
        return [encoder.load for encoder in list(self._encoders.values()) if not encoder.ready]
