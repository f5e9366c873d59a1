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
    """The offers of a worker that has these pipelines and providers."""
    return tuple(
        Offer(pipeline.name, pipeline.definition, makers_of(pipeline, providers))
        for pipeline in registry
    )


def makers_of(pipeline: Pipeline, providers: Mapping[str, Any]) -> dict[str, str]:
    """The maker of each step that takes a provider with an identity, or needs such a step."""
    found: dict[str, str] = {}
    for name in pipeline.order:
        step = pipeline.by_name[name]
        taken = [
            p for p in step.parameters if pipeline.provider_key(p) in providers or p in providers
        ]
        own = {p: identity_of(pipeline.provider(p, providers)) for p in taken}
        own = {p: identity for p, identity in own.items() if identity}
        needed = {need: found[need] for need in pipeline.needs(step) if need in found}
        if own or needed:
            found[name] = digest([own, needed])[:_SHORT]
    return found
