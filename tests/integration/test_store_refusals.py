"""A Redis that refuses: the log, readiness, the doctor and callers get the reason and the cure."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from headstart import PrecomputeClient, ResourceExhausted
from headstart_service.store.refusals import FULL, LEAST_RIGHTS
from tests.support.commands import done_here
from tests.support.deployments import least_rights
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, worker
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_LEASE": "1.5",
}
PASSWORD = "s3cret"


@pytest.fixture
async def operator(valkey: Valkey) -> AsyncIterator[Redis]:
    """The operator's connection to a Redis that has a user for Headstart."""
    async with valkey.client() as client:
        rules = " ".join(least_rights("headstart"))
        await client.execute_command(f"ACL SETUSER headstart on >{PASSWORD} {rules}")
        yield client


@pytest.fixture
def url(valkey: Valkey, operator: Redis) -> str:
    return valkey.url.replace("//", f"//headstart:{PASSWORD}@")


async def ready(process: Process) -> tuple[int, str]:
    """What `GET /readyz` answers."""
    port = (await process.says(r"HTTP on [\w.:]*:(\d+)"))[1]

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def is_ready(process: Process) -> bool:
    return await ready(process) == (200, "ready\n")


async def refuses(process: Process, reason: str) -> bool:
    code, text = await ready(process)
    assert text.count("\n") == 1
    return code == 503 and text.startswith(f"not ready: {reason}")


@pytest.mark.promise("A wrong password is named, not shown", "own texts, no addresses")
async def test_a_wrong_password_is_the_reason_until_it_is_right(url: str, operator: Redis):
    reason = "Redis refuses the user or the password (WRONGPASS): correct HEADSTART_REDIS_URL"
    async with api(url, **LIGHT) as (server, _), worker(url, **LIGHT) as working:
        await operator.execute_command("ACL SETUSER headstart resetpass >another")
        await operator.execute_command("CLIENT KILL USER headstart")
        for process in (server, working):
            await wait_until(lambda process=process: refuses(process, reason))
            assert reason in process.output
            assert PASSWORD not in process.output
        done = await asyncio.to_thread(
            done_here,
            "doctor",
            "--local",
            **LIGHT,
            HEADSTART_REDIS_URL=url,
            HEADSTART_GRPC_PORT="0",
        )
        assert done.code == 1
        assert reason in " ".join(done.out.split())
        assert PASSWORD not in done.out
        await operator.execute_command(f"ACL SETUSER headstart resetpass >{PASSWORD}")
        for process in (server, working):
            await wait_until(lambda process=process: is_ready(process))


@pytest.mark.promise("A worker without rights offers nothing", "offers need jobs")
async def test_a_worker_without_a_right_is_none_and_its_reason_names_right_and_rule(
    url: str, operator: Redis
):
    await operator.execute_command("ACL SETUSER headstart -xreadgroup")
    async with (
        api(url, **LIGHT) as (server, address),
        worker(url, **LIGHT) as working,
        PrecomputeClient(address) as client,
    ):
        reason = "Redis denies a right (NOPERM): User headstart has no permissions to run the "
        await wait_until(lambda: refuses(working, f"{reason}'xreadgroup' command; give"))
        line = (await ready(working))[1]
        assert LEAST_RIGHTS in line
        port = (await working.says(r"HTTP on [\w.:]*:(\d+)"))[1]
        done = await asyncio.to_thread(
            done_here, "doctor", "--json", "--address", address, "--http", f"127.0.0.1:{port}"
        )
        assert ("FAIL", line.strip()) in [
            (check["verdict"], check["found"]) for check in json.loads(done.out)["checks"]
        ]
        assert await is_ready(server)
        await client.start("k", "noop", {"value": 1})

        async def why() -> bool:
            return (await client.get_status("k")).pending_reason is not None

        await wait_until(why)
        await operator.execute_command("ACL SETUSER headstart +xreadgroup")
        results = await client.get_results("k", wait=20)
        assert results.custom
        await wait_until(lambda: is_ready(working))


async def test_a_full_redis_is_reported_as_such_with_the_right_cure(url: str, operator: Redis):
    async with (
        api(url, **LIGHT) as (server, address),
        worker(url, **LIGHT) as working,
        PrecomputeClient(address) as client,
    ):
        await client.start("k", "noop", {"value": 1})
        await client.get_results("k", wait=20)
        await operator.config_set("maxmemory", 1)

        async def told() -> bool:
            return await ready(server) == (200, f"ready, but starts are refused: {FULL}\n")

        await wait_until(told)
        assert re.search(f"WARNING .*starts are refused: {re.escape(FULL)}", server.output)
        with pytest.raises(ResourceExhausted, match=re.escape(FULL)):
            await client.start("l", "noop", {"value": 2}, timeout=20)
        assert (await client.get_results("k")).custom
        assert await is_ready(working)
        port = (await server.says(r"HTTP on [\w.:]*:(\d+)"))[1]
        page = await asyncio.to_thread(_metrics, port)
        assert 'error="full"' in page
        done = await asyncio.to_thread(
            done_here,
            "doctor",
            "--local",
            **LIGHT,
            HEADSTART_REDIS_URL=url,
            HEADSTART_GRPC_PORT="0",
        )
        assert done.code == 1
        assert "starts are refused" in " ".join(done.out.split())
        await operator.config_set("maxmemory", 0)
        await wait_until(lambda: is_ready(server))
        await client.start("l", "noop", {"value": 2})
        assert (await client.get_results("l", wait=20)).custom


def _metrics(port: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text
