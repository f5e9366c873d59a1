"""The process that is connected to Ray for a worker. It ends when its worker or its Ray does.

Ray takes a process's signals, and ends the process when its cluster stays away: it must not be the
worker's. The worker sends a `Request` each, and receives `Answer`s.
"""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from .child_socket import end_with, message, receive
from .ray_messages import Answer, Request, WorkerLink
from .remote_call import Call, Performed, packed

_CHECK_EVERY: Final = 2.0
_CHECK_LIMIT: Final = 10.0
_PROBE_LIMIT: Final = 30.0
"""Seconds that nodes have to compare their code; those that do not answer are not judged."""
_BAR: Final = 30.0
"""Seconds for which a node with other code is passed over."""
_NODE_LABEL: Final = "ray.io/node-id"


def main(descriptor: int, parent: int, address: str | None) -> None:
    """Connect to Ray at `address`, and serve the worker `parent` at this socket's other end."""
    end_with(parent)
    connection = socket.socket(fileno=descriptor)
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]  # an extra

        own: dict[str, Any] = {} if address else {"include_dashboard": False}
        ray.init(address=address, configure_logging=False, log_to_driver=False, **own)
        driver = Driver(ray)
        where = _whereabouts(ray)
    except BaseException as error:  # noqa: BLE001  # Ray raises SystemExit, too
        text = f"{type(error).__name__}: {error}".strip()[:500]
        with suppress(OSError):
            connection.sendall(message(Answer(number=0, refused=text)))
        os._exit(1)
    # Undo Ray's own signal handlers: the worker decides when this process ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def serve() -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        link = WorkerLink(writer)
        threading.Thread(
            target=_watch, args=(ray, *where, link), name="watch Ray", daemon=True
        ).start()
        await driver.serve(reader, link)

    asyncio.run(serve())
    ray.shutdown()


_Reply: TypeAlias = tuple[str, str, str, bool, bytes]
"""A node's id and its host, why it refused, whether for want of the code, and its Performed."""


def _on_node() -> Callable[[bytes, dict[Any, Any]], _Reply]:
    """Return the function that runs on nodes.

    Ray sends it by value, as no module has its name: so it can report that a node lacks Headstart.
    """

    def run(request: bytes, instances: dict[Any, Any]) -> tuple[str, str, str, bool, bytes]:
        import pickle
        import platform

        import ray

        node, host = ray.get_runtime_context().get_node_id(), platform.node()
        try:
            from headstart_service.worker.executors.remote_call import packed, perform_call
        except ImportError as error:
            return node, host, f"cannot import headstart_service: {error}", True, b""
        done = perform_call(pickle.loads(request), instances)  # noqa: S301  # our own worker's
        if done.other_code is not None:
            return node, host, done.other_code, done.missing, b""
        return node, host, "", False, packed(done)

    return run


@dataclass(slots=True)
class _Bar:
    """A node that does not have some code."""

    text: str
    missing: bool
    until: float


@dataclass(slots=True)
class _Actors:
    """The actors of one class and one set of options."""

    free: asyncio.Semaphore
    idle: list[Any] = field(default_factory=list)


class Driver:
    """Serves one worker's requests by tasks and actors of Ray."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        run = _on_node()

        def on_task(request: bytes) -> _Reply:
            return run(request, {})

        class StepActor:
            def __init__(self) -> None:
                self._instances: dict[Any, Any] = {}

            def run(self, request: bytes) -> _Reply:
                return run(request, self._instances)

        self._task = ray.remote(max_retries=0)(on_task)
        self._actor = ray.remote(max_restarts=0, max_task_retries=0)(StepActor)
        self._noop = ray.remote(num_cpus=0, max_retries=0)(lambda: None)
        self._noop.remote()  # Ray stores the function now, rather than while it shuts down
        self._bars: dict[tuple[Any, ...], dict[str, _Bar]] = {}
        self._actors: dict[tuple[Any, ...], _Actors] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader, link: WorkerLink) -> None:
        """Serve until the worker closes the socket."""
        link.send(Answer(number=0))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request: Request = pickle.loads(await receive(reader))  # noqa: S301  # our worker's
                if request.call is None:
                    if (task := self._tasks.get(request.number)) is not None:
                        task.cancel()
                    continue
                task = asyncio.create_task(self.handle(request, link), name=request.label)
                self._tasks[request.number] = task
                task.add_done_callback(functools.partial(self._forget, request.number))
        left = list(self._tasks.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for pool in self._actors.values():
            for actor in pool.idle:
                self._ray.kill(actor)

    def _forget(self, number: int, _: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)

    async def handle(self, request: Request, link: WorkerLink) -> None:
        """Run a request, and send what becomes of it. Ends this process when Ray has gone."""
        assert request.call is not None
        try:
            if request.probe:
                answer = await self._probe(request, request.call)
            else:
                answer = await self.run(request, request.call)
        except self._ray.exceptions.LocalRayletDiedError as error:
            link.give_up(f"{type(error).__name__}")
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            text = f"Ray cannot set up its runtime_env: {_last_line(error)}"
            answer = Answer(number=request.number, lost=text)
        except self._ray.exceptions.RayTaskError as error:
            answer = Answer(number=request.number, done=packed(Performed(trace=str(error))))
        except self._ray.exceptions.RayError as error:
            if not await self._answers():
                link.give_up(f"{type(error).__name__}")
            answer = Answer(number=request.number, lost=f"Ray lost it: {type(error).__name__}")
        except ConnectionError as error:
            link.give_up(f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001  # for the worker's log
            trace = f"{type(error).__name__}: {error}"
            answer = Answer(number=request.number, done=packed(Performed(trace=trace)))
        link.send(answer)

    async def run(self, request: Request, call: Call) -> Answer:
        """Run a call on a node that has its code; refused if none has it."""
        body = pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
        bars = self._bars.setdefault(_code_key(request, call), {})
        while True:
            now = time.monotonic()
            for node in [node for node, bar in bars.items() if bar.until < now]:
                del bars[node]
            if bars and not set(await self.nodes_with_room(request)) - bars.keys():
                return _refusal(request.number, bars.values())
            options = dict(request.options)
            if bars:
                options["label_selector"] = {_NODE_LABEL: f"!in({','.join(bars)})"}
            if call.actor is None:
                reply = await self._on_task(request, options, body)
            else:
                reply = await self._on_actor(request, call, options, body)
            bar = _judged(reply)
            if bar is None:
                return Answer(number=request.number, done=reply[-1])
            bars[reply[0]] = bar

    async def _on_task(self, request: Request, options: Mapping[str, Any], body: bytes) -> _Reply:
        ref = self._task.options(name=request.label, **options).remote(body)
        try:
            reply: _Reply = await _result(ref)
        except asyncio.CancelledError:
            self._ray.cancel(ref, force=True)
            raise
        return reply

    async def _on_actor(
        self, request: Request, call: Call, options: Mapping[str, Any], body: bytes
    ) -> _Reply:
        key = (call.actor, *_code_key(request, call), repr(request.options), request.actors)
        pool = self._actors.get(key)
        if pool is None:
            pool = self._actors[key] = _Actors(asyncio.Semaphore(request.actors))
        async with pool.free:
            actor = pool.idle.pop() if pool.idle else self._actor.options(**options).remote()
            kept = False
            try:
                ref = actor.run.remote(body)
                reply: _Reply = await _result(ref)
                kept = _judged(reply) is None
                return reply
            finally:
                if kept:
                    pool.idle.append(actor)
                else:  # a call of an actor cannot be cancelled by force
                    self._ray.kill(actor)

    async def _probe(self, request: Request, call: Call) -> Answer:
        """Compare the code on every node that could run it; refused if none has it."""
        from ray.util.scheduling_strategies import (  # type: ignore[import-not-found,unused-ignore]
            NodeAffinitySchedulingStrategy,
        )

        body = pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
        key = _code_key(request, call)
        nodes = await self.nodes_with_room(request)
        environment = {k: v for k, v in request.options.items() if k == "runtime_env"}

        async def ask(node: str) -> _Bar | None:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "scheduling_strategy": there, **environment}
            try:
                return _judged(await self._on_task(request, options, body))
            except self._ray.exceptions.RuntimeEnvSetupError as error:
                text = f"node {node[:8]} cannot set up its runtime_env: {_last_line(error)}"
                return _Bar(text, True, time.monotonic() + _BAR)

        probes = {asyncio.create_task(ask(node)): node for node in nodes}
        done, late = await asyncio.wait(probes, timeout=_PROBE_LIMIT)
        for task in late:
            task.cancel()
        bars = {}
        for task in done:
            try:
                bar = task.result()
            except self._ray.exceptions.LocalRayletDiedError:
                raise
            except self._ray.exceptions.RayError:
                continue  # that node has gone
            if bar is not None:
                bars[probes[task]] = bar
        self._bars[key] = bars
        if bars and len(bars) == len(nodes):
            return _refusal(request.number, bars.values())
        return Answer(number=request.number)

    async def nodes_with_room(self, request: Request) -> list[str]:
        """Return the ids of the nodes that could ever have room for it."""
        options = request.options
        needed = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
        needed |= options.get("resources", {})
        return [
            node["NodeID"]
            for node in await self._nodes()
            if all(node["Resources"].get(name, 0) >= amount for name, amount in needed.items())
        ]

    async def _nodes(self) -> list[dict[str, Any]]:
        nodes = await asyncio.to_thread(self._ray.nodes)
        return [node for node in nodes if node["Alive"]]

    async def _answers(self) -> bool:
        """Whether Ray still runs tasks."""
        try:
            async with asyncio.timeout(_CHECK_LIMIT):
                await _result(self._noop.remote())
        except (self._ray.exceptions.RayError, ConnectionError, TimeoutError):
            return False
        return True


def _whereabouts(ray: Any) -> tuple[str, str]:
    """Return this process's node and its cluster's address; empty if Ray Client connects it."""
    if ray.util.client.ray.is_connected():
        return "", ""
    context = ray.get_runtime_context()
    return context.get_node_id(), context.gcs_address


def _watch(ray: Any, own_node: str, gcs: str, link: WorkerLink) -> None:
    """End this process when Ray has gone, or is another Ray now.

    In a thread: a call to a Ray that has gone may keep the event loop for a minute.
    """
    pool = ThreadPoolExecutor(1, "nodes of Ray")
    while True:
        time.sleep(_CHECK_EVERY)
        try:
            if gcs:
                host, _, port = gcs.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), _CHECK_LIMIT).close()
            nodes = pool.submit(ray.nodes).result(_CHECK_LIMIT)
        except Exception as error:  # noqa: BLE001  # whatever Ray raises
            link.give_up(f"it does not answer: {type(error).__name__} {error}".strip())
        if own_node and not any(n["Alive"] and n["NodeID"] == own_node for n in nodes):
            link.give_up("its node on this machine has ended")


async def _result(ref: Any) -> Any:
    """Return what a task of Ray's gives. A cancellation leaves its future alone, as Ray sets it."""
    future = asyncio.wrap_future(ref.future())
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(future)


def _code_key(request: Request, call: Call) -> tuple[Any, ...]:
    return (*sorted(call.code.items()), repr(request.options.get("runtime_env")))


def _judged(reply: _Reply) -> _Bar | None:
    """Return why that node must be passed over; None when it has made the call."""
    node, host, refused, missing, _ = reply
    if not refused:
        return None
    return _Bar(f"node {host} ({node[:8]}) {refused}", missing, time.monotonic() + _BAR)


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2][:200]


def _refusal(number: int, bars: Collection[_Bar]) -> Answer:
    text = "; ".join(sorted({bar.text for bar in bars}))
    missing = all(bar.missing for bar in bars)
    return Answer(number=number, refused=text[:1000], missing=missing)
