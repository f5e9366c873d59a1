"""Gives each try of a step values of its own, whatever other tries do with theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..base.own_threads import in_own_thread
from ..domain import StepRecord, StepState
from ..pipeline.pipeline import Pipeline
from ..pipeline.runs_on import REMOTE_EXECUTORS
from ..pipeline.step import DIGEST_PARAMETER, Step
from ..values.limits import ON_LOOP
from .copies import UNCHANGING, copied


@dataclass(frozen=True, slots=True)
class GivenItem:
    """One item of a list, for the tries of a step that runs for each."""

    value: Any
    size: int
    """Of its text, in bytes."""
    seed: str
    """Its digest, for a step that takes `step_digest`."""

    def argument(self, name: str) -> tuple[Any, int]:
        """Return the value of a parameter that is about the item, and its size."""
        return (self.seed, 0) if name == DIGEST_PARAMETER else (self.value, self.size)


class Arguments:
    """The inputs and values of one run, of which each try of a step gets copies."""

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: BaseModel,
        size: int,
        digests: Mapping[str, str],
        providers: Mapping[str, Any],
    ) -> None:
        """Take the run's `inputs`, of so many bytes as JSON, its steps' digests and providers."""
        self._pipeline = pipeline
        self._inputs = inputs
        self._fields = type(inputs).model_fields
        self._size = size
        self._digests = digests
        self._providers = providers
        self._values: dict[str, tuple[bytes, Any]] = {}
        self._taken = {name for each in digests for name in pipeline.by_name[each].parameters}

    def needs(self, name: str) -> bool:
        """Return whether a step of the run takes this step's value."""
        return name in self._taken

    def keep(self, name: str, fragment: bytes, value: Any) -> None:
        """Keep a fragment's value, which no other code may hold, to decode it only once."""
        self._values[name] = fragment, value

    def listed(self, step: Step, kept: Mapping[str, StepRecord]) -> Any:
        """Return the value of a step's `each`, which no caller may change."""
        if step.each in self._fields:
            return getattr(self._inputs, step.each)
        return self._value(step.each, kept[step.each].fragment)

    async def of(
        self, step: Step, kept: Mapping[str, StepRecord], item: GivenItem | None = None
    ) -> dict[str, Any]:
        """Gather one try's arguments; values of other steps come from the records that are `kept`.

        An `item` stands in the place of its list.
        Copies what a step could change, except on the way to another process, which has its own.
        """
        arguments: dict[str, Any] = {}
        changing: dict[str, Any] = {}
        size = 0
        for name in step.parameters:
            if item is not None and name in (step.each, DIGEST_PARAMETER):
                value, weight = item.argument(name)
            elif name in self._pipeline.by_name:
                need = kept.get(name)
                if need is None or need.state is not StepState.COMPLETED:
                    if name not in step.defaults:
                        arguments[name] = None
                    continue
                fragment = need.fragment
                value, weight = self._value(name, fragment), len(fragment)
            elif name in self._fields:
                value, weight = getattr(self._inputs, name), self._size
            elif name == DIGEST_PARAMETER:
                value, weight = self._digests[step.name], 0
            else:
                arguments[name] = self._pipeline.provider(name, self._providers)
                continue
            arguments[name] = value
            if type(value) not in UNCHANGING:
                changing[name] = value
                size += weight
        if changing and step.runs_on not in REMOTE_EXECUTORS:
            in_thread = size > ON_LOOP
            arguments |= await in_own_thread(copied, changing) if in_thread else copied(changing)
        return arguments

    def _value(self, name: str, fragment: bytes) -> Any:
        known, value = self._values.get(name, (None, None))
        if known is not fragment:  # reported, or ended before this worker took the run
            value = self._pipeline.codec.decode(name, fragment)
            self._values[name] = fragment, value
        return value
