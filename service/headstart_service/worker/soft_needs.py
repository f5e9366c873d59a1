"""What a run's steps are given, and which of them had to do without a step that they need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..domain import StepRecord, StepState
from ..pipeline.pipeline import Pipeline
from ..pipeline.step import Step
from ..values.fragments import with_missing_needs


class SoftNeeds:
    """The needs of one run's steps, by the records of the steps that have ended."""

    def __init__(
        self, pipeline: Pipeline, steps: Collection[str], kept: Mapping[str, StepRecord]
    ) -> None:
        """Read `kept`, which grows. `steps` are the run's, in dependency order."""
        self._pipeline = pipeline
        self._steps = steps
        self._kept = kept
        self._any = any(pipeline.soft_needs(pipeline.by_name[name]) for name in steps)

    def given(self, step: Step) -> dict[str, bytes]:
        """Return the fragments of the steps that a step needs and that have a result."""
        needs = self._pipeline.needs(step)
        return {name: self._kept[name].fragment for name in needs if self._has_result(name)}

    def noted(self, record: StepRecord) -> StepRecord:
        """Return a step's new record with the needs that it did without, if it did.

        A value that was made without a need, or of such a value, is `degraded`. It would be another
        if the need had a result, as it may in the next revision.
        """
        if not self._any:
            return record
        step = self._pipeline.by_name[record.name]
        missing = [name for name in self._pipeline.needs(step) if not self._has_result(name)]
        if missing:
            fragment = with_missing_needs(record.name, record.fragment, missing)
            record = replace(record, fragment=fragment)
        degraded = record.state is StepState.COMPLETED and record.name in self._degraded()
        return replace(record, degraded=True) if degraded else record

    def _degraded(self) -> set[str]:
        found: set[str] = set()
        for name in self._steps:
            needs = self._pipeline.needs(self._pipeline.by_name[name])
            # Its digest shows whether the run has a step at all.
            if any(
                need in found or not self._has_result(need) for need in needs if need in self._steps
            ):
                found.add(name)
        return found

    def _has_result(self, name: str) -> bool:
        record = self._kept.get(name)
        return record is not None and record.state is StepState.COMPLETED
