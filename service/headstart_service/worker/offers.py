"""What a worker offers: its pipelines, and what makes the values of their steps there.

A value is what its inputs, its pipeline's definition and its providers make. Inputs and definition
are in a run's digests, which the API makes. Providers live in workers
alone. So each worker reports a *maker* of its values: a digest of its providers' identities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..domain import Offer, digest
from ..pipeline.identity import identity_of
from ..pipeline.pipeline import Pipeline
from ..pipeline.registry import Registry

_SHORT: Final = 6
"""Characters of a maker, 36 bits: it is compared with those of the same step alone."""


def offers_of(registry: Registry, providers: Mapping[str, Any]) -> Sequence[Offer]:
    """The offers of a worker that has these providers: one for each pool of a pipeline it serves.

    Each offer has the makers of the steps of its pool alone.
    """
    offers = []
    for pipeline in registry:
        makers = makers_of(pipeline, providers)
        for pool in sorted(registry.pools_of(pipeline)):
            own = {n: m for n, m in makers.items() if _pool(pipeline, n) == pool}
            offers.append(Offer(pipeline.name, pipeline.definition_in(pool), own))
    return tuple(offers)


def makers_of(pipeline: Pipeline, providers: Mapping[str, Any]) -> dict[str, str]:
    """The maker of each step that takes a provider with an identity, or needs such a step.

    What workers of other pools make is unknown here. So behind a step's maker stands "*step" for
    each step of another pool on which it depends, through steps of its own pool.
    """
    found: dict[str, str] = {}
    elsewhere: dict[str, set[str]] = {}
    for name in pipeline.order:
        step = pipeline.by_name[name]
        taken = [
            p for p in step.parameters if pipeline.provider_key(p) in providers or p in providers
        ]
        own = {p: identity_of(pipeline.provider(p, providers)) for p in taken}
        own = {p: identity for p, identity in own.items() if identity}
        pool = _pool(pipeline, name)
        near = [need for need in pipeline.needs(step) if _pool(pipeline, need) == pool]
        far = {need for need in pipeline.needs(step) if need not in near}
        elsewhere[name] = far.union(*(elsewhere[need] for need in near))
        needed = {need: found[need] for need in near if need in found}
        if own or needed:
            found[name] = digest([own, needed])[:_SHORT]
        if elsewhere[name]:
            found[name] = found.get(name, "-") + "".join(f"*{n}" for n in sorted(elsewhere[name]))
    return found


def _pool(pipeline: Pipeline, step: str) -> str:
    return pipeline.pool_of(pipeline.by_name[step])
