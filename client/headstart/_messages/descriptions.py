"""The pipelines of a service, and what became of all that it computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

from headstart._messages.artifacts import Json

Embedding: TypeAlias = tuple[float, ...]
T = TypeVar("T")


class ExecutorKind(StrEnum):
    """What executes a step."""

    LOOP = "loop"
    """The worker's event loop."""
    THREAD = "thread"
    """A thread of the worker."""
    PROCESS = "process"
    """A child process of the worker."""
    RAY = "ray"
    """A Ray cluster."""


class Fate(StrEnum):
    """What becomes of a run, and of a step's work."""

    USED_READY = "used_ready"
    """Read, and there when the first reader came."""
    USED_WAITED = "used_waited"
    """Read, and there only after the first reader had come; or a run that was read in part."""
    EXPIRED = "expired"
    """Never read before its time was over."""
    EVICTED = "evicted"
    """Never read before it made room for others."""
    CANCELLED = "cancelled"
    """Cancelled before it was read."""
    REPLACED = "replaced"
    """Another start of its key took its place before it was read."""
    FAILED = "failed"
    """Of a step: it failed, or its run did before it was read. Of a run: it failed."""


_USED: Final = frozenset({Fate.USED_READY, Fate.USED_WAITED})
"""The fates of work that a caller has read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDescription:
    """One step of a pipeline."""

    name: str
    needs: tuple[str, ...]
    """The steps whose results it takes."""
    output_type: str = ""
    """What it returns, as Python writes it: `list[str]`; empty without a return type."""
    required: bool
    """Whether the run fails when this step fails."""
    timeout: timedelta | None
    """How long one attempt may take."""
    max_attempts: int
    pool: str = ""
    """Which workers compute it; empty from servers that know no pools of steps."""
    runs_on: ExecutorKind | None = None
    """Where it runs; None if this client is too old to know it."""
    version: str = ""
    """A change of it invalidates this step's results and those of what needs it; may be empty."""
    memo: bool = False
    """Whether its result is reused in runs of other keys of the namespace."""
    output_schema: Mapping[str, Json] | None = None
    """JSON Schema of its value; None where that is no JSON, or its type is not declared."""
    optional_needs: tuple[str, ...] = ()
    """Those of `needs` that it can do without."""
    each: str = ""
    """The input or step whose list it works on, once for each item; empty for other steps."""
    parallel: int = 0
    """How many items it computes at a time, at most; 0 without `each`."""
    max_items: int = 0
    """How many items the list may have; 0 without `each`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineDescription:
    """A pipeline that the service can run."""

    name: str
    version: str
    description: str
    steps: tuple[StepDescription, ...]
    input_schema: Mapping[str, Json]
    """JSON Schema of the inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerWork:
    """How much work met one fate."""

    runs: int
    steps: int
    compute: timedelta
    """The steps' durations, each from its first try to its end."""
    cpu: timedelta
    llm_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHidden:
    """What users of one pipeline did not have to wait for."""

    runs: int
    """Runs that completed and were read."""
    hidden: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of every run that was started, and of its steps' work, each counted once."""

    since: datetime
    starts: int
    """Runs that were queued: `unsettled` and the runs of all `fates`."""
    joined: int
    """Starts that a run under way served, and so are no runs."""
    reused: int
    """Starts that a result which was there served, and so are no runs."""
    unsettled: int
    """Runs of which it is not known yet what becomes of them."""
    hidden: timedelta
    """Computation that users did not wait for.

    Of runs that completed and were read, the part that was over before the first read.
    """
    waited: timedelta
    """From the first read to the end, of runs that were first read before it."""
    fates: Mapping[Fate, LedgerWork]
    """Of all fates, those too that nothing has met. Each equals its value: `fates["expired"]`."""
    pipelines: Mapping[str, LedgerHidden]
    llm_calls: int = 0
    """Calls of language models, each try by itself, to whatever end."""
    llm_cached_tokens: int = 0
    """Tokens of questions that the models read from their prompt caches."""

    @property
    def unread_share(self) -> float:
        """Which part of the settled work's duration was never read, 0 to 1; 0 without any."""
        used = sum((w.compute for f, w in self.fates.items() if f in _USED), timedelta())
        whole = sum((w.compute for w in self.fates.values()), timedelta())
        return (whole - used) / whole if whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How much is kept and running."""

    total_cached: int
    """Everything kept: queued, running and ended."""
    active_tasks: int
    """Runs that a worker is computing."""
    status_counts: Mapping[str, int]
    """By `PrecomputeStatus` or its value; statuses that nothing has are left out."""
    queued_jobs: int
    """Jobs that no worker has taken yet, in all namespaces; with tokens, in one's own."""
    max_cached: int
    """How many runs the server keeps at most."""
    ledger: Ledger | None = None
    """None before the first start, and from a server of a version without one."""
