"""The pipelines that this process knows."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator, Sequence

from headstart._for_service import not_one_of

from ..domain.errors import InvalidRequest, StartupError, Violation
from .checks import provider_mistakes, refuse_unreachable
from .declared_providers import NO_PROVIDERS, DeclaredProviders
from .entry_points import PIPELINES, described, entry_points
from .named_models import LANGUAGE_MODEL
from .pipeline import Pipeline
from .step import Step


class Registry:
    """Finds pipelines by name.

    Raises StartupError when two share a name, or a step cannot run where `runs_on` names.
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        own_providers: DeclaredProviders = NO_PROVIDERS,
        served: Collection[str] = (),
    ) -> None:
        """Hold these pipelines; `own_providers` are those of authors that their steps may take.

        Of their steps those of the pools in `served` run here; none means all.
        """
        self._own_providers = own_providers
        self._served = frozenset(served)
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
        """The names of the providers that the steps which run here take."""
        return {name for each in self for name in each.providers(self.steps_here(each))}

    def own_providers(self, *runs_on: str) -> DeclaredProviders:
        """The providers of authors that steps take: those that run there, by default all."""
        steps = (step for pipeline in self for step in self.steps_here(pipeline))
        named = {p for s in steps if not runs_on or s.runs_on in runs_on for p in s.parameters}
        taken = named & self.providers()
        return {name: own for name, own in self._own_providers.items() if name in taken}

    @property
    def language_models(self) -> set[str]:
        """The language models that the pipelines name; an empty name is that of the settings."""
        taking = (each for each in self if LANGUAGE_MODEL in each.providers(self.steps_here(each)))
        return {pipeline.language_model for pipeline in taking}

    @property
    def pools(self) -> set[str]:
        """The pools that the pipelines or their steps name, of those that are served here."""
        return {pool for pipeline in self for pool in self.pools_of(pipeline)}

    def pools_of(self, pipeline: Pipeline) -> set[str]:
        """Return the pipeline's own pool, and those of its steps, as far as they are served."""
        named = {pipeline.pool, *pipeline.steps_elsewhere.values()}
        return {pool for pool in named if self.serves(pool)}

    def serves(self, pool: str) -> bool:
        """Return whether runs and steps of this pool are run here."""
        return not self._served or pool in self._served

    def steps_here(self, pipeline: Pipeline) -> Sequence[Step]:
        """Return the steps of a pipeline that run here: those of the pools that are served."""
        return [step for step in pipeline.steps if self.serves(pipeline.pool_of(step))]

    def of_pools(self, pools: Sequence[str]) -> Registry:
        """Return the pipelines of which these pools run something; no pools means all.

        Raises StartupError that names each pool which no pipeline and no step names.
        """
        if unknown := [pool for pool in pools if pool not in self.pools]:
            known = ", ".join(sorted(self.pools)) or "none"
            raise StartupError(
                f"HEADSTART_POOLS: no pipeline here names {', '.join(unknown)}; they name: {known}"
            )
        served = Registry(self, self._own_providers, pools)
        chosen = (each for each in served if served.pools_of(each))
        return Registry(chosen, self._own_providers, pools)

    def find(self, name: str) -> Pipeline | None:
        """The pipeline of this name, if there is one."""
        return self._by_name.get(name)

    def require(self, name: str, field: str) -> Pipeline:
        """The pipeline of this name; InvalidRequest about `field` if there is none."""
        pipeline = self._by_name.get(name)
        if pipeline is None:
            raise InvalidRequest([Violation(field, not_one_of(name, self._by_name))])
        return pipeline


def load_pipelines(
    references: Sequence[str], own: DeclaredProviders = NO_PROVIDERS
) -> list[Pipeline]:
    """The pipelines that `module:name` references point at; steps may take `own` providers.

    Raises StartupError, naming the reference, when one does not lead to a Pipeline.
    """
    return [_checked(load(reference, "HEADSTART_PIPELINES"), own) for reference in references]


def load_installed(own: DeclaredProviders = NO_PROVIDERS) -> list[Pipeline]:
    """The pipelines that installed distributions offer, in the order of their entry points' names.

    Raises StartupError, naming the distribution, when one does not lead to a Pipeline.
    """
    points = entry_points(PIPELINES)
    return [_checked(load(point.value, described(point)), own) for point in points]


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


def _checked(pipeline: Pipeline, own: DeclaredProviders) -> Pipeline:
    """The pipeline, if workers have all that its steps name. Raises StartupError if not."""
    mistakes = provider_mistakes(pipeline, own)
    if mistakes:
        raise StartupError("\n".join(map(str, mistakes)))
    return pipeline
