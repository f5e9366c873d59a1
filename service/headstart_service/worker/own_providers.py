"""The providers of authors that this process has opened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from ..domain.errors import StartupError
from ..pipeline.declared_providers import DeclaredProvider
from .opened_provider import OpenedProvider

log = logging.getLogger(__name__)

_CHECK_EVERY: Final = 5.0
"""Seconds between two questions for each provider's health."""


@dataclass(frozen=True, slots=True)
class CheckedSettings:
    """What is known of a provider before it is opened."""

    problem: str = ""
    """Why it cannot be loaded or has wrong settings; empty if it can be opened."""
    strangers: tuple[str, ...] = ()
    """A line about each variable that resembles one of its settings and is none."""


def checked_settings(declared: DeclaredProvider) -> CheckedSettings:
    """Import a provider's module and read its settings."""
    try:
        return CheckedSettings(strangers=tuple(OpenedProvider(declared).strangers()))
    except StartupError as error:
        return CheckedSettings(str(error))


class OwnProviders:
    """Opens providers one by one, watches their health, and closes all at once.

    Use it as an async context manager. Entering raises StartupError about the first that cannot be
    opened, once those before it are closed. Leaving takes no longer than the limit for closing.
    """

    def __init__(
        self,
        declared: Iterable[DeclaredProvider],
        *,
        open_limit: float,
        close_limit: float,
        check_every: float = _CHECK_EVERY,
    ) -> None:
        """Open each of `declared` within `open_limit` seconds, close all within `close_limit`."""
        self._declared = sorted(declared, key=lambda each: each.name)
        self._open_limit = open_limit
        self._close_limit = close_limit
        self._check_every = check_every
        self._opened: list[OpenedProvider] = []
        self._checking: asyncio.Task[None] | None = None

    @property
    def values(self) -> Mapping[str, Any]:
        """What steps get, by the name of their parameter."""
        return {each.declared.name: each.value for each in self._opened}

    @property
    def identities(self) -> Mapping[str, str]:
        """The identity of each provider."""
        return {each.declared.name: each.identity for each in self._opened}

    @property
    def unhealthy(self) -> Mapping[str, str]:
        """Why each provider that is not healthy is so, by name."""
        return {each.declared.name: each.problem for each in self._opened if each.problem}

    @property
    def health(self) -> Mapping[str, bool]:
        """Whether each is healthy, by name."""
        return {each.declared.name: not each.problem for each in self._opened}

    @property
    def problem(self) -> str:
        """What is wrong, in one line that anybody may read; empty when all are healthy."""
        names = ", ".join(self.unhealthy)
        return f"not healthy: provider {names}, see the log" if names else ""

    async def __aenter__(self) -> Self:
        # First all settings: what is wrong with them is known before anything is opened.
        providers = [OpenedProvider(each) for each in self._declared]
        for line in (line for each in providers for line in each.strangers()):
            log.warning("%s", line)
        loop = asyncio.get_running_loop()
        try:
            for each in providers:
                began = loop.time()
                self._opened.append(each)
                await each.open(self._open_limit)
                log.info("%s is open after %.1f s", each.declared, loop.time() - began)
        except BaseException:
            await self._close()
            raise
        if self._opened:
            self._checking = asyncio.create_task(self._check(), name="health of providers")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})
        await self._close()

    async def check(self) -> None:
        """Ask each for its health now."""
        await asyncio.gather(*(each.check() for each in self._opened))

    async def _check(self) -> None:
        while True:
            await self.check()
            await asyncio.sleep(self._check_every)

    async def _close(self) -> None:
        closing = [asyncio.create_task(each.close(self._close_limit)) for each in self._opened]
        if closing:
            await asyncio.wait(closing)
        self._opened.clear()
