"""A pipeline: named steps, the model of their inputs, and how their values become wire fragments.

Declaring one imports nothing heavy, so that the API process can validate and plan without numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from ..domain import RunPlan, digest
from ..errors import InvalidRequest, Violation
from .step import DIGEST_PARAMETER, Step


class ResultCodec(Protocol):
    """Turns a step's value into a serialized piece of GetResultsResponse, and back."""

    def encode(self, step: str, value: Any) -> bytes:
        """The fragment that holds `value` as the result of `step`."""
        ...

    def decode(self, step: str, fragment: bytes) -> Any:
        """The value that `encode` was given for `step`."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """A DAG of steps over validated inputs.

    Raises ValueError when two steps share a name, a step is named like an input, or the steps
    need each other in a circle.
    """

    name: str
    version: str
    """Raise it when the same inputs would give other results: old results are then replaced."""
    description: str
    inputs: type[BaseModel]
    steps: Sequence[Step]
    codec: ResultCodec
    by_name: Mapping[str, Step] = field(init=False)
    order: Sequence[str] = field(init=False)
    """The steps' names, each after what it needs."""

    def __post_init__(self) -> None:
        by_name: dict[str, Step] = {}
        for step in self.steps:
            if step.name in by_name:
                raise ValueError(f"pipeline {self.name}: two steps are named {step.name}")
            if step.name in self.inputs.model_fields:
                raise ValueError(f"pipeline {self.name}: {step.name} is both an input and a step")
            by_name[step.name] = step
        object.__setattr__(self, "by_name", by_name)
        graph = {step.name: self.needs(step) for step in self.steps}
        try:
            order = tuple(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise ValueError(
                f"pipeline {self.name}: steps need each other in a circle: {circle}"
            ) from error
        object.__setattr__(self, "order", order)

    def needs(self, step: Step) -> tuple[str, ...]:
        """The steps whose values `step` takes."""
        return tuple(p for p in step.parameters if p in self.by_name)

    def dependants(self, names: Iterable[str]) -> set[str]:
        """The steps that take what these give, directly or through others."""
        found: set[str] = set()
        sources = set(names)
        for name in self.order:
            if not found.union(sources).isdisjoint(self.needs(self.by_name[name])):
                found.add(name)
        return found

    def providers(self) -> set[str]:
        """The names of everything that a worker must provide for this pipeline."""
        known = {*self.by_name, *self.inputs.model_fields, DIGEST_PARAMETER}
        return {p for step in self.steps for p in step.parameters} - known

    def plan(self, raw: Mapping[str, Any], path: str) -> RunPlan:
        """Validate `raw` inputs and plan the run.

        Raises InvalidRequest with every violation; each field's path starts with `path`.
        """
        try:
            inputs = self.inputs.model_validate(raw)
        except ValidationError as error:
            raise InvalidRequest(_violations(error, path)) from error
        steps = self.step_digests(inputs)
        if not steps:
            raise InvalidRequest([Violation(path, "leaves this pipeline no step to run")])
        values = inputs.model_dump(mode="json")
        return RunPlan(
            pipeline=self.name,
            inputs=inputs.model_dump_json().encode(),
            digest=digest([self.name, self.version, values]),
            steps=steps,
        )

    def step_digests(self, inputs: BaseModel) -> dict[str, str]:
        """The steps of a run with these inputs, in order, each with its own digest."""
        values = inputs.model_dump(mode="json")
        digests: dict[str, str] = {}
        for name in self.order:
            step = self.by_name[name]
            needs = self.needs(step)
            wanted = step.when is None or step.when(inputs)
            if wanted and all(need in digests for need in needs):
                own = {p: values[p] for p in step.parameters if p in values}
                needed = {need: digests[need] for need in needs}
                digests[name] = digest([self.name, self.version, name, own, needed])
        return digests


def _violations(error: ValidationError, path: str) -> list[Violation]:
    found = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        location = ".".join(str(part) for part in (path, *detail["loc"]))
        # pydantic puts this in front of the text of a ValueError that a validator raised.
        found.append(Violation(location, detail["msg"].removeprefix("Value error, ")))
    return found
