"""What `headstart` must do with grpcio and protobuf alone; runs in an environment of that kind.

`python light_client.py ADDRESS` starts a run of the pipeline `noop` and reads it, with the asynchronous
client, the blocking one and the operator's commands. It prints the versions that it ran with.
"""

import asyncio
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from headstart import BlockingClient, PrecomputeClient


async def never() -> int:
    """Stand in for a computation that is not needed."""
    return 0


async def asynchronously(address: str) -> None:
    """Start, read, watch and list a run."""
    async with PrecomputeClient(address) as client:
        await client.start("async", "noop", {"value": 2**53 + 1})
        results = await client.get_results("async", wait=20)
        assert results.artifact("nothing") == 2**53 + 1, results
        async for watched in client.watch_results("async"):
            assert watched.artifact("nothing") == 2**53 + 1, watched
        assert [run.key async for run in client.list()] == ["async"]
        computed = await client.get_or_compute("async", 5, {"nothing": never})
        assert computed.values["nothing"] == 2**53 + 1, computed


def blockingly(address: str) -> None:
    """Start and read a run; get the error of a wrong one."""
    with BlockingClient(address) as client:
        client.start("blocking", "noop", {"value": 7})
        assert client.get_results("blocking", wait=20).artifact("nothing") == 7
        found = client.get_many(["blocking"])["blocking"]
        assert found.artifact("nothing") == 7


def by_command(address: str) -> None:
    """Run each of the operator's commands."""
    headstart = Path(sys.executable).with_name("headstart")
    for command in (
        ("start", "command", "--pipeline", "noop", "--inputs", '{"value": 3}'),
        ("get", "command", "--wait", "20", "--complete"),
        *(("watch", "command"), ("list",), ("stats",), ("pipelines",), ("doctor",)),
        *(("touch", "command"), ("delete", "command"), ("cancel", "blocking")),
    ):
        done = subprocess.run(
            [headstart, *command, "--address", address], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)


if __name__ == "__main__":
    asyncio.run(asynchronously(sys.argv[1]))
    blockingly(sys.argv[1])
    by_command(sys.argv[1])
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {python}, grpcio {version('grpcio')}, protobuf {version('protobuf')}")
