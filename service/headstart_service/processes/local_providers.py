"""Opens the providers of a pipeline that runs in this process alone, without Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import Any

from ..base.extras import install
from ..config.limits_file import LimitsFile
from ..config.settings import Settings
from ..domain.errors import PackageMissing
from ..pipeline.declared_providers import declared_providers
from ..providers.local_permits import LocalPermits
from ..telemetry.metrics.providers import ProviderMetrics
from ..telemetry.metrics.work import ModelMetrics
from ..worker.own_providers import OwnProviders
from .compute_threads import limit_threads
from .governors import Governors

_NO_PROVIDERS: Mapping[str, Any] = {}


@asynccontextmanager
async def open_local_providers(
    settings: Settings, wanted: AbstractSet[str]
) -> AsyncIterator[Mapping[str, Any]]:
    """Open the wanted providers as a worker does, governed by this process's own permits.

    Raises StartupError about what a provider lacks, such as a package or a prepared model.
    """
    if not wanted:
        yield _NO_PROVIDERS
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
    declared = declared_providers(settings.providers)
    own = OwnProviders(
        [each for name, each in declared.items() if name in wanted],
        open_limit=settings.open_limit,
        close_limit=settings.close_limit,
    )
    async with (
        open_providers(settings, wanted, ModelMetrics(), None, governors) as providers,
        own,
    ):
        try:
            yield {**providers, **own.values}
        finally:
            governors.drain()
