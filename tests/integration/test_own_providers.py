"""Providers of authors in real worker processes, from their settings to their close."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from headstart import PrecomputeClient
from tests.support import processes
from tests.support.commands import run
from tests.support.own_providers import KEY, written
from tests.support.processes import Process
from tests.support.scrape import asked
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

BY_SETTING = {"HEADSTART_PROVIDERS": "stock_providers:shelf"}
PLACE = {"HEADSTART_PROVIDER_SHELF_PLACE": "cellar"}


def events(folder: Path, what: str) -> list[int]:
    """The processes in which this has happened."""
    lines = (folder / "events").read_text().splitlines()
    return [int(pid) for pid, event in map(str.split, lines) if event == what]


@pytest.mark.parametrize("by", ["setting", "entry point"])
async def test_a_provider_serves_steps_everywhere_and_is_closed_at_drain(
    valkey: Valkey, tmp_path: Path, by: str
) -> None:
    points = ("shelf = stock_providers:shelf",) if by == "entry point" else ()
    own = written(tmp_path, *points) | (BY_SETTING if by == "setting" else {})
    (tmp_path / "key").write_text(f"{KEY}\n")
    mine = PLACE | {
        "HEADSTART_PROVIDER_SHELF_KEY_FILE": str(tmp_path / "key"),
        "HEADSTART_PROVIDER_SHELF_SISE": "4",
        "HEADSTART_STEP_PROCESSES": "1",
        "HEADSTART_LOG_LEVEL": "debug",
    }
    async with (
        processes.api(valkey.url, **own) as (server, address),
        processes.worker(valkey.url, **own, **mine) as worker,
        PrecomputeClient(address) as client,
    ):
        opened = events(tmp_path, "open")
        assert events(tmp_path, "warm") == opened
        assert opened[0] == worker.pid
        assert len(opened) == 2
        assert server.pid not in opened
        await client.start("a", "stock", {"item": "salt"})
        results = await client.get_results("a", wait=30)
        for step, pid in (("on_loop", 0), ("in_thread", 0), ("in_process", 1)):
            assert results.artifact(step) == f"salt@cellar*3 by {opened[pid]}"
        if by == "setting":
            await sickens_and_recovers(worker, tmp_path / "ill")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert sorted(events(tmp_path, "closed")) == sorted(opened)
        near = "HEADSTART_PROVIDER_SHELF_SISE is no setting of provider shelf: did you mean"
        assert near in worker.output
        assert "is no setting of Headstart" not in worker.output
        assert KEY not in worker.output


async def sickens_and_recovers(worker: Process, ill: Path) -> None:
    """What `/readyz` and the log tell of a provider's health."""
    await asyncio.to_thread(ill.write_text, f"the stock is away, {KEY}")
    answer = await asked(worker, "readyz")

    async def status(wanted: int) -> bool:
        nonlocal answer
        answer = await asked(worker, "readyz")
        return answer.status == wanted

    await wait_until(lambda: status(503))
    assert answer.text.strip() == "not ready: not healthy: provider shelf, see the log"
    figures = (await asked(worker)).text
    assert 'headstart_provider_healthy{provider="shelf"} 0.0' in figures
    await asyncio.to_thread(ill.unlink)
    await wait_until(lambda: status(200))
    assert "provider shelf is not healthy: the stock is away, …" in worker.output
    assert "provider shelf is healthy again" in worker.output


@pytest.mark.parametrize(
    ("providers", "more", "said"),
    [
        (
            "shelf=stock_providers:Failing",
            PLACE | {"HEADSTART_PROVIDER_SHELF_KEY": KEY},
            (
                "provider shelf (HEADSTART_PROVIDERS: stock_providers:Failing): cannot open: "
                "ConnectionError: no stock for …"
            ),
        ),
        (
            "shelf=stock_providers:slow",
            {"HEADSTART_OPEN_LIMIT": "0.3"},
            "provider shelf (HEADSTART_PROVIDERS: stock_providers:slow): did not open within 0.3 s",
        ),
        (
            "shelf=stock_providers:blocking",
            {"HEADSTART_OPEN_LIMIT": "0.1"},
            "provider shelf (HEADSTART_PROVIDERS: stock_providers:blocking): blocks the event loop",
        ),
        (
            "stock_providers:shelf",
            {
                "HEADSTART_PROVIDER_SHELF_PLACE": KEY,
                "HEADSTART_PROVIDER_SHELF_KEY": KEY,
                "HEADSTART_PROVIDER_SHELF_SIZE": "12",
            },
            (
                "provider shelf: wrong settings: HEADSTART_PROVIDER_SHELF_SIZE = '12': must be a "
                "whole number from 1 to 9"
            ),
        ),
    ],
    ids=["fails", "hangs", "blocks", "settings"],
)
async def test_a_worker_with_a_provider_that_does_not_open_ends_with_its_name_and_reason(
    valkey: Valkey, tmp_path: Path, providers: str, more: Mapping[str, str], said: str
) -> None:
    own = written(tmp_path) | {"HEADSTART_PIPELINES": "stock:TAKER"}
    environment = own | more | {"HEADSTART_REDIS_URL": valkey.url, "HEADSTART_PROVIDERS": providers}
    async with processes.headstart("worker", **environment, HEADSTART_HTTP_PORT="0") as worker:
        assert await worker.ended() == 2
        assert f"headstart: {said}" in worker.output
        assert KEY not in worker.output
        assert "Traceback" not in worker.output


async def test_a_provider_that_does_not_close_keeps_no_worker(
    valkey: Valkey, tmp_path: Path
) -> None:
    own = written(tmp_path) | {
        "HEADSTART_PIPELINES": "stock:TAKER",
        "HEADSTART_PROVIDERS": "shelf=stock_providers:stuck",
        "HEADSTART_CLOSE_LIMIT": "0.2",
    }
    async with processes.worker(valkey.url, **own) as worker:
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert "provider shelf did not close within 0.2 s and is left" in worker.output


async def test_an_api_process_refuses_a_pipeline_whose_provider_nobody_registered(
    valkey: Valkey, tmp_path: Path
) -> None:
    own = written(tmp_path) | {"HEADSTART_REDIS_URL": valkey.url}
    async with processes.headstart("serve", "--no-worker", **own) as server:
        assert await server.ended() == 2
        assert "parameter shelf is no input, step or provider of pipeline stock" in server.output


def test_the_doctor_opens_providers_where_it_may(tmp_path: Path) -> None:
    own = written(tmp_path) | BY_SETTING | {"HEADSTART_PIPELINES": "stock:TAKER"}

    def found(*arguments: str, **more: str) -> dict[str, str]:
        done = run("doctor", "--json", "--local-only", *arguments, **own, **more)
        [check] = [c for c in json.loads(done.out)["checks"] if c["check"] == "provider shelf"]
        assert KEY not in done.out
        return check

    wrong = found()
    assert wrong["verdict"] == "FAIL"
    assert "HEADSTART_PROVIDER_SHELF_PLACE is not set" in wrong["found"]
    mine = PLACE | {"HEADSTART_PROVIDER_SHELF_KEY": KEY}
    assert found(**mine)["verdict"] == "OK"
    (tmp_path / "ill").write_text("no stock")
    ill = found("--load", **mine)
    assert (ill["verdict"], ill["found"]) == ("WARN", "opens, and is not healthy: no stock")


def test_check_config_checks_the_settings_of_providers_and_opens_none(tmp_path: Path) -> None:
    own = written(tmp_path) | BY_SETTING | {"HEADSTART_PIPELINES": "stock:TAKER"}
    wrong = {"HEADSTART_PROVIDER_SHELF_SIZE": "10", "HEADSTART_PROVIDER_SHELF_KEY": KEY}
    done = run("check-config", **own, **wrong)
    assert (done.code, done.out) == (2, "")
    assert "HEADSTART_PROVIDER_SHELF_PLACE is not set" in done.err
    assert "HEADSTART_PROVIDER_SHELF_SIZE = '10': must be a whole number from 1 to 9" in done.err
    assert run("check-config", "--no-worker", **own, **wrong).code == 0, "none is opened there"

    right = (
        PLACE
        | wrong
        | {"HEADSTART_PROVIDER_SHELF_SIZE": "9", "HEADSTART_PROVIDER_SHELF_PLAICE": "there"}
    )
    done = run("check-config", **own, **right)
    assert done.code == 0
    assert (
        "HEADSTART_PROVIDER_SHELF_PLAICE is no setting of provider shelf: did you mean" in done.err
    )
    assert KEY not in done.out + done.err
    assert not (tmp_path / "events").exists()
