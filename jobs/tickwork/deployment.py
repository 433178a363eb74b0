"""What every command shares: the settings, where things lie, which jobs there are, and how a job's pass is run."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from tickwork.contract.jobs import Job
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.paths import Paths
from tickwork.contract.runner import WRAPPED, Work, run_pass
from tickwork.contract.settings import Settings
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget
from tickwork.source import Source, load

if TYPE_CHECKING:
    from tickwork.corpus.corpus import Corpus
    from tickwork.upstream.http.session import Upstream
    from tickwork.upstream.policy import Policy


@dataclass
class Deployment:
    """The state of one invocation of `tickwork`, the object of every command's context."""

    settings: Settings
    paths: Paths
    sources: Mapping[str, Source]
    """The sources by name."""
    global_options: tuple[str, ...] = ()
    """The global options as given, to start another command of ours in the same deployment."""
    allow_private: tuple[str, ...] = ()
    as_job: str = ""
    """The job that `tickwork run` is running, which may be another than its command's own."""

    def section(self, source: Source) -> Any:  # noqa: ANN401 - the source's own struct
        """The table of a source in its own struct, None for a source that has none. Raises OperatorError."""
        return self.settings.section(source.name, load(source.settings)) if source.settings else None

    def corpora(self) -> dict[str, str]:
        """The corpora of all sources: name to where it is declared, see `load`. Imports none of them."""
        return {
            name: target
            for source in self.sources.values()
            for name, target in source.corpora(self.section(source)).items()
        }

    def corpus(self, name: str) -> Corpus:
        """The corpus called `name`, without importing any other; OperatorError lists those there are."""
        corpora = self.corpora()
        if name not in corpora:
            raise OperatorError(f"there is no corpus {name!r}; the corpora are: {', '.join(sorted(corpora))}")
        corpus: Corpus = load(corpora[name])
        return corpus

    def jobs(self) -> dict[str, Job]:
        """All jobs by name: those of the settings file, and the sources' own defaults."""
        known = {job.name: job for source in self.sources.values() for job in source.jobs(self.section(source))}
        return known | {name: self._deployed(name, known.get(name)) for name in self.settings.jobs}

    def _deployed(self, name: str, default: Job | None) -> Job:
        """A job of the settings file: what its table does not say is as the source has it."""
        job = self.settings.jobs[name]
        said = self.settings.said_of_jobs[name]
        return msgspec.structs.replace(default, **{key: getattr(job, key) for key in said}) if default else job

    def job(self, name: str) -> Job:
        """The job called `name`; OperatorError lists the jobs there are."""
        jobs = self.jobs()
        if name not in jobs:
            raise OperatorError(f"there is no job {name!r}; the jobs are: {', '.join(sorted(jobs))}")
        return jobs[name]

    @contextmanager
    def upstream(
        self, name: str, policy: Policy, stop: Stop, *, private: Sequence[str] = (), ports: Collection[int] = ()
    ) -> Iterator[Upstream]:
        """The polite session with the remote service `name`.

        `private` are networks and `ports` are ports allowed besides the settings' and the usual ones.
        """
        # Here and not above: `tickwork status` must not wait for an HTTP library.
        from tickwork.upstream.http.guard import Guard
        from tickwork.upstream.http.session import Upstream
        from tickwork.upstream.slots import Slots

        try:
            networks = [ipaddress.ip_network(text) for text in (*self.allow_private, *private)]
        except ValueError as error:
            raise OperatorError(f"--allow-private: {error}; write a network such as 10.1.0.0/16") from error
        with (
            Slots(self.paths.database("slots")) as slots,
            Upstream(
                name,
                slots=slots,
                guard=Guard(networks, ports={80, 443, *ports}),
                stop=stop,
                policy=policy,
                contact=self.settings.contact,
                mail=self.settings.mail,
            ) as session,
        ):
            yield session

    def run(
        self,
        name: str,
        work: Work,
        budget: Budget,
        *,
        host: str = "",
        lock: bool = True,
        drains: bool | None = None,
    ) -> None:
        """Make one pass of the job `name` (or of the one a wrapper or `tickwork run` is running), exit with its code.

        `drains` overrides the job's own, for a pass that does not do all of its work.
        """
        job = self.job(name)
        if other := os.environ.get(WRAPPED) or self.as_job:
            # A host may schedule the same command under a name, locks and bounds of its own.
            job = self.jobs().get(other) or msgspec.structs.replace(job, name=other)
        if drains is not None:
            job = msgspec.structs.replace(job, drains=drains)
        outcome = run_pass(job, work, budget, self.paths, host=host, take_locks=lock)
        raise typer.Exit(outcome.exit_code)
