"""What a source is: one object, cheap to import, that names everything else it has and loads it on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tickwork.contract.jobs import Job
from tickwork.contract.outcomes import OperatorError, missing_package

Settings = Any
"""The struct of a source's table in the settings file; None for a source without one."""


def _no_corpora(_settings: Settings) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Source:
    """One source. What is written `module:object` is imported when it is first needed, see `load`."""

    name: str
    """Its name on the command line, in the settings file and among the roles."""
    title: str
    """One line for the help."""
    jobs: Callable[[Settings], Sequence[Job]]
    """Its jobs as they are without a deployment; the role of the same name has them for the operator."""
    commands: str
    """The typer application with its commands."""
    settings: str = ""
    """The struct that its table is decoded into."""
    corpora: Callable[[Settings], Mapping[str, str]] = _no_corpora
    """Its corpora: name to `module:object`, so that one can be used without importing the others."""
    extras: tuple[str, ...] = ()
    """Extras of the Python package that its commands need."""


def load(target: str, extras: Sequence[str] = ()) -> Any:  # noqa: ANN401 - whatever the object is
    """The object written `module:object`.

    Raises OperatorError, which names the `extras` to install, where a package that it needs is missing.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if not missing_package(error):
            raise
        wanted = ",".join(extras) or "cpu"
        raise OperatorError(f"{error.name} is not installed: pip install 'tickwork[{wanted}]'") from error
