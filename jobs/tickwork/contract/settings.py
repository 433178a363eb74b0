"""The settings file: one TOML document, decoded into typed structs; an error names the key it is about."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from tickwork.contract.jobs import Job, seconds
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths

DEFAULT_PATH = Path("/etc/tickwork/tickwork.toml")

Section = TypeVar("Section", bound=msgspec.Struct)

# What a number in a struct may be. The upper bounds are beyond all sense; they refuse infinity.
_MOST = 1e9
Seconds = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
Hours = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
Days = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
AtLeastNone = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is common to all sources. A source's own table is decoded by the source, see `section`."""

    state: str = ""
    lock_dir: str = ""
    log_dir: str = ""
    metrics_dir: str = ""
    contact: str = "https://tickwork.invalid/contact"
    """URL put into the User-Agent, where an upstream's operator can find out who is calling."""
    mail: str = ""
    """Mail address sent as From, empty to send none."""
    allow_private: tuple[str, ...] = ()
    """Networks (CIDR) that may be called although they are not public: tests and private deployments."""
    jobs: dict[str, Job] = {}
    sources: dict[str, dict[str, Any]] = {}
    """Raw tables of the sources, by name."""
    said_of_jobs: dict[str, tuple[str, ...]] = {}
    """Which keys each table `[jobs.NAME]` has: the others are as the job's source has them."""
    path: str = ""
    """The file this came from, for error messages."""

    def section(self, name: str, kind: type[Section]) -> Section:
        """The table `[name]` as a `kind`; its defaults where the file has none. Raises OperatorError."""
        return _convert(self.sources.get(name, {}), kind, f"[{name}] of {self.path}")

    def paths(self, state: Path | None) -> Paths:
        """Where things lie; a state folder given on the command line moves everything below it."""
        if state is not None:
            return Paths.under(state.absolute())
        home = Path(self.state) if self.state else Path.home() / ".local" / "state" / "tickwork"
        folders = (Path(text) if text else None for text in (self.lock_dir, self.log_dir, self.metrics_dir))
        return Paths.under(home, *folders)


def load(path: Path | None, sources: tuple[str, ...]) -> Settings:
    """Read the settings from `path`, or from /etc when it is there, or take the defaults.

    `sources` are the names of the tables that belong to sources. Raises OperatorError, naming file and key.
    """
    if path is None:
        if not DEFAULT_PATH.exists():
            return Settings()
        path = DEFAULT_PATH
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OperatorError(f"cannot read the settings {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} is not valid TOML: {error}") from error
    tables = {name: document.pop(name) for name in sources if name in document}
    for reserved in ("sources", "said_of_jobs", "path"):
        if reserved in document:
            raise OperatorError(f"{path}: unknown key `{reserved}`")
    settings = _convert(document, Settings, str(path))
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise OperatorError(f"{path}: [{name}] must be a table")
    settings.sources = tables
    settings.path = str(path)
    settings.said_of_jobs = {name: tuple(document["jobs"][name]) for name in settings.jobs}
    settings.jobs = {name: msgspec.structs.replace(job, name=name) for name, job in settings.jobs.items()}
    for job in settings.jobs.values():
        _check_durations(job, path)
    return settings


def _check_durations(job: Job, path: Path) -> None:
    for key in ("lock_wait", "timeout", "kill_after", "halt_after_stalled"):
        try:
            seconds(getattr(job, key))
        except ValueError as error:
            raise OperatorError(f"{path}: jobs.{job.name}.{key}: {error}") from error


def override(settings: Section, name: str, **given: object) -> Section:
    """The table `[name]` with what a command's options say instead (None says nothing), checked like the file.

    Raises OperatorError, naming the key.
    """
    said = {key: value for key, value in given.items() if value is not None}
    return _convert(msgspec.to_builtins(settings) | said, type(settings), f"[{name}]") if said else settings


def _convert(table: Any, kind: type[Section], where: str) -> Section:  # noqa: ANN401 - any TOML value
    """`table` as a `kind`. A struct may name its former keys in RENAMED, old to new."""
    for old, new in getattr(kind, "RENAMED", {}).items():
        if isinstance(table, dict) and old in table:
            raise OperatorError(f"{where}: `{old}` is now called `{new}`")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        key = re.sub(r"^`\$\.?|`$", "", place)
        raise OperatorError(f"{where}: {f'`{key}`: ' if key else ''}{problem[:1].lower()}{problem[1:]}") from error
