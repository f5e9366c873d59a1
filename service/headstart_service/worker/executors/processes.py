"""Processes for steps: each runs one at a time, and is killed with a step that is not wanted."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ...base.own_threads import in_own_thread
from ...domain import FailureReason, Progress
from ...domain.errors import StartupError, StepFailed
from ...domain.log_fields import around
from ..progress import REPORTER, TakesReports
from . import child as child_process
from .child_providers import ChildProviders
from .child_socket import command, framed, message, receive
from .code_identity import OtherCode, identities
from .queueing import queueing
from .remote_call import Call, Performed

if TYPE_CHECKING:
    from ...pipeline.step import Step
    from ..cost_meter import CostMeter

log = logging.getLogger(__name__)

_START: Final = 60.0
"""Seconds that a process may take to import its pipelines."""
_NO_PROVIDERS: Final = ChildProviders()
_FIRST_PAUSE: Final = 0.5
_LAST_PAUSE: Final = 15.0
_BIG: Final = 1 << 20
"""Bytes of an answer that are read in a thread, so that the event loop is not kept."""


class ProcessLost(Exception):
    """A step's process ended by itself."""


class Child:
    """One process, with the worker's end of its socket."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        end: socket.socket,
        providers: ChildProviders,
    ) -> None:
        """`end` is this process's end of the socket, or a copy of it."""
        self._process = process
        self._providers = providers
        self._reader = reader
        self._writer = writer
        self._watching = _on_death(process.pid, end)
        self._counted = 0.0
        """CPU seconds that are on a step's meter."""

    @classmethod
    async def start(
        cls,
        modules: Sequence[str],
        providers: ChildProviders = _NO_PROVIDERS,
        prelude: tuple[str, ...] = (),
    ) -> Child:
        """A process that has imported these modules, and opened these providers.

        It calls `prelude` first, a function as module:name with its arguments.
        Raises StartupError when it cannot.
        """
        own = providers.plain if providers.declared else None
        arguments = [os.getpid(), list(modules), own, prelude]
        ours, theirs = socket.socketpair()
        end = ours.dup()
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220, S603  # returns once it is forked
                command(child_process.__name__, theirs.fileno(), *arguments),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a step prints must not mix with the worker's own output
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        try:
            streams = await asyncio.open_connection(sock=ours)
        except BaseException:  # cancelled: nothing else would end the process
            for each in (ours, end):
                each.close()
            process.kill()
            await in_own_thread(process.wait)
            raise
        child = cls(process, *streams, end, providers)
        try:
            async with asyncio.timeout(_START + providers.patience):
                ready = await child._answer()
        except (TimeoutError, ProcessLost) as error:
            raise StartupError(f"a process for steps did not start: {error!r}") from error
        finally:
            if not child._counted:
                await child.kill()
        if ready.trace is not None:
            last = ready.trace.strip().splitlines()[-1]
            raise StartupError(f"a process for steps cannot import its pipelines: {last}")
        if wrong := ready.failure or providers.differences(ready.value or {}):
            await child.kill()
            raise StartupError(f"a process for steps did not start: {wrong}")
        return child

    async def call(self, step: Step, arguments: Mapping[str, Any], meter: CostMeter) -> Any:
        """Run the step there. Raises ProcessLost when the process ends before the step."""
        function = step.function
        try:
            given = self._providers.sent(arguments)
            body = pickle.dumps(given, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise StepFailed(
                f"its inputs cannot be sent to a process: {error}", retry=False
            ) from error
        module = function.__module__
        code = identities([module, *self._providers.modules(arguments)])
        request = message(Call(module, function.__qualname__, code, body, log_fields=around()))
        before = self._counted
        self._writer.write(request)
        done = await self._answer(REPORTER.get())
        meter.cpu_seconds += max(0.0, self._counted - before)
        if done.other_code is not None:
            raise OtherCode(done.other_code, missing=done.missing)
        return done.result()

    async def _answer(self, reporter: TakesReports | None = None) -> Performed:
        """Wait for the end of what it does, and pass on what a step reports before."""
        while True:
            try:
                body = await receive(self._reader)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise ProcessLost from error
            load = pickle.loads  # from a process that runs the same code as this one
            given: Performed | Progress
            given = load(body) if len(body) < _BIG else await in_own_thread(load, body)
            if isinstance(given, Performed):
                self._counted = given.cpu_seconds
                return given
            if reporter is not None:
                reporter.report(given)

    def unpaid(self) -> float:
        """Return the CPU seconds that it has used since its last answer; 0 when it has ended."""
        # What clock_getcpuclockid gives for a process: Linux's encoding of its id.
        with suppress(OSError):
            return max(0.0, time.clock_gettime((~self._process.pid << 3) | 2) - self._counted)
        return 0.0

    async def close(self) -> None:
        """Let it close its providers and end, for as long as they may take; then end it."""
        if self._providers.declared:
            with suppress(TimeoutError, ProcessLost, OSError):
                async with asyncio.timeout(self._providers.farewell):
                    self._writer.write(framed(b""))
                    await self._answer()
        await self.kill()

    async def kill(self) -> tuple[int, float]:
        """End it and all that it has started. Gives its exit code and its unpaid CPU seconds."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._watching()
        self._writer.close()
        spent = await in_own_thread(self._reap)
        return self._process.returncode or 0, max(0.0, spent - self._counted)

    def _reap(self) -> float:
        try:
            _, status, usage = os.wait4(self._process.pid, 0)
        except ChildProcessError:
            return 0.0
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid


class Processes:
    """At most so many processes, each replaced when it is killed or ends by itself."""

    def __init__(
        self,
        limit: int,
        wait: float = 300.0,
        start: Callable[[Sequence[str], ChildProviders], Awaitable[Child]] = Child.start,
    ) -> None:
        """Let a step wait for one of `limit` processes for `wait` seconds at most.

        `start` starts a process that has imported these modules and opened these providers.
        """
        self._limit = limit
        self._wait = wait
        self._start = start
        self._modules: Sequence[str] = ()
        self._providers = _NO_PROVIDERS
        self._free: asyncio.Queue[Child] = asyncio.Queue()
        self._all: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._prepared = False

    async def prepare(
        self, modules: Sequence[str], providers: ChildProviders = _NO_PROVIDERS
    ) -> None:
        """Start them all, with these modules imported and providers opened.

        Raises StartupError when one cannot.
        """
        self._prepared = True
        self._modules, self._providers = modules, providers
        started = await asyncio.gather(
            *(self._start(modules, providers) for _ in range(self._limit)), return_exceptions=True
        )
        for each in started:
            if not isinstance(each, BaseException):
                self._all.add(each)
                self._free.put_nowait(each)
        for each in started:
            if isinstance(each, BaseException):
                raise each
        log.info("%d processes for steps", self._limit)

    async def call(
        self,
        step: Step,
        arguments: Mapping[str, Any],
        meter: CostMeter,
        begin: Callable[[], None] = lambda: None,
    ) -> Any:
        """Run the step in a process, as soon as one is free; call `begin` then.

        Cancelled, it kills that process. Raises StepFailed when no process becomes free, or when
        it ends before the step does. Raises OtherCode when it has imported other code than this
        one, because the code has changed on disk.
        """
        if not self._prepared:
            await self.prepare([step.function.__module__])
        async with queueing(self._wait, "process"):
            child = await self._free.get()
        begin()
        kept = False
        try:
            try:
                value = await child.call(step, arguments, meter)
            except (ProcessLost, asyncio.CancelledError):
                raise
            except Exception:
                kept = True
                raise
            kept = True
        except ProcessLost:
            code, spent = await child.kill()
            meter.cpu_seconds += spent
            lost = FailureReason.WORKER_LOST
            raise StepFailed(f"its process {_ended(code)}", failure_reason=lost) from None
        except asyncio.CancelledError:
            meter.cpu_seconds += child.unpaid()
            log.warning("%s is killed with its process %d", step.name, child.pid)
            raise
        else:
            return value
        finally:
            if kept:
                self._free.put_nowait(child)
            else:
                task = asyncio.create_task(self._replace(child), name="replace a step's process")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End all processes."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(child.close() for child in self._all))
        self._all.clear()

    async def _replace(self, child: Child) -> None:
        await child.kill()
        # Not before: where this is cancelled, `aclose` still ends the process.
        self._all.discard(child)
        pause = _FIRST_PAUSE
        while True:
            try:
                started = await self._start(self._modules, self._providers)
            except (StartupError, OSError) as error:
                log.error("%s; next try in %g s", error, pause)  # noqa: TRY400  # no news in the trace
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)
            else:
                self._all.add(started)
                self._free.put_nowait(started)
                return


def _on_death(pid: int, end: socket.socket) -> Callable[[], None]:
    """Close `end` for reading as soon as the process ends; returns what ends the watch.

    What it has started may keep the other end open. What it has sent is still received.
    """
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)

    def close() -> None:
        if end.fileno() >= 0:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            end.close()

    def died() -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RD)
        close()

    loop.add_reader(descriptor, died)
    return close


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
