"""What the stages of a campaign share: the folder they context in, what they context from, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from tickwork.contract import files
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.corpus.corpus import Corpus
from tickwork.generation.generations import CAMPAIGN, Generation, Generations
from tickwork.generation.meta import IDS, VECTORS

if TYPE_CHECKING:
    from tickwork.generation.matrix import Matrix
    from tickwork.vectors.device import Device

SNAPSHOT = "snapshot.db"


class Impossible(OperatorError):  # noqa: N818 - says what the campaign is, as Busy does
    """A campaign cannot be had as it was asked for: it is given up, so that the next may ask for something else."""


class CampaignRequest(msgspec.Struct, kw_only=True, frozen=True):
    """What a campaign was started for; every pass of it does the same, whatever the settings say meanwhile.

    `base` is the generation that increments start from. `kind` index and similar make that one file anew and take the
    others of `base` as they are.
    """

    kind: Literal["publish", "index", "similar"] = "publish"
    base: str = ""
    full: bool = False
    """Make everything anew, also what could be had from the base by a few changes."""
    factory: str = ""
    nlist: int = 0
    nprobe: int = 32
    top_k: int = 20


@dataclass
class CampaignContext:
    """One campaign's workplace."""

    corpus: Corpus
    paths: Paths
    generations: Generations
    request: CampaignRequest
    open_device: Callable[[], Device]
    warn: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """Where the files come to lie."""
        return self.generations.building

    @cached_property
    def device(self) -> Device:
        """The device of this pass, tried out when it is first needed."""
        return self.open_device()

    @cached_property
    def base(self) -> Generation | None:
        """The generation to start from, or None where there is none, or it is no use any more."""
        if not self.request.base:
            return None
        try:
            return self.generations.open(self.request.base)
        except OperatorError as error:
            self.warn(f"rebuilding everything: {error}")
            return None

    @cached_property
    def base_matrix(self) -> Matrix | None:
        """The vectors of the base, by which it is known what changed; None where nothing is to be had from the base."""
        from tickwork.generation.matrix import Matrix

        whole = all(self.of_base(file) for file in (IDS, VECTORS))
        return Matrix.load(self.base.folder) if whole and self.base else None

    def of_base(self, file: str) -> Path | None:
        """A file of the base whose content is as it was written, or None."""
        if self.base is None or self.request.full:
            return None
        path = self.base.folder / file
        if file not in self.base.meta.sha256 or not path.is_file() or files.digest(path) != self.base.meta.sha256[file]:
            self.warn(f"rebuilding {file}: that of generation {self.base.name} is damaged")
            return None
        return path


def read_request(folder: Path) -> CampaignRequest | None:
    """The campaign of a folder, None where there is none."""
    path = folder / CAMPAIGN
    try:
        return msgspec.json.decode(path.read_bytes(), type=CampaignRequest)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise OperatorError(f"cannot read {path}: {error}; remove {folder} and publish again") from error


def write_request(folder: Path, campaign: CampaignRequest) -> None:
    """Begin a campaign in `folder`."""
    folder.mkdir(parents=True)
    with files.whole(folder / CAMPAIGN) as path:
        path.write_bytes(msgspec.json.encode(campaign))
