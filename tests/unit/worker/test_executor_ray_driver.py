"""The process that is connected to Ray, on a Ray that a test plays."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from headstart_service.worker.executors import ray_driver
from headstart_service.worker.executors.child_socket import LENGTH
from headstart_service.worker.executors.ray_driver import Driver
from headstart_service.worker.executors.ray_messages import Answer, Request, WorkerLink
from headstart_service.worker.executors.remote_call import Call, Performed
from tests.support.virtual_time import Clock
from tests.support.waiting import wait_until

CALL = Call("shop", "price", {"shop": "digest"}, b"arguments")
GOOD = ("node-1", "host", "", False, pickle.dumps(Performed("x")))


def refusing(node: str, *, missing: bool = False) -> Any:
    return (node, f"host-{node}", "has other code", missing, b"")


class RayError(Exception):
    """As Ray's own of that name; the others are kinds of it."""


class LocalRayletDiedError(RayError):
    """This machine's node has ended."""


class RuntimeEnvSetupError(RayError):
    """An environment cannot be made."""


class RayTaskError(RayError):
    """What ran on Ray has raised."""


class GaveUp(Exception):
    """Stands for the end of the process."""


class Ray:
    """Runs what it is given by a test's `reply`; notes with which options."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(
            RayError=RayError,
            LocalRayletDiedError=LocalRayletDiedError,
            RuntimeEnvSetupError=RuntimeEnvSetupError,
            RayTaskError=RayTaskError,
        )
        self.made: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.replies: list[Any] = []
        self.killed: list[Any] = []
        self.cancelled: list[bool] = []
        self.actors = 0
        self.alive = True
        self.all_nodes = [
            {"NodeID": "node-1", "Alive": True, "Resources": {"CPU": 4, "gizmo": 1}},
            {"NodeID": "node-2", "Alive": True, "Resources": {"CPU": 2, "GPU": 1}},
            {"NodeID": "node-3", "Alive": False, "Resources": {"CPU": 64}},
        ]

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.made.append(options)
        return lambda made: Remote(self, isinstance(made, type), noop="num_cpus" in options)

    def nodes(self) -> list[dict[str, Any]]:
        return self.all_nodes

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def cancel(self, ref: Any, *, force: bool) -> None:
        self.cancelled.append(force)

    def ref(self) -> Any:
        future: Future[Any] = Future()
        reply = self.replies.pop(0) if self.replies else GOOD
        if isinstance(reply, Exception):
            future.set_exception(reply)
        elif reply is not None:
            future.set_result(reply)
        return SimpleNamespace(future=lambda: future)


class Remote:
    """A function or a class that runs on Ray."""

    def __init__(self, ray: Ray, actor: bool, noop: bool) -> None:  # noqa: FBT001
        self._ray, self._actor, self._noop = ray, actor, noop

    def options(self, **options: Any) -> Remote:
        self._ray.asked.append(options)
        return self

    def remote(self, *_: Any) -> Any:
        if self._noop:
            future: Future[Any] = Future()
            if self._ray.alive:
                future.set_result(None)
            else:
                future.set_exception(RayError())
            return SimpleNamespace(future=lambda: future)
        if not self._actor:
            return self._ray.ref()
        self._ray.actors += 1
        number = self._ray.actors
        run = SimpleNamespace(remote=lambda body: self._ray.ref())
        return SimpleNamespace(number=number, run=run)


@pytest.fixture
def ray() -> Ray:
    return Ray()


class Link:
    """Keeps what the worker is sent."""

    def __init__(self) -> None:
        self.sent: list[Answer] = []

    def send(self, answer: Answer) -> None:
        self.sent.append(answer)

    def give_up(self, reason: str) -> NoReturn:
        raise GaveUp(reason)


@pytest.fixture
def driver(ray: Ray) -> Driver:
    return Driver(ray)


@pytest.fixture
def _affinity() -> Iterator[None]:
    """Ray's module of scheduling strategies."""
    names = ("ray", "ray.util", "ray.util.scheduling_strategies")
    modules = {name: ModuleType(name) for name in names if name not in sys.modules}
    sys.modules.update(modules)
    module = sys.modules[names[-1]]
    module.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)  # type: ignore[attr-defined]
    yield
    for name in modules:
        del sys.modules[name]


def request(number: int = 7, **fields: Any) -> Request:
    return Request(**{"number": number, "label": "price", "call": CALL} | fields)


async def ran(driver: Driver, asked: Request) -> Answer:
    assert asked.call is not None
    return await driver.run(asked, asked.call)


async def test_a_task_runs_once_with_its_options_and_name(ray: Ray, driver: Driver) -> None:
    assert ray.made[:2] == [{"max_retries": 0}, {"max_restarts": 0, "max_task_retries": 0}]
    answer = await ran(driver, request(options={"num_cpus": 2}))
    assert answer == Answer(number=7, done=GOOD[-1])
    assert ray.asked == [{"name": "price", "num_cpus": 2}]


async def test_nodes_with_other_code_are_passed_over_until_none_is_left(
    ray: Ray, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(ray_driver, "time", SimpleNamespace(monotonic=clock))
    ray.replies = [refusing("node-2"), GOOD]
    assert (await ran(driver, request())).done == GOOD[-1]
    selector = {"label_selector": {"ray.io/node-id": "!in(node-2)"}}
    assert ray.asked == [{"name": "price"}, {"name": "price"} | selector]
    ray.replies = [refusing("node-1", missing=True)]
    answer = await ran(driver, request(number=8))
    said = "node host-node-1 (node-1) has other code; node host-node-2 (node-2) has other code"
    assert answer == Answer(number=8, refused=said, missing=False)
    ray.asked.clear()
    assert (await ran(driver, request())).refused == said
    assert ray.asked == [], "nobody is asked while all are known to have other code"
    # Another environment is other code.
    assert (await ran(driver, request(options={"runtime_env": {"pip": ["x"]}}))).done
    clock.now += 30.1
    ray.asked.clear()
    assert (await ran(driver, request())).done == GOOD[-1]
    assert ray.asked == [{"name": "price"}], "the code may be there by then"


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        ({}, ["node-1", "node-2"]),
        ({"num_cpus": 2}, ["node-1", "node-2"]),
        ({"num_cpus": 3}, ["node-1"]),
        ({"num_gpus": 1}, ["node-2"]),
        ({"resources": {"gizmo": 1}}, ["node-1"]),
        ({"num_cpus": 5}, []),
    ],
)
async def test_nodes_that_could_ever_run_it_count(
    driver: Driver, options: dict[str, Any], nodes: list[str]
) -> None:
    assert await driver.nodes_with_room(request(options=options)) == nodes


async def test_an_actor_is_used_again_and_ended_when_its_call_is(ray: Ray, driver: Driver) -> None:
    call = Call("shop", "price", {"shop": "digest"}, b"x", ("shop", "Model"))
    asked = request(call=call, actors=1, options={"num_cpus": 2})
    for _ in range(3):
        assert (await ran(driver, asked)).done
    assert (ray.actors, ray.killed, ray.asked) == (1, [], [{"num_cpus": 2}])
    ray.replies = [refusing("node-1")]
    assert (await ran(driver, asked)).done
    assert [actor.number for actor in ray.killed] == [1], "it stands on a node with other code"
    ray.replies = [None]
    held = asyncio.create_task(ran(driver, asked))
    second = asyncio.create_task(ran(driver, asked))
    for _ in range(20):
        await asyncio.sleep(0)
    assert ray.actors == 2, "one at a time"
    held.cancel()
    await asyncio.wait({held})
    assert (await second).done
    assert [actor.number for actor in ray.killed] == [1, 2]
    assert ray.actors == 3


async def test_a_cancelled_task_is_ended_by_force(ray: Ray, driver: Driver) -> None:
    ray.replies = [None]
    task = asyncio.create_task(ran(driver, request()))
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ray.cancelled == [True]


async def served(driver: Driver, asked: Request) -> Answer:
    link = Link()
    await driver.handle(asked, link)  # type: ignore[arg-type]
    [answer] = link.sent
    return answer


@pytest.mark.parametrize(
    ("error", "lost", "trace"),
    [
        (
            RuntimeEnvSetupError("a\nno such package"),
            "Ray cannot set up its runtime_env: no such package",
            None,
        ),
        (RayTaskError("Traceback: x"), "", "Traceback: x"),
        (RayError(), "Ray lost it: RayError", None),
        (ValueError("odd"), "", "ValueError: odd"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_what_becomes_of_a_request_is_reported(
    ray: Ray, driver: Driver, error: Exception, lost: str, trace: str | None
) -> None:
    ray.replies = [error]
    answer = await served(driver, request())
    assert (answer.number, answer.lost) == (7, lost)
    assert (pickle.loads(answer.done).trace if answer.done else None) == trace


@pytest.mark.parametrize(
    ("error", "alive", "reason"),
    [
        (LocalRayletDiedError(), True, "LocalRayletDiedError"),
        (RayError(), False, "RayError"),
        (ConnectionError("reset"), True, "ConnectionError: reset"),
    ],
)
async def test_a_process_whose_ray_has_gone_ends(
    ray: Ray,
    driver: Driver,
    error: Exception,
    alive: bool,  # noqa: FBT001
    reason: str,
) -> None:
    ray.replies, ray.alive = [error], alive
    with pytest.raises(GaveUp) as left:
        await served(driver, request())
    assert left.value.args == (reason,)


@pytest.mark.usefixtures("_affinity")
@pytest.mark.parametrize(
    ("replies", "refused", "missing"),
    [
        ([GOOD, refusing("node-2")], "", False),
        ([refusing("node-1", missing=True), refusing("node-2", missing=True)], "both", True),
        ([refusing("node-1", missing=True), refusing("node-2")], "both", False),
        ([RayError(), refusing("node-2")], "", False),
        (
            [RuntimeEnvSetupError("x"), RuntimeEnvSetupError("x")],
            "; ".join(f"node node-{n} cannot set up its runtime_env: x" for n in (1, 2)),
            True,
        ),
    ],
    ids=["one has it", "none can import it", "none has it", "one has gone", "no environment"],
)
async def test_a_probe_asks_every_node_that_could_run_it(
    ray: Ray,
    driver: Driver,
    replies: list[Any],
    refused: str,
    missing: bool,  # noqa: FBT001
) -> None:
    ray.replies = list(replies)
    environment = {"runtime_env": {"pip": ["x"]}}
    answer = await served(driver, request(probe=True, options={"num_cpus": 1} | environment))
    both = "node host-node-1 (node-1) has other code; node host-node-2 (node-2) has other code"
    assert answer == Answer(
        number=7, refused=both if refused == "both" else refused, missing=missing
    )
    assert ray.asked == [
        {"name": "price", "num_cpus": 0, "scheduling_strategy": (node, False)} | environment
        for node in ("node-1", "node-2")
    ]


async def test_it_serves_until_its_worker_closes_the_socket(ray: Ray, driver: Driver) -> None:
    ours, theirs = socket.socketpair()
    its_reader, its_writer = await asyncio.open_connection(sock=theirs)
    serving = asyncio.create_task(driver.serve(its_reader, WorkerLink(its_writer)))
    reader, writer = await asyncio.open_connection(sock=ours)

    async def answer() -> Answer:
        async with asyncio.timeout(10):
            (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        told: Answer = pickle.loads(await reader.readexactly(size))
        return told

    def ask(asked: Request) -> None:
        body = pickle.dumps(asked)
        writer.write(LENGTH.pack(len(body)) + body)

    assert await answer() == Answer(number=0)
    ask(request(1))
    assert (await answer()).number == 1
    ray.replies = [None, None]
    ask(request(2))
    ask(request(3))
    await wait_until(lambda: len(ray.asked) == 3)
    ask(Request(number=2))
    ask(Request(number=99))
    call = Call("shop", "price", {"shop": "digest"}, b"x", ("shop", "Model"))
    ask(request(4, call=call))
    assert (await answer()).number == 4
    assert ray.cancelled == [True]
    writer.close()
    async with asyncio.timeout(10):
        await serving
    for end in (writer, its_writer):  # its process would end now
        end.close()
        with suppress(ConnectionError):
            await end.wait_closed()
    assert ray.cancelled == [True, True], "what was under way is ended"
    assert [actor.number for actor in ray.killed] == [1]


def test_it_reports_why_it_ends() -> None:
    def leave(code: int) -> NoReturn:
        raise GaveUp(code)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer: Any = SimpleNamespace(get_extra_info={"socket": theirs}.get)
        with pytest.raises(GaveUp) as left:
            WorkerLink(writer, leave).give_up("x" * 400)
        data = ours.recv(4096)
    assert left.value.args == (3,)
    (size,) = LENGTH.unpack(data[: LENGTH.size])
    assert size == len(data) - LENGTH.size
    assert pickle.loads(data[LENGTH.size :]) == Answer(number=0, refused="x" * 300)
