"""Every error that crosses a boundary inside the server.

    HeadstartError
    ├── InvalidRequest       the caller's request breaks rules: every violation at once
    ├── RunNotFound          no run is kept under that key
    ├── Unauthenticated      the call brings no token, or none that is accepted
    ├── PermissionDenied     its token does not grant what it asks for
    ├── RecordDamaged        what is kept under that key is not what was written there
    ├── CapacityExhausted    there is no room now, for a run or for a call
    ├── AnswerTooLarge       one response cannot hold it beside the others
    ├── StoreUnavailable     Redis did not answer in time
    │   └── LayoutMismatch   the store is laid out for other processes than this one
    ├── LeaseLost            a worker wrote for a run that is no longer its own
    ├── StepsReported        a worker wrote steps that callers have reported meanwhile
    ├── LastTry              a worker may take the run only with nothing beside it
    ├── ExecutorUnavailable     a step cannot run now where it is to run: another worker, or later
    ├── StepFailed           a step ended without a result, for a reason that callers may read
    └── StartupError         the operator must mend something before this process can serve
        └── PackageMissing   a package is not installed

Foreign exceptions are translated where they enter (redis in `store`, pydantic in `engine`, the
SDK in `providers`); `api/status` alone translates these into gRPC codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .failures import FailureReason


class HeadstartError(Exception):
    """The root: catching it catches everything that the server raises on purpose."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that one field breaks; `field` is its path in the request."""

    field: str
    description: str


_SHOWN: Final = 100
"""Violations in the text of an error: what a caller gets of it is cut sooner."""


class InvalidRequest(HeadstartError):
    """The request breaks rules; nothing was done."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        shown = violations[:_SHOWN]
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in shown))
        self.violations = tuple(violations)


class RunNotFound(HeadstartError):
    """No run is kept under this key: never started, expired or evicted."""

    def __init__(self, namespace: str, key: str) -> None:
        super().__init__(f"nothing is precomputed under {namespace}/{key}")


class Unauthenticated(HeadstartError):
    """The call brings no token, or none that is accepted."""


class PermissionDenied(HeadstartError):
    """The call's token does not grant it; nothing was looked up."""

    def __init__(self, field: str, rule: str, missing: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.missing = missing
        """The verb that a token would need."""


class NotConfigured(HeadstartError):
    """The operator has not configured what the call needs; the message names the cure."""


class RecordDamaged(HeadstartError):
    """What is kept under this key is not what was written: another program changed the store.

    It concerns this key alone, until its record expires or is started with `restart`.
    """

    def __init__(self, name: str) -> None:
        """`name` is the run's, with its namespace."""
        super().__init__(f"the record of {name} is damaged; start it again with restart")
        self.name = name


class CapacityExhausted(HeadstartError):
    """There is no room now, for a run or for a call; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AnswerTooLarge(HeadstartError):
    """One response cannot hold this result beside the others; repeating the call does not help."""


class StoreUnavailable(HeadstartError):
    """Redis did not answer in time; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LayoutMismatch(StoreUnavailable):
    """The store has another number of partitions, or another format, than this process.

    Nothing was read or written. The message gives both layouts and what to do.
    """


class LeaseLost(HeadstartError):
    """The run was replaced, cancelled or given to another worker: stop working on it."""


class StepsReported(HeadstartError):
    """Nothing was written: callers have reported these steps meanwhile, and their results stay."""

    def __init__(self, records: Sequence[Any]) -> None:
        super().__init__(", ".join(record.name for record in records))
        self.records = tuple(records)
        """What is kept instead: a `domain.StepRecord` each, which errors do not know."""


class LastTry(HeadstartError):
    """The run has lost all workers but one that it may lose: run it with nothing beside it."""


class ExecutorUnavailable(HeadstartError):
    """A step's place, such as a Ray cluster, cannot run it now; its run is handed on."""

    def __init__(self, reason: str, *, began: bool = False) -> None:
        super().__init__(reason)
        self.began = began
        """Whether the place was lost while the step ran."""


class StepFailed(HeadstartError):
    """A step cannot give its result. The message is shown to callers, so it holds no secrets.

    Raise it with `retry=False` when another attempt would fail in the same way, and with
    `retry_after` seconds when one may succeed only then. Callers get the `failure_reason` as data,
    such as DEPENDENCY_AWAY when a service did not answer.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry: bool = True,
        failure_reason: FailureReason = FailureReason.STEP_FAILED,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        if retry_after is not None and not 0 <= retry_after < math.inf:
            raise ValueError(f"retry_after must be 0 seconds or more, is {retry_after}")
        self.retry = retry
        self.failure_reason = failure_reason
        self.retry_after = retry_after
        """Seconds before the next try; None for the step's own backoff."""


class StartupError(HeadstartError):
    """The process cannot serve; the message tells the operator what to mend."""


class PackageMissing(StartupError):
    """A package is not installed: starting again does not help. The text has the pip command."""
