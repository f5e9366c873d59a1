"""The first run of a newcomer: seconds of real work that are over before they are asked for."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import httpx2
import pytest

from examples.factors import prime_factors
from headstart import PrecomputeClient
from tests.integration.conftest import GameServer
from tests.support.processes import Process, clean_environment
from tests.support.waiting import wait_until

NUMBER = 9999991 * 9999973
"""A product of two primes that takes a part of a second: the documents' numbers take seconds."""


@pytest.fixture
async def client(game_server: GameServer) -> AsyncIterator[PrecomputeClient]:
    async with PrecomputeClient(game_server.address) as opened:
        yield opened


async def completed(client: PrecomputeClient, key: str) -> None:
    async def done() -> bool:
        listed = await client.get_status(key)
        return listed.status.name == "COMPLETED"

    await wait_until(done)


@pytest.mark.parametrize("number", [2, 3, 8, 97, 360, 1979 * 1212577199])
def test_the_factors_are_primes_whose_product_is_the_number(number: int):
    found = prime_factors(number)
    product = 1
    for each in found:
        product *= each
        assert all(each % divisor for divisor in range(2, min(each, 2000)))
    assert product == number
    assert found == sorted(found)


async def test_the_application_reads_the_factors_that_were_started_ahead(
    game_server: GameServer, client: PrecomputeClient
):
    command = [sys.executable, "-m", "uvicorn", "examples.factors_app:app", "--port", "0"]
    process = Process(command, clean_environment() | {"HEADSTART_ADDRESS": game_server.address})
    try:
        url = (await process.says(r"running on (http://\S+)"))[1]
        async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as web:
            (await web.post(f"/chosen/{NUMBER}")).raise_for_status()
            await completed(client, f"n-{NUMBER}")
            shown = (await web.get(f"/factors/{NUMBER}")).json()
            assert shown == {"factors": [9999973, 9999991], "source": "ready"}
            # A number that nobody has announced is computed here.
            assert (await web.get("/factors/91")).json() == {"factors": [7, 13], "source": "live"}
            # What the pipeline would refuse is refused here, and no error of this application.
            refused = [await web.post("/chosen/1"), await web.get(f"/factors/{2**53}")]
            assert [answer.status_code for answer in refused] == [422, 422]
    finally:
        process.stop()


async def test_stats_report_the_time_that_was_saved(
    game_server: GameServer, client: PrecomputeClient
):
    before = (await client.get_stats()).ledger
    await client.start("saved", "factors", {"number": NUMBER + 2})
    await completed(client, "saved")
    await client.get_results("saved")
    after = (await client.get_stats()).ledger
    assert after.fates["used_ready"].runs == before.fates["used_ready"].runs + 1
    assert after.hidden > before.hidden
