"""What the methods are made of: given once, at construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..auth.grants import Grant, Grants
from ..domain.run_store import RunStore, StartRun
from ..pipeline.registry import Registry
from .call_observer import CallObserver, CallObservers
from .refusals import Refusals
from .results.reader import ResultReader


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRules:
    """What the API promises. Durations in seconds."""

    result_ttl: float
    max_records: int
    partitions: int = 1
    """Of the store: a list's order, and so its page tokens, depend on it."""
    separate: bool = False
    """Whether a namespace may learn nothing of the others, not even the length of their queue."""
    max_connection_age: float = 0.0
    """How long a connection or a watch lives; 0 is for ever."""
    log_inputs: bool = False
    """Whether the log of a start shows its inputs."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The objects that all methods share."""

    store: RunStore
    registry: Registry
    reader: ResultReader
    rules: ApiRules
    observer: CallObserver = field(default_factory=CallObservers)
    start: StartRun | None = None
    """Starts runs in place of the store's own method, where starts are traced."""
    grants: Grants | None = None
    """The tokens that callers need; None where they need none."""
    refusals: Refusals = field(default_factory=Refusals)


class Call(NamedTuple):
    """What a transport knows of a call besides its request."""

    time_left: float | None = None
    """Seconds until the caller's deadline when the call came; None without one."""
    grant: Grant | None = None
    """What the caller may do, for methods whose items need it; None where no tokens are needed."""


LARGE_REQUEST = 32 * 1024
"""Bytes from which a request is parsed in a thread: the inputs of 4 MB take seconds."""
