"""The pipelines that this process knows."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence

from ..errors import InvalidRequest, StartupError, Violation
from .pipeline import Pipeline
from .places import refuse_unreachable


class Registry:
    """Finds pipelines by name.

    Raises StartupError when two share one, or a step cannot run where it says.
    """

    def __init__(self, pipelines: Iterable[Pipeline]) -> None:
        self._by_name: dict[str, Pipeline] = {}
        for pipeline in pipelines:
            if pipeline.name in self._by_name:
                raise StartupError(f"HEADSTART_PIPELINES: two pipelines are named {pipeline.name}")
            self._by_name[pipeline.name] = pipeline
        refuse_unreachable(self)

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Pipeline | None:
        """The pipeline of this name, if there is one."""
        return self._by_name.get(name)

    def require(self, name: str, field: str) -> Pipeline:
        """The pipeline of this name; InvalidRequest about `field` if there is none."""
        pipeline = self._by_name.get(name)
        if pipeline is None:
            known = ", ".join(sorted(self._by_name))
            rule = f"must be one of: {known}"
            raise InvalidRequest([Violation(field, rule)])
        return pipeline


def load_pipelines(references: Sequence[str]) -> list[Pipeline]:
    """The pipelines that `module:name` references point at.

    Raises StartupError, naming the reference, when one does not lead to a Pipeline.
    """
    found = []
    for reference in references:
        module, _, name = reference.partition(":")
        try:
            pipeline = getattr(importlib.import_module(module), name)
        except Exception as error:
            # Whatever that module raises while it declares its pipelines.
            raise StartupError(f"HEADSTART_PIPELINES: cannot load {reference}: {error}") from error
        if not isinstance(pipeline, Pipeline):
            raise StartupError(f"HEADSTART_PIPELINES: {reference} is not a Pipeline")
        found.append(pipeline)
    return found
