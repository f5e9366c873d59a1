"""One provider of an author's, opened for this process, in a task of its own until it is closed.

Its context is entered and left by one task, as cancel scopes and task groups demand. That task can
be left behind: a provider that does not close keeps neither the drain nor the other providers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..base.exit_codes import WRONG_ARGUMENTS
from ..config.settings_model import ReadSettings, read_settings
from ..domain.errors import StartupError
from ..pipeline.declared_providers import DeclaredProvider
from ..pipeline.identity import identity_of
from ..pipeline.provider_factory import ProviderFactory, load_factory

log = logging.getLogger(__name__)

_HEALTH_LIMIT: Final = 5.0
"""Seconds that a provider's health check may take."""
_GRACE: Final = 1.0
"""Seconds that a cancelled provider has to end."""
_BLOCKED: Final = 5.0
"""Seconds beyond its limit after which a provider that opens holds the event loop."""
_SHOWN: Final = 300


class OpenedProvider:
    """A provider from before its opening until it is closed."""

    def __init__(self, declared: DeclaredProvider) -> None:
        """Load its factory and read its settings. Raises StartupError about what is wrong."""
        self.declared = declared
        self._factory: ProviderFactory = load_factory(declared)
        self._settings: ReadSettings | None = None
        if self._factory.settings is not None:
            whose = f"provider {declared.name}"
            self._settings = read_settings(self._factory.settings, declared.prefix, whose)
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._value: Any = None
        self.problem = ""
        """Why it is not healthy; empty while it is, as far as is known."""

    def strangers(self) -> Iterator[str]:
        """Yield a line about each variable that resembles one of its settings and is none."""
        for name, near in self._settings.unknown(os.environ) if self._settings else ():
            advice = f": did you mean {near}?" if near else ""
            yield f"{name} is no setting of provider {self.declared.name}{advice}"

    @property
    def value(self) -> Any:
        """What steps get."""
        return self._value

    @property
    def identity(self) -> str:
        """What its answers depend on beside the question. Raises StartupError for a wrong one."""
        try:
            return identity_of(self._value)
        except StartupError as error:
            raise StartupError(f"{self.declared}: {error}") from error

    async def open(self, limit: float) -> None:
        """Open it and warm it up, within `limit` seconds.

        Raises StartupError, which names it and the reason, when it cannot.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()
        opened.add_done_callback(asyncio.Future.exception)  # also of one that is left
        # A task of its own: what a task group of the provider raises, or cancels, stays in it.
        self._task = loop.create_task(self._live(opened), name=f"provider {self.declared.name}")
        with _watched(self.declared, limit):
            await asyncio.wait({opened}, timeout=limit)
        if not opened.done():
            await self._abandon()
            raise StartupError(
                f"{self.declared}: did not open within {limit:g} s; HEADSTART_OPEN_LIMIT allows "
                "more"
            )
        if (error := opened.exception()) is not None:
            raise StartupError(f"{self.declared}: cannot open: {self._line(error)}") from error
        self._value = opened.result()
        _ = self.identity  # a wrong one must not surprise the first run

    async def check(self) -> None:
        """Ask for its health, and log each change of it."""
        try:
            async with asyncio.timeout(_HEALTH_LIMIT):
                found = await self._health()
        except TimeoutError:
            found = f"does not tell its health within {_HEALTH_LIMIT:g} s"
        except Exception as error:  # noqa: BLE001  # an author's code may raise anything
            found = self._line(error)
        before, self.problem = self.problem, found
        if found and not before:
            log.error("provider %s is not healthy: %s", self.declared.name, found)
        elif before and not found:
            log.info("provider %s is healthy again", self.declared.name)

    async def close(self, limit: float) -> None:
        """Close it, within `limit` seconds; logs what goes wrong, and never raises it."""
        if self._task is None:
            return
        self._closing.set()
        await asyncio.wait({self._task}, timeout=limit)
        if not self._task.done():
            log.error(
                "provider %s did not close within %g s and is left", self.declared.name, limit
            )
            await self._abandon()

    async def _live(self, opened: asyncio.Future[Any]) -> None:
        name = self.declared.name
        try:
            context = self._factory.make(self._settings.values if self._settings else None)
            async with context as value:
                if (warm := _method(value, "warm")) is not None:
                    await warm()
                if not opened.done():
                    opened.set_result(value)
                await self._closing.wait()
        except asyncio.CancelledError as error:
            if not opened.done():
                opened.set_exception(_carried(error))
            elif not self._closing.is_set():
                self._ended("it was cancelled")
        except BaseException as error:  # noqa: BLE001  # an author's code may raise anything
            if not opened.done():
                opened.set_exception(_carried(error))
            elif self._closing.is_set():
                log.error("provider %s failed to close: %s", name, self._line(error))  # noqa: TRY400
            else:
                self._ended(self._line(error))
        else:
            log.debug("provider %s is closed", name)

    def _ended(self, why: str) -> None:
        self.problem = f"it ended by itself: {why}"
        log.error("provider %s is not healthy: %s", self.declared.name, self.problem)

    async def _health(self) -> str:
        if self._task is None or self._task.done():
            return self.problem
        method = _method(self._value, "health")
        if method is None:
            return ""
        found = method()
        if inspect.isawaitable(found):
            found = await found
        if found is None or found is True or found == "":
            return ""
        return self._hidden("it says so" if found is False else str(found))

    async def _abandon(self) -> None:
        """Cancel its task, and leave it behind if it goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_GRACE)
            if not self._task.done():
                # Else the end of the event loop would wait for it: it waits for all tasks it knows.
                asyncio.tasks._unregister_task(self._task)  # noqa: SLF001  # documented for loops

    def _line(self, error: BaseException) -> str:
        """Return an error in one line, without secrets."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        while isinstance(error, _NotAnException) and error.__cause__ is not None:
            error = error.__cause__
        text = " ".join(str(error).split())
        return self._hidden(f"{type(error).__name__}: {text}" if text else type(error).__name__)

    def _hidden(self, text: str) -> str:
        shown = self._settings.hidden(text) if self._settings else text
        return shown[:_SHOWN]


class _NotAnException(Exception):
    """Carries what is no Exception, such as what sys.exit() raises: it would end the event loop."""


def _carried(error: BaseException) -> Exception:
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    carrier = _NotAnException(str(error))
    carrier.__cause__ = error
    return carrier


def _method(value: Any, name: str) -> Any:
    """Return the method of this name that the value's class declares; None without one.

    Proxies and mocks have every attribute that is asked for, so the class is looked at.
    """
    declared = inspect.getattr_static(type(value), name, None)
    return getattr(value, name) if callable(getattr(declared, "__func__", declared)) else None


@contextmanager
def _watched(declared: DeclaredProvider, limit: float) -> Iterator[None]:
    """End this process when the event loop stands still beyond the limit: nothing else can."""

    def end() -> None:
        message = f"{declared}: blocks the event loop and did not open within {limit:g} s"
        with suppress(OSError, ValueError):
            print(f"headstart: {message}", file=sys.stderr, flush=True)
        os._exit(WRONG_ARGUMENTS)

    timer = threading.Timer(limit + _GRACE + _BLOCKED, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
