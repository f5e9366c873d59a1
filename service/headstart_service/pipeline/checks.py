"""Checks whole pipelines against what workers provide, and against where their steps run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..domain.errors import StartupError
from .mistakes import Mistake, line_of
from .pipeline import Pipeline
from .runs_on import REMOTE_EXECUTORS, find, where
from .step import DIGEST_PARAMETER


def unknown_parameters(pipeline: Pipeline, providers: Collection[str]) -> list[Mistake]:
    """Find parameters that are neither input nor step nor one of these providers."""
    known = {*pipeline.by_name, *pipeline.inputs.model_fields, DIGEST_PARAMETER, *providers}
    mistakes = []
    for step in pipeline.steps:
        for name in step.parameters:
            if name not in known:
                near = difflib.get_close_matches(name, known - {step.name}, 1)
                known_providers = ", ".join(sorted(providers))
                advice = f"did you mean {near[0]}?" if near else f"providers: {known_providers}"
                mistakes.append(
                    Mistake(
                        line_of(step.function, name),
                        f"step {step.name}: parameter {name} is no input, step or provider of "
                        f"pipeline {pipeline.name}; {advice}",
                    )
                )
    return mistakes


def refuse_unreachable(pipelines: Iterable[Pipeline]) -> None:
    """Raise StartupError about a step that its place cannot import, or not give what it takes."""
    for pipeline in pipelines:
        providers = pipeline.providers()
        for step in pipeline.steps:
            if step.runs_on not in REMOTE_EXECUTORS:
                continue
            at = f"{where(step.function)}: pipeline {pipeline.name}, step {step.name}"
            foreign = [name for name in step.parameters if name in providers]
            if foreign:
                raise StartupError(
                    f"{at}: parameter {foreign[0]} lives in the worker, and no step with "
                    f"runs_on={step.runs_on!r} can have it"
                )
            if not _importable(step.function):
                function = step.function
                raise StartupError(
                    f"{at}: runs_on={step.runs_on!r} needs to import it as "
                    f"{function.__module__}:{function.__qualname__}, which is something else"
                )
            actor = step.ray.actor if step.ray is not None else None
            if actor is not None and not _importable(actor):
                raise StartupError(
                    f"{at}: its actor must be importable as {actor.__module__}:"
                    f"{actor.__qualname__}, which is something else"
                )


def _importable(found: Callable[..., Any]) -> bool:
    if found.__module__ == "__main__":
        return False
    try:
        return find(found.__module__, found.__qualname__) is found
    except (ImportError, AttributeError):
        return False
