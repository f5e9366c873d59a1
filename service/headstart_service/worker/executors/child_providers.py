"""The providers of authors that steps in processes take: each process opens its own.

A provider cannot be sent to another process. What is sent instead is its name, which unpickles
there as that process's own provider.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ...pipeline.declared_providers import DeclaredProvider
from ..own_providers import OwnProviders

Plain: TypeAlias = tuple[tuple[tuple[str, str, str], ...], float, float]
"""What a command line can carry of them."""
_LEAVE: Final = 3.0
"""Seconds beyond the limit for closing that a process has to end."""

_here: dict[str, Any] = {}
"""In a process for steps: its own providers, by name."""


@dataclass(frozen=True, slots=True)
class ChildProviders:
    """What each process for steps opens. Durations in seconds."""

    declared: Collection[DeclaredProvider] = ()
    identities: Mapping[str, str] = field(default_factory=dict)
    """The identity that each has in the worker, and must have there."""
    open_limit: float = 0.0
    close_limit: float = 0.0

    @property
    def patience(self) -> float:
        """How long a process may take to open them."""
        return len(self.declared) * self.open_limit

    @property
    def farewell(self) -> float:
        """How long a process may take to close them, and to end."""
        return self.close_limit + _LEAVE

    @property
    def plain(self) -> Plain:
        """The same, for a command line."""
        declared = tuple((each.name, each.reference, each.source) for each in self.declared)
        return declared, self.open_limit, self.close_limit

    def modules(self, names: Collection[str]) -> set[str]:
        """Return the modules of those that have one of these names."""
        return {each.module for each in self.declared if each.name in names}

    def sent(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a step's arguments with a name in each provider's place."""
        own = {each.name for each in self.declared}
        return {n: InChild(n) if n in own else value for n, value in arguments.items()}

    def differences(self, found: Mapping[str, str]) -> str:
        """Return which providers have another identity in a process; empty if none has."""
        return "; ".join(
            f"provider {name} has the identity {found.get(name)!r} in a process for steps, and "
            f"{wanted!r} in the worker: must be the same everywhere"
            for name, wanted in self.identities.items()
            if found.get(name) != wanted
        )


class InChild:
    """Stands for a provider on the way to a process for steps."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _opened_here, (self._name,)


class HostedProviders:
    """The providers of this process, which is one for steps, on an event loop in a thread."""

    def __init__(self, plain: Plain) -> None:
        """Open them. Raises StartupError about the first that cannot be opened."""
        declared, open_limit, self._close_limit = plain
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="providers", daemon=True).start()
        own = [DeclaredProvider(*each) for each in declared]
        self._own = OwnProviders(own, open_limit=open_limit, close_limit=self._close_limit)
        self._run(self._own.__aenter__()).result()
        _here.update(self._own.values)

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each."""
        return dict(self._own.identities)

    def close(self) -> None:
        """Close them, within their limit."""
        with suppress(TimeoutError):
            self._run(self._own.__aexit__(None, None, None)).result(self._close_limit + _LEAVE)

    def _run(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def _opened_here(name: str) -> Any:
    return _here[name]
