"""The pipelines that this process knows."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint
from typing import Final

from headstart._for_service import not_one_of

from ..domain.errors import InvalidRequest, StartupError, Violation
from .checks import refuse_unreachable, unknown_parameters
from .named_models import LANGUAGE_MODEL
from .pipeline import Pipeline
from .providers import PROVIDERS

GROUP: Final = "headstart.pipelines"
"""The group of entry points by which an installed distribution offers pipelines."""


class Registry:
    """Finds pipelines by name.

    Raises StartupError when two share a name, or a step cannot run where `runs_on` names.
    """

    def __init__(self, pipelines: Iterable[Pipeline]) -> None:
        self._by_name: dict[str, Pipeline] = {}
        for pipeline in pipelines:
            first = self._by_name.setdefault(pipeline.name, pipeline)
            if first is not pipeline:  # a setting may name an installed pipeline again
                raise StartupError(
                    f"HEADSTART_PIPELINES: two pipelines are named {pipeline.name}: the first is "
                    f"declared at {first.where}, the second at {pipeline.where}"
                )
        refuse_unreachable(self)

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._by_name.values())

    def providers(self) -> set[str]:
        """The names of the providers that the pipelines' steps take."""
        return {name for pipeline in self for name in pipeline.providers()}

    @property
    def language_models(self) -> set[str]:
        """The language models that the pipelines name; an empty name is that of the settings."""
        taking = (each for each in self if LANGUAGE_MODEL in each.providers())
        return {pipeline.language_model for pipeline in taking}

    @property
    def pools(self) -> set[str]:
        """The pools that the pipelines name."""
        return {pipeline.pool for pipeline in self}

    def of_pools(self, pools: Sequence[str]) -> Registry:
        """Return the pipelines that these pools run; no pools means all.

        Raises StartupError that names each pool which no pipeline names.
        """
        if unknown := [pool for pool in pools if pool not in self.pools]:
            known = ", ".join(sorted(self.pools)) or "none"
            raise StartupError(
                f"HEADSTART_POOLS: no pipeline here names {', '.join(unknown)}; they name: {known}"
            )
        return Registry(pipeline for pipeline in self if not pools or pipeline.pool in pools)

    def find(self, name: str) -> Pipeline | None:
        """The pipeline of this name, if there is one."""
        return self._by_name.get(name)

    def require(self, name: str, field: str) -> Pipeline:
        """The pipeline of this name; InvalidRequest about `field` if there is none."""
        pipeline = self._by_name.get(name)
        if pipeline is None:
            raise InvalidRequest([Violation(field, not_one_of(name, self._by_name))])
        return pipeline


def load_pipelines(references: Sequence[str]) -> list[Pipeline]:
    """The pipelines that `module:name` references point at.

    Raises StartupError, naming the reference, when one does not lead to a Pipeline.
    """
    return [_checked(load(reference, "HEADSTART_PIPELINES")) for reference in references]


def load_installed() -> list[Pipeline]:
    """The pipelines that installed distributions offer, in the order of their entry points' names.

    Raises StartupError, naming the distribution, when one does not lead to a Pipeline.
    """
    return [_checked(load(point.value, described(point))) for point in entry_points()]


def load(reference: str, source: str) -> Pipeline:
    """The pipeline of a `module:name`. Raises StartupError that begins with `source`."""
    module, _, name = reference.partition(":")
    try:
        pipeline = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        # The module may raise anything while it declares its pipelines.
        raise StartupError(f"{source}: cannot load {reference}: {error}") from error
    if not isinstance(pipeline, Pipeline):
        raise StartupError(f"{source}: {reference} is not a Pipeline")
    return pipeline


def entry_points(distribution: str = "") -> list[EntryPoint]:
    """Those of the group `headstart.pipelines`, of one distribution or of all, by name."""
    found = importlib.metadata.entry_points(group=GROUP)
    wanted = _normal(distribution)
    chosen = [p for p in found if not wanted or (p.dist and _normal(p.dist.name) == wanted)]
    return sorted(chosen, key=lambda point: (point.name, point.value))


def described(point: EntryPoint) -> str:
    """Describe an entry point to operators: its distribution, and its name there."""
    whose = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
    return f"distribution {whose}, entry point {point.name} of {GROUP}"


def _checked(pipeline: Pipeline) -> Pipeline:
    """The pipeline, if workers have all that its steps name. Raises StartupError if not."""
    mistakes = unknown_parameters(pipeline, PROVIDERS)
    if mistakes:
        raise StartupError("\n".join(map(str, mistakes)))
    return pipeline


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
