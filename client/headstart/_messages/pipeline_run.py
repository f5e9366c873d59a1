"""Holds what a pipeline gave that ran inside a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart._messages.results import PrecomputeStatus, Results, StepReport


class StepValues(dict[str, Any]):
    """Maps steps to values; the KeyError of a missing one has the reason."""

    def __init__(self, values: Mapping[str, Any], steps: Mapping[str, StepReport]) -> None:
        super().__init__(values)
        self._steps = steps

    def __missing__(self, step: str) -> Any:
        """Raise a KeyError with the step's end, or with the steps that exist."""
        if step in self._steps:
            report = self._steps[step]
            raise KeyError(f"step {step} has no value: {report.state}: {report.error}")
        known = ", ".join(self._steps)
        raise KeyError(f"this run has no step {step}; it has {known}")


@dataclass(frozen=True, kw_only=True)
class PipelineRun:
    """A run of a pipeline that has ended."""

    status: PrecomputeStatus
    """COMPLETED, or FAILED because a required step failed."""
    error: str | None
    """Why it failed."""
    values: Mapping[str, Any]
    """By step, of completed steps: what another step would be given."""
    steps: Mapping[str, StepReport]
    """By name: the state, error, attempts and elapsed time of each step of this run."""
    exceptions: Mapping[str, BaseException]
    """By step, what its last failing attempt raised: callers receive no more than an id of it."""
    results: Results
    """What `PrecomputeClient.get_results` would return of it."""
