"""Checks whole pipelines against the providers that exist, and against where their steps run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..domain.errors import StartupError
from .declared_providers import SETTING, DeclaredProviders
from .mistakes import Mistake, line_of
from .pipeline import Pipeline
from .providers import BUILT_IN
from .runs_on import REMOTE_EXECUTORS, find
from .step import DIGEST_PARAMETER, Step


def provider_mistakes(pipeline: Pipeline, own: DeclaredProviders) -> list[Mistake]:
    """Find what is wrong with the providers that a pipeline's steps take.

    They are the built-in ones and `own`, those of authors. An input or step of an own provider's
    name is a mistake, too: a reader would not know which of them a parameter means.
    """
    found = [*_unknown(pipeline, own), *_clashes(pipeline, own)]
    for step in pipeline.steps:
        found += _foreign(pipeline, step)
    return found


def refuse_unreachable(pipelines: Iterable[Pipeline]) -> None:
    """Raise StartupError about a step that its place cannot import, or not give what it takes."""
    for pipeline in pipelines:
        for step in pipeline.steps:
            if step.runs_on not in REMOTE_EXECUTORS:
                continue
            for mistake in _foreign(pipeline, step):
                raise StartupError(str(mistake))
            at = f"{line_of(step.function)}: pipeline {pipeline.name}, step {step.name}"
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


def _unknown(pipeline: Pipeline, own: DeclaredProviders) -> Iterator[Mistake]:
    """Find parameters that are neither input nor step nor provider."""
    providers = {*BUILT_IN, *own}
    known = {*pipeline.by_name, *pipeline.inputs.model_fields, DIGEST_PARAMETER, *providers}
    for step in pipeline.steps:
        for name in step.parameters:
            if name not in known:
                near = difflib.get_close_matches(name, known - {step.name}, 1)
                known_providers = ", ".join(sorted(providers))
                advice = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"providers: {known_providers}; {SETTING} registers your own"
                )
                yield Mistake(
                    line_of(step.function, name),
                    f"step {step.name}: parameter {name} is no input, step or provider of "
                    f"pipeline {pipeline.name}; {advice}",
                )


def _clashes(pipeline: Pipeline, own: DeclaredProviders) -> Iterator[Mistake]:
    """Find inputs and steps that have the name of an author's provider."""
    for name, provider in own.items():
        step = pipeline.by_name.get(name)
        kind = "a step" if step is not None else "an input"
        if step is not None or name in pipeline.inputs.model_fields:
            yield Mistake(
                pipeline.where if step is None else line_of(step.function),
                f"pipeline {pipeline.name}: {name} is both {kind} and a provider, "
                f"{provider.reference} ({provider.source}): rename one of them",
            )


def _foreign(pipeline: Pipeline, step: Step) -> Iterator[Mistake]:
    """Find providers that the step takes and its executor cannot give it."""
    if step.runs_on not in REMOTE_EXECUTORS:
        return
    for name in step.parameters:
        if name not in pipeline.providers() or (step.runs_on == "process" and name not in BUILT_IN):
            continue
        rule = "no step on Ray can take a provider"
        if step.runs_on == "process":
            rule = "a step in a process can take no built-in provider"
        yield Mistake(
            line_of(step.function, name),
            f"pipeline {pipeline.name}, step {step.name}: parameter {name} lives in the worker, "
            f"and runs_on={step.runs_on!r}: {rule}; let a step on the loop or in a thread take it",
        )


def _importable(found: Callable[..., Any]) -> bool:
    if found.__module__ == "__main__":
        return False
    try:
        return find(found.__module__, found.__qualname__) is found
    except (ImportError, AttributeError):
        return False
