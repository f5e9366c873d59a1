"""Health: what it reports, and how many streams of it strangers can hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headstart_service.api.health import Health
from headstart_service.base.service_methods import SERVICE
from tests.support.waiting import wait_until

STATUS = health_pb2.HealthCheckResponse.ServingStatus
REQUEST = health_pb2.HealthCheckRequest(service=SERVICE)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Health, str]]:
    health = Health(watches=4, of_a_connection=2)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((health.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield health, f"127.0.0.1:{port}"
    await server.stop(None)


async def connected(stack: AsyncExitStack, address: str, number: int) -> Any:
    """A stub on a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1), ("test.number", number))
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
    return health_pb2_grpc.HealthStub(channel)


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_watchers_get_each_change_and_checks_the_last(served: tuple[Health, str]) -> None:
    health, address = served
    async with AsyncExitStack() as stack:
        stub = await connected(stack, address, 0)
        watch = stub.Watch(REQUEST, timeout=20)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=20)
        assert (await watch.read()).status == STATUS.NOT_SERVING
        assert (await unknown.read()).status == STATUS.SERVICE_UNKNOWN
        await health.set_serving(serving=True)
        assert (await watch.read()).status == STATUS.SERVING
        await health.shut_down()
        await health.set_serving(serving=True)
        assert (await watch.read()).status == STATUS.NOT_SERVING
        assert (await stub.Check(REQUEST, timeout=20)).status == STATUS.NOT_SERVING
        other = health_pb2.HealthCheckRequest(service="other")
        assert await refused(stub.Check(other, timeout=20)) is grpc.StatusCode.NOT_FOUND
        large = health_pb2.HealthCheckRequest(service="x" * 2000)
        assert await refused(stub.Check(large, timeout=20)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_watches_are_bounded_for_a_connection_and_for_the_process(
    served: tuple[Health, str],
) -> None:
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    async with AsyncExitStack() as stack:
        stubs = [await connected(stack, served[1], number) for number in range(3)]
        watches = []
        for stub in stubs[:2]:
            for _ in range(2):
                watches.append(stub.Watch(REQUEST, timeout=20))
                await watches[-1].read()
            assert await refused(stub.Watch(REQUEST, timeout=20).read()) is exhausted
        assert await refused(stubs[2].Watch(REQUEST, timeout=20).read()) is exhausted
        assert (await stubs[2].Check(REQUEST, timeout=20)).status == STATUS.NOT_SERVING
        watches[0].cancel()

        async def admitted() -> bool:
            watch = stubs[2].Watch(REQUEST, timeout=20)
            try:
                await watch.read()
            except grpc.aio.AioRpcError:
                return False
            return True

        await wait_until(admitted)
