"""Opens the providers of a pipeline that runs in this process alone, without Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ..base.extras import install
from ..config.limits_file import LimitsFile
from ..config.settings import Settings
from ..domain.errors import PackageMissing
from ..pipeline.declared_providers import declared_providers
from ..providers.local_permits import LocalPermits
from ..telemetry.metrics.providers import ProviderMetrics
from ..telemetry.metrics.work import ModelMetrics
from ..worker.executors.child_providers import ChildProviders
from ..worker.own_providers import OwnProviders
from .compute_threads import limit_threads
from .governors import Governors
from .providers_in_children import in_children


@dataclass(frozen=True, slots=True)
class LocalProviders:
    """The providers that are open in this process."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """By name."""
    in_children: ChildProviders = field(default_factory=ChildProviders)
    """Those that each process for steps opens for itself."""


@asynccontextmanager
async def open_local_providers(
    settings: Settings, wanted: AbstractSet[str]
) -> AsyncIterator[LocalProviders]:
    """Open the wanted providers as a worker does, governed by this process's own permits.

    Raises StartupError about what a provider lacks, such as a package or a prepared model.
    """
    if not wanted:
        yield LocalProviders()
        return
    limit_threads(settings.compute_threads)
    try:
        from .worker_providers import open_providers  # brings numpy
    except ImportError as error:
        raise PackageMissing(
            f"steps take {', '.join(sorted(wanted))}, which needs {error.name}, which is not "
            f"installed: {install('worker')}"
        ) from error
    limits = LimitsFile(settings.limits)
    governors = Governors(LocalPermits(), limits, settings.step_wait, ProviderMetrics())
    registered = declared_providers(settings.providers)
    declared = [each for name, each in registered.items() if name in wanted]
    own = OwnProviders(
        declared,
        open_limit=settings.open_limit,
        close_limit=settings.close_limit,
    )
    async with (
        open_providers(settings, wanted, ModelMetrics(), None, governors) as providers,
        own,
    ):
        try:
            children = in_children(settings, declared, own)
            yield LocalProviders({**providers, **own.values}, children)
        finally:
            governors.drain()
