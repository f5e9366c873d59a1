"""What a worker on this machine would find of the providers of authors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ...config.settings import Settings
from ...domain.errors import StartupError
from ...pipeline.declared_providers import DeclaredProvider
from ...processes.lifecycle import served
from ...worker.own_providers import OwnProviders, checked_settings
from .report import Check, fail, ok, warn

_ADVICE = "docs/pipelines.md#providers-of-your-own"


def check_providers(settings: Settings, *, load: bool) -> Iterator[Check]:
    """Check those that this machine's pipelines take; with `load`, open each for its health."""
    try:
        own = served(settings).own_providers()
    except StartupError:
        return  # the check of the settings reports it
    for declared in own.values():
        name = f"provider {declared.name}"
        checked = checked_settings(declared)
        for line in checked.strangers:
            yield warn(name, line, "mend its name, or remove it")
        if checked.problem:
            yield fail(name, " ".join(checked.problem.split()), _ADVICE)
        elif not load:
            yield ok(name, f"{declared.reference}, its settings are valid; --load opens it")
        else:
            yield asyncio.run(_opened(name, declared, settings))


async def _opened(name: str, declared: DeclaredProvider, settings: Settings) -> Check:
    own = OwnProviders([declared], open_limit=settings.open_limit, close_limit=settings.close_limit)
    try:
        async with own:
            await own.check()
            unhealthy = own.unhealthy.get(declared.name)
    except StartupError as error:
        return fail(name, str(error), _ADVICE)
    if unhealthy:
        return warn(name, f"opens, and is not healthy: {unhealthy}", "mend what it needs")
    return ok(name, f"{declared.reference}, opens and is healthy")
