"""The fake server and the service, for the same assertions of both.

`idle` has no worker, so that runs get on by reports alone; `busy` computes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from headstart import (
    PrecomputeClient,
)
from headstart.testing import FakeServer, fake_server
from headstart.v1 import precompute_pb2 as pb
from tests.integration.conftest import grpc_address
from tests.support.pipelines import REFERENCES
from tests.support.processes import Service, run_headstart, stub
from tests.support.waiting import wait_until

NEVER = 3600.0
NUMBERS = count()
GATED = {"gated": ["first"]}


def _probe(inputs: Any) -> dict[str, Any]:
    return {"first": inputs["value"] + 1, "gated": (inputs["value"] + 1) * 10}


@contextmanager
def _fake() -> Iterator[FakeServer]:
    with fake_server() as server:
        server.script({"one": 0, "two": 0, "three": 0}, pipeline="chain")
        yield server


@contextmanager
def real_server(directory: Path, *flags: str, **environment: str) -> Iterator[str]:
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0", "HEADSTART_LEASE": "1"}
    where = {"HEADSTART_DATA_DIR": str(directory)}
    pipelines = {"HEADSTART_PIPELINES": REFERENCES}
    process = run_headstart("serve", *flags, **ports, **where, **pipelines | environment)
    try:
        yield grpc_address(process)
    finally:
        process.stop()


@pytest.fixture(scope="module")
def idle_fake() -> Iterator[str]:
    with _fake() as server:
        server.script(queued=NEVER, pipeline="bridging")
        server.script(_probe, pipeline="probe", queued=NEVER, needs=GATED)
        # Pipelines are known by their scripts.
        server.script({"nothing": 0}, pipeline="noop", queued=NEVER)
        server.script({"first": 0, "witness": 0}, pipeline="witness")
        server.script({"first": 0, "mortal": 0}, pipeline="mortal")
        yield server.address


@pytest.fixture(scope="module")
def idle_real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_server(tmp_path_factory.mktemp("idle"), "--no-worker") as address:
        yield address


@pytest.fixture(scope="module", params=["fake", "real"])
def idle(request: pytest.FixtureRequest) -> str:
    """The address of a service that computes nothing."""
    address: str = request.getfixturevalue(f"idle_{request.param}")
    return address


@pytest.fixture(scope="module", params=["fake", "real"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose steps `gated` end for the key "known" alone."""
    with ExitStack() as stack:
        if request.param == "fake":
            server = stack.enter_context(_fake())
            server.script(lambda inputs: {"nothing": inputs["value"]}, pipeline="noop")
            waits = {"delays": {"gated": NEVER}, "needs": GATED}
            server.script(_probe, pipeline="probe", estimates={"gated": (1.0, 2.0)}, **waits)
            server.script(_probe, pipeline="probe", key="known")
            yield server.address
        else:
            directory = tmp_path_factory.mktemp("busy")
            yield stack.enter_context(real_server(directory, HEADSTART_BRIDGING="false"))


@dataclass
class Side:
    """One of both, in a namespace of the test's own."""

    address: str
    namespace: str
    client: PrecomputeClient
    stub: Service

    async def report(
        self,
        key: str,
        step: str,
        value: Any = 7,
        revision: int = 1,
        elapsed: float | None = None,
        created_at: datetime | None = None,
    ) -> tuple[bool, int]:
        request = pb.ReportStepRequest(
            namespace=self.namespace, key=key, revision=revision, step=step
        )
        if isinstance(value, pb.BridgingResults):
            request.bridging.CopyFrom(value)
        else:
            request.artifact.json = str(value)
        if elapsed is not None:
            request.elapsed.FromNanoseconds(round(elapsed * 1e9))
        if created_at is not None:
            request.created_at.FromDatetime(created_at)
        answer = await self.stub.ReportStep(request, timeout=10)
        return answer.accepted, answer.state

    async def reaches(self, key: str, **wanted: str) -> None:
        """Return when the run's status, or states of steps, are as wanted."""

        async def reached() -> bool:
            seen = await self.client.get_status(key)
            return all(
                value == (seen.status if name == "status" else seen.steps[name])
                for name, value in wanted.items()
            )

        await wait_until(reached)


async def side_of(address: str) -> AsyncIterator[Side]:
    namespace = f"test-{next(NUMBERS)}"
    async with PrecomputeClient(address, namespace=namespace) as client, stub(address) as service:
        yield Side(address, namespace, client, service)


@pytest.fixture
async def waiting(idle: str) -> AsyncIterator[Side]:
    """A service where runs wait for a worker that never comes."""
    async for side in side_of(idle):
        yield side


@pytest.fixture
async def working(busy: str) -> AsyncIterator[Side]:
    """A service that computes."""
    async for side in side_of(busy):
        yield side


def inputs_of(directory: Path, value: int = 1) -> dict[str, Any]:
    return {"directory": str(directory), "value": value}
