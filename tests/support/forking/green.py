"""Calls from a process whose threads gevent has patched."""

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402

from headstart import BlockingClient, EagerPrecompute, PrecomputeClient, UnusableProcess  # noqa: E402


async def call() -> None:
    async with PrecomputeClient() as client:
        try:
            await client.start("page", "text", {})
        except UnusableProcess as exc:
            print(exc)
        assert await client.start_or_skip("page", "text", {}) is None
        computed = await client.get_or_compute("page", 20.0, {"a": compute})
        assert computed.sources == {"a": "live"}
    facade = EagerPrecompute.get_instance()
    assert await facade.get_precomputed_results("page") is None
    assert facade.get_status("page") is None


async def compute() -> str:
    return "live"


try:
    BlockingClient()
except UnusableProcess as exc:
    print(exc)
asyncio.run(call())
print("nothing hangs")
