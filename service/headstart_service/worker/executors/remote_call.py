"""Calls a step's function in a process that is not the worker's. Imports nothing of the worker."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...domain import FailureReason
from ...domain.errors import StepFailed
from ...pipeline.retry_kinds import Kinds, kinds_of
from ...pipeline.runs_on import find
from ..reasons import failure_of, readable
from . import code_identity


class StepRaised(Exception):
    """Stands for what a step raised, when that cannot be raised here.

    It was raised in another process, where it stays: this holds the traceback's text. Or it is no
    Exception, and would end the event loop: it is the cause of this one.
    """

    def __init__(self, text: str, kinds: Kinds = ()) -> None:
        """`kinds` are those of what it stands for; none where that is not known."""
        super().__init__(text)
        self.kinds = kinds

    @classmethod
    def by(cls, error: BaseException) -> StepRaised:
        """Return one for something that is no Exception, such as what sys.exit() raises."""
        raised = cls(f"{type(error).__name__}: {error}", kinds_of(error))
        raised.__cause__ = error
        return raised


@dataclass(frozen=True, slots=True)
class Performed:
    """How a call ended."""

    value: Any = None
    failure: str | None = None
    """What callers may read, if the step failed on purpose."""
    retry: bool = True
    trace: str | None = None
    """The traceback, if it raised something else."""
    cpu_seconds: float = 0.0
    other_code: str | None = None
    """Why it was not called: this process has other code, or none."""
    missing: bool = False
    """Whether that code cannot be imported there at all."""
    failure_reason: FailureReason = FailureReason.STEP_FAILED
    """Why it failed: `failure` as data."""
    retry_after: float | None = None
    """Seconds before another try, if the step named them."""
    kinds: Kinds = ()
    """Of what it raised, with `trace`."""

    def result(self) -> Any:
        """The value; raises StepFailed or StepRaised when there is none."""
        if self.failure is not None:
            raise StepFailed(
                self.failure,
                retry=self.retry,
                failure_reason=self.failure_reason,
                retry_after=self.retry_after,
            )
        if self.trace is not None:
            raise StepRaised(self.trace, self.kinds)
        return self.value


@dataclass(frozen=True, slots=True)
class Call:
    """A request to another process: call a step's function."""

    module: str
    name: str
    code: Mapping[str, str]
    """The identity of each module that the call needs, as the worker has it."""
    arguments: bytes = b""
    """A pickle of its keyword arguments; empty to compare the code alone."""
    actor: tuple[str, str] | None = None
    """Module and name of the class whose instance the function takes as `actor`."""
    log_fields: Mapping[str, Any] = field(default_factory=dict)
    """What log lines have that are written during the call."""


def perform_call(call: Call, instances: dict[tuple[str, str], Any]) -> Performed:
    """Make the call if this process has the code that it names; never raises.

    The actor's instance is kept in `instances`, and made by the first call.
    """
    try:
        code_identity.require(call.code)
    except code_identity.OtherCode as error:
        return Performed(other_code=str(error), missing=error.missing)
    if not call.arguments:
        return Performed()
    began = time.process_time()
    try:
        arguments = pickle.loads(call.arguments)  # noqa: S301  # our own worker's
        if call.actor is not None:
            if call.actor not in instances:
                instances[call.actor] = find(*call.actor)()
            arguments["actor"] = instances[call.actor]
    except Exception:  # noqa: BLE001  # reported by its text
        return Performed(trace=traceback.format_exc(), cpu_seconds=time.process_time() - began)
    return perform(call.module, call.name, arguments)


def packed(done: Performed) -> bytes:
    """Pickle it; a value that cannot be pickled becomes a failure that names its type."""
    try:
        return pickle.dumps(done, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001  # whatever a value's own pickling raises
        what = f"returned a {type(done.value).__name__}, which cannot leave its process: {error}"
        return pickle.dumps(
            Performed(
                failure=what[:300],
                retry=False,
                cpu_seconds=done.cpu_seconds,
                failure_reason=FailureReason.WRONG_TYPE,
            )
        )


def perform(module: str, name: str, arguments: Mapping[str, Any]) -> Performed:
    """Call the function; never raises what it raises, which the worker might not know."""
    began = time.process_time()
    try:
        done = Performed(find(module, name)(**arguments))
    except BaseException as error:  # noqa: BLE001  # reported by its text
        failed = failure_of(error)
        if failed is None:
            done = Performed(trace=traceback.format_exc(), kinds=kinds_of(error))
        else:
            done = Performed(
                failure=readable(failed),
                retry=failed.retry,
                failure_reason=failed.failure_reason,
                retry_after=failed.retry_after,
            )
    return replace(done, cpu_seconds=time.process_time() - began)
