"""Loads pipelines that are declared on this machine, with every mistake in their declarations.

It needs neither Redis nor a model: modules are imported, as an API process imports them, and
what they declare is read.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..base import exit_codes
from ..base.escaping import escaped

if TYPE_CHECKING:
    from ..pipeline.declared_providers import DeclaredProviders
    from ..pipeline.mistakes import Mistake
    from ..pipeline.pipeline import Pipeline

_PLACE = re.compile(r"(\S+:\d+): (.*)", re.DOTALL)


def complain(text: str, code: int = exit_codes.WRONG_ARGUMENTS) -> int:
    """Print an error on standard error, each of its lines escaped; return the exit code."""
    print("headstart: " + "\n".join(map(escaped, text.splitlines())), file=sys.stderr)
    return code


def report(mistakes: Iterable[Mistake]) -> None:
    """Print each mistake on standard error, with its file and line."""
    for mistake in mistakes:
        print(escaped(str(mistake)), file=sys.stderr)


def references(wanted: Iterable[str]) -> dict[str, str]:
    """Return the `module:name` of each pipeline that is wanted, by its source.

    Each of `wanted` is a MODULE:NAME or an installed distribution; empty for all installed ones
    and those of HEADSTART_PIPELINES. Raises ValueError for what offers none.
    """
    from ..pipeline.entry_points import PIPELINES, described, entry_points

    found: dict[str, str] = {}
    for what in wanted:
        if ":" in what:
            found[what] = what
            continue
        points = entry_points(PIPELINES, what)
        if what and not points:
            raise ValueError(
                f"{what} is no MODULE:NAME, and no installed distribution that offers any"
            )
        found |= {described(point): point.value for point in points}
        if not what:
            named = os.environ.get("HEADSTART_PIPELINES", "").split(",")
            found |= {name.strip(): name.strip() for name in named if name.strip()}
    return found


def declared(references: Mapping[str, str]) -> tuple[list[Pipeline], list[Mistake]]:
    """Return the pipelines that could be loaded, and all that is wrong.

    `references` has each pipeline's `module:name` by its source. Raises ImportError without what
    a server needs.
    """
    from ..domain.errors import StartupError
    from ..pipeline.checks import provider_mistakes
    from ..pipeline.mistakes import gathered
    from ..pipeline.registry import load

    found: dict[str, Pipeline] = {}
    with gathered() as mistakes:
        own = registered(mistakes)
        for source, reference in references.items():
            try:
                pipeline = load(reference, source)
            except StartupError as error:
                mistakes.append(_broken(error, source, reference))
                continue
            first = found.get(pipeline.name)
            if first is not None:
                if first is not pipeline:  # a setting may name an installed pipeline again
                    mistakes.append(_twice(first, pipeline))
                continue
            found[pipeline.name] = pipeline
            mistakes.extend(provider_mistakes(pipeline, own))
            mistakes.extend(_unshowable(pipeline))
        mistakes.extend(_unusable(own, found.values()))
    return list(found.values()), mistakes


def registered(mistakes: list[Mistake]) -> DeclaredProviders:
    """Return the providers of authors that are registered here; note what is wrong with that."""
    from ..domain.errors import StartupError
    from ..pipeline.declared_providers import (
        NO_PROVIDERS,
        SETTING,
        declared_providers,
        split_references,
    )
    from ..pipeline.mistakes import Mistake

    try:
        return declared_providers(split_references(os.environ.get(SETTING, "")))
    except StartupError as error:
        source, _, text = str(error).partition(": ")
        mistakes.append(Mistake(source, text))
        return NO_PROVIDERS


def _unusable(own: DeclaredProviders, pipelines: Iterable[Pipeline]) -> list[Mistake]:
    """Return why providers that these pipelines take can be opened nowhere."""
    from ..domain.errors import StartupError
    from ..pipeline.mistakes import Mistake
    from ..pipeline.provider_factory import load_factory

    taken = {name for pipeline in pipelines for name in pipeline.providers()}
    mistakes = []
    for declared in (own[name] for name in sorted(taken & own.keys())):
        try:
            load_factory(declared)
        except StartupError as error:
            placed = _PLACE.fullmatch(str(error))
            where, text = placed.groups() if placed else (declared.reference, str(error))
            mistakes.append(Mistake(where, text))
    return mistakes


def _broken(error: Exception, source: str, reference: str) -> Mistake:
    """What a module raised while it was imported, at the line that raised it."""
    from ..pipeline.mistakes import Mistake, place

    cause = error.__cause__
    where, text = reference, str(error).removeprefix(f"{source}: ")
    if cause is not None:
        frames = [
            frame
            for frame in traceback.extract_tb(cause.__traceback__)
            if not frame.filename.startswith("<")  # a dataclass's __init__, importlib's frozen code
            and "importlib" not in frame.filename
            and "headstart_service" not in frame.filename
        ]
        placed = _PLACE.fullmatch(str(cause))
        if placed is not None:
            where, text = placed[1], placed[2]
        elif isinstance(cause, SyntaxError):
            where, text = place(str(cause.filename), cause.lineno or 0), str(cause.msg)
        elif frames:
            where = place(frames[-1].filename, frames[-1].lineno or 0)
            text = f"{type(cause).__name__}: {cause}"
        elif isinstance(cause, ModuleNotFoundError):
            text += " (is its directory on PYTHONPATH?)"
    return Mistake(where, text if source == reference else f"{text} ({source})")


def _twice(first: Pipeline, second: Pipeline) -> Mistake:
    from ..pipeline.mistakes import Mistake

    text = f"two pipelines are named {second.name}: the first is declared at {first.where}"
    return Mistake(second.where, text)


def _unshowable(pipeline: Pipeline) -> list[Mistake]:
    """Return why its inputs cannot be described as JSON Schema."""
    from ..pipeline.mistakes import Mistake

    try:
        pipeline.inputs.model_json_schema()
    except Exception as error:  # noqa: BLE001  # an author's schema hooks may raise anything
        text = f"pipeline {pipeline.name}: its inputs have no JSON Schema: {error}"
        return [Mistake(pipeline.where, text)]
    return []
