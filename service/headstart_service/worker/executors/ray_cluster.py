"""Steps on a Ray cluster, by way of a process that is connected to it (`ray_driver`)."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import os
import pickle
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ...base.extras import install
from ...base.own_threads import in_own_thread
from ...domain import FailureReason
from ...domain.errors import ExecutorUnavailable, StartupError, StepFailed
from ...pipeline.ray_options import RayOptions
from . import ray_driver
from .child_socket import command, message, receive
from .code_identity import identities
from .ray_messages import Answer, Request
from .remote_call import Call, Performed

if TYPE_CHECKING:
    from ...pipeline.step import Step
    from ..cost_meter import CostMeter

log = logging.getLogger(__name__)

_CONNECT: Final = 60.0
"""Seconds that one attempt to connect may take: Ray itself waits for minutes."""
_ACCEPT: Final = 3.0
"""Seconds that the cluster's port has to accept a connection."""
_QUIET: Final = 5.0
"""Seconds of an attempt after which it is reported that it still waits."""
_WARN_EVERY: Final = 30.0
_FIRST_PAUSE: Final = 0.5
_LAST_PAUSE: Final = 5.0
_PROBE_EVERY: Final = 10.0
"""Seconds between comparisons of the code while no node has a step's."""
_LEAVE: Final = 5.0
"""Seconds that the process has to end its actors and leave the cluster."""
_BIG: Final = 1 << 20
"""Bytes of a value that are read in a thread, so that the event loop is not kept."""


class RayAway(Exception):
    """There is no connection to Ray; the message is the reason."""


class DriverProcess:
    """The process that is connected to Ray, with the worker's end of its socket."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._requests: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        self.gone = asyncio.Event()
        self.reason = "its process has ended"
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, address: str | None) -> DriverProcess:
        """Start a process that has not connected yet."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220, S603  # returns once it is forked
                command(ray_driver.__name__, theirs.fileno(), os.getpid(), address),
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def connected(self) -> None:
        """Wait until it is connected. Raises RayAway when it cannot be."""
        try:
            answer = await self._answer()
        except (asyncio.IncompleteReadError, OSError) as error:
            raise RayAway(self.reason) from error
        if answer.refused:
            raise RayAway(answer.refused)
        self._reading = asyncio.create_task(self._read(), name="read from Ray's process")

    async def ask(self, request: Request) -> Answer:
        """Return what becomes of a request; cancelled, it cancels the task or actor there.

        Raises RayAway when the connection ends first.
        """
        if self.gone.is_set():
            raise RayAway(self.reason)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests[request.number] = answer
        self._write(request)
        try:
            return await answer
        except asyncio.CancelledError:
            if not self.gone.is_set():
                self._write(Request(number=request.number))
            raise
        finally:
            self._requests.pop(request.number, None)

    def number(self) -> int:
        """Return a number for the next request."""
        return next(self._numbers)

    async def kill(self, *, after: float = 0.0) -> None:
        """End it by force, `after` seconds in which it may end by itself."""
        if self._reading is not None:
            self._reading.cancel()
        self._writer.close()
        with suppress(subprocess.TimeoutExpired):
            if after:
                await in_own_thread(self._process.wait, after)
        with suppress(ProcessLookupError):  # a cluster of its own belongs to its group
            os.killpg(self._process.pid, signal.SIGKILL)
        await in_own_thread(self._process.wait)

    def _write(self, request: Request) -> None:
        self._writer.write(message(request))

    async def _answer(self) -> Answer:
        answer: Answer = pickle.loads(await receive(self._reader))  # noqa: S301  # our own process's
        return answer

    async def _read(self) -> None:
        try:
            while True:
                answer = await self._answer()
                if not answer.number:
                    self.reason = answer.refused
                    break
                future = self._requests.get(answer.number)
                if future is not None and not future.done():
                    future.set_result(answer)
        except (asyncio.IncompleteReadError, OSError, pickle.UnpicklingError):
            pass
        finally:
            self.gone.set()
            for future in self._requests.values():
                if not future.done():
                    future.set_exception(RayAway(self.reason))


class RayCluster:
    """Keeps a connection to Ray, whose nodes must be able to import the pipelines' modules.

    It connects again whenever the connection is lost, and compares the nodes' code with its own.
    """

    def __init__(
        self,
        address: str | None,
        steps: Collection[Step],
        changed: Callable[[], None],
        start: Callable[[str | None], Awaitable[DriverProcess]] = DriverProcess.start,
    ) -> None:
        """Serve `steps` at `address`; None for what Ray finds itself, or starts here.

        `changed` is called whenever a step becomes available or unavailable. `start` starts a
        process that connects to an address.
        """
        self._address = address
        self._steps = tuple(steps)
        self._changed = changed
        self._start = start
        self._driver: DriverProcess | None = None
        self._away = "it has not been reached yet"
        self._refusals: dict[Callable[..., Any], Answer] = {}
        self._refused = asyncio.Event()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping: asyncio.Task[None] | None = None
        self._warned = -_WARN_EVERY

    async def start(self) -> None:
        """Try to connect once, and keep trying.

        Raises StartupError when Ray is not installed, or no node can import a step's module.
        """
        if importlib.util.find_spec("ray") is None:
            raise StartupError(
                f"a step has runs_on='ray', and Ray is not installed: {install('ray')}"
            )
        self._keeping = asyncio.create_task(self._keep(), name="keep Ray's connection")
        await asyncio.wait({self._first, self._keeping}, return_when=asyncio.FIRST_COMPLETED)
        if self._keeping.done():
            self._keeping.result()
        for function, answer in self._refusals.items():
            if answer.missing:
                raise StartupError(
                    f"HEADSTART_RAY_ADDRESS: no node of Ray can run step {function.__name__}: "
                    f"{answer.refused}; install the package there, or name it in the step's "
                    "runtime_env"
                )

    def unavailable(self, step: Step) -> str | None:
        """Return why the step cannot run now; None when it can."""
        if self._driver is None:
            return f"Ray is away: {self._away}"
        answer = self._refusals.get(step.function)
        if answer is None:
            return None
        return f"no node of Ray has the code of step {step.name}: {answer.refused}"

    async def call(self, step: Step, arguments: Mapping[str, Any], meter: CostMeter) -> Any:
        """Run the step on Ray. Cancelled, it ends its task or actor there by force.

        Raises StepFailed when Ray loses it; ExecutorUnavailable when Ray is away or lost with it,
        or its nodes have other code.
        """
        reason, driver = self.unavailable(step), self._driver
        if reason is not None or driver is None:
            raise ExecutorUnavailable(reason or "")
        try:
            body = pickle.dumps(dict(arguments), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise StepFailed(f"its inputs cannot be sent to Ray: {error}", retry=False) from error
        try:
            answer = await driver.ask(request_for(step, driver.number(), body))
        except RayAway as error:
            raise ExecutorUnavailable(f"Ray was lost while it ran: {error}", began=True) from error
        except asyncio.CancelledError:
            log.warning("%s is cancelled on Ray", step.name)
            raise
        if answer.refused:
            self._refusals[step.function] = answer
            self._refused.set()
            self._changed()
            raise ExecutorUnavailable(self.unavailable(step) or answer.refused)
        if answer.lost:
            raise StepFailed(answer.lost, failure_reason=FailureReason.WORKER_LOST)
        load = pickle.loads  # from nodes that run the same code as this process
        big = len(answer.done) >= _BIG
        done: Performed = await in_own_thread(load, answer.done) if big else load(answer.done)
        meter.cpu_seconds += done.cpu_seconds
        return done.result()

    async def aclose(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                driver = await self._connect()
            except RayAway as away:
                self._set_away(str(away))
                if not self._first.done():
                    self._first.set_result(None)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            try:
                await self._serve(driver)
            finally:
                self._driver = None
                await driver.kill(after=0.0 if driver.gone.is_set() else _LEAVE)

    async def _connect(self) -> DriverProcess:
        """Connect once, and compare the code. Raises RayAway."""
        await refuse_closed(self._address)
        driver = await self._start(self._address)
        try:
            async with asyncio.timeout(_CONNECT):
                connecting = asyncio.create_task(driver.connected(), name="connect to Ray")
                try:
                    _, late = await asyncio.wait({connecting}, timeout=_QUIET)
                    if late:
                        self._warn(f"no connection after {_QUIET:g} s")
                    await connecting
                finally:
                    connecting.cancel()
            self._refusals = await self._probed(driver)
        except TimeoutError:
            await driver.kill()
            raise RayAway(f"no connection within {_CONNECT:g} s") from None
        except BaseException:
            await driver.kill()
            raise
        return driver

    async def _serve(self, driver: DriverProcess) -> None:
        """Offer what the nodes have the code of, until the connection is lost."""
        self._driver = driver
        self._warned = -_WARN_EVERY
        log.info("connected to Ray at %s", self._address or "its default")
        if not self._first.done():
            self._first.set_result(None)
        self._report()
        while not driver.gone.is_set():
            waits = [asyncio.create_task(driver.gone.wait())]
            if not self._refusals:
                waits.append(asyncio.create_task(self._refused.wait()))
            try:
                await asyncio.wait(
                    waits,
                    timeout=_PROBE_EVERY if self._refusals else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                for each in waits:
                    each.cancel()
            if self._refused.is_set():
                self._refused.clear()
                continue
            with suppress(RayAway):
                before, self._refusals = self._refusals, await self._probed(driver)
                if before != self._refusals:
                    self._report()
        self._driver = None
        self._set_away(driver.reason)

    async def _probed(self, driver: DriverProcess) -> dict[Callable[..., Any], Answer]:
        """Return of each step whose code no node has why not."""
        requests = [request_for(step, driver.number(), probe=True) for step in self._steps]
        answers = await asyncio.gather(*map(driver.ask, requests))
        return {s.function: a for s, a in zip(self._steps, answers, strict=True) if a.refused}

    def _report(self) -> None:
        for step in self._steps:
            if step.function in self._refusals:
                log.error("%s", self.unavailable(step))
        self._changed()

    def _set_away(self, reason: str) -> None:
        changed = reason != self._away
        self._away = reason
        self._warn(reason)
        if changed:
            self._changed()

    def _warn(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            where = self._address or "its default"
            log.warning("waiting for Ray at %s, steps on it wait too: %s", where, reason)


async def refuse_closed(address: str | None) -> None:
    """Raise RayAway when nothing listens at the address: far sooner than Ray does."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        async with asyncio.timeout(_ACCEPT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        raise RayAway(f"{address} did not answer within {_ACCEPT:g} s") from None
    except OSError as error:
        raise RayAway(f"{address} does not accept connections: {error}") from error
    writer.close()


def request_for(step: Step, number: int, arguments: bytes = b"", *, probe: bool = False) -> Request:
    """Return the request that runs a step with pickled arguments, or compares its code."""
    options = step.ray or RayOptions()
    function, actor = step.function, options.actor
    modules = [function.__module__, *([actor.__module__] if actor else [])]
    call = Call(
        function.__module__,
        function.__qualname__,
        identities(modules),
        arguments,
        (actor.__module__, actor.__qualname__) if actor else None,
    )
    return Request(
        number=number,
        label=step.name,
        call=call,
        options=options.wanted(),
        actors=options.actors,
        probe=probe,
    )
