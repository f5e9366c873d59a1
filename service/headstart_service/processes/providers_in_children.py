"""The providers that processes for steps open for themselves."""

from __future__ import annotations

from collections.abc import Iterable

from ..config.settings import Settings
from ..pipeline.declared_providers import DeclaredProvider
from ..worker.executors.child_providers import ChildProviders
from ..worker.own_providers import OwnProviders


def in_children(
    settings: Settings, declared: Iterable[DeclaredProvider], own: OwnProviders
) -> ChildProviders:
    """Return what processes for steps open of `declared`, which are open here as `own`."""
    declared = tuple(declared)
    return ChildProviders(
        declared=declared,
        identities={each.name: own.identities[each.name] for each in declared},
        open_limit=settings.open_limit,
        close_limit=settings.close_limit,
    )
