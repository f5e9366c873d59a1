"""Where a proxy is set, for a language model perhaps: nothing that stays on this machine uses it.

The proxy here takes connections and never answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headstart_service.commands.doctor.address import Place, proxy_before
from tests.integration.conftest import grpc_address
from tests.support.commands import Done, run
from tests.support.otlp import Collector, collecting
from tests.support.processes import ROOT, Process, clean_environment, run_headstart
from tests.support.replicas import LIGHT
from tests.support.waiting import wait_until

CLIENTS = """
import asyncio, sys
from headstart import EagerPrecompute, PrecomputeClient
from headstart._clients.blocking_client import BlockingClient

async def play(address):
    async with PrecomputeClient(address, timeout=20) as client:
        await client.start("proxied", "noop", {"value": 1})
        return (await client.get_results("proxied", wait=20)).status

for address in sys.argv[1:]:
    print(asyncio.run(play(address)))
    with BlockingClient(address, timeout=20) as client:
        print(client.get_results("proxied").status)
    print(EagerPrecompute(address).get_status("proxied"))
"""


@pytest.fixture(scope="module")
def proxies() -> Iterator[dict[str, str]]:
    """The variables of a proxy that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
        yield {
            **dict.fromkeys((*names, *map(str.upper, names)), url),
            "no_proxy": "",
            "NO_PROXY": "",
        }


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def process(
    proxies: dict[str, str], collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """A server with a worker, in this environment too."""
    settings = (
        LIGHT
        | proxies
        | {
            "HEADSTART_DATA_DIR": str(tmp_path_factory.mktemp("data")),
            "HEADSTART_GRPC_PORT": "0",
            "HEADSTART_HTTP_PORT": "0",
            "HEADSTART_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
    )
    made = run_headstart("serve", **settings)
    try:
        grpc_address(made)
        yield made
    finally:
        made.stop()


async def test_clients_and_spans_stay_on_this_machine_without_a_proxy(
    process: Process, proxies: dict[str, str], collector: Collector
):
    port = grpc_address(process).rpartition(":")[2]
    targets = [f"localhost:{port}", f"127.0.0.1:{port}", f"dns:///localhost:{port}"]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CLIENTS, *targets],
        env=clean_environment() | proxies,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.split() == ["completed"] * 9, done.stderr
    await wait_until(lambda: collector.named("run noop"))


def test_commands_and_health_checks_use_no_proxy(process: Process, proxies: dict[str, str]):
    address = grpc_address(process)
    port = address.rpartition(":")[2]
    http_port = process.output.split("HTTP on 127.0.0.1:")[1].split()[0]

    def command(*arguments: str, **environment: str) -> Done:
        return run(*arguments, **proxies, **environment)

    stats = command("stats", "--json", "--address", address)
    assert json.loads(stats.out)["max_cached"], stats.err
    assert command("healthcheck", HEADSTART_GRPC_PORT=port).out.endswith("SERVING\n")
    # What the process listens on, which is no loopback address.
    assert command("healthcheck", HEADSTART_GRPC_PORT=port, HEADSTART_HOST="0.0.0.0").code == 0
    doctor = command("doctor", "--address", address, "--http", f"127.0.0.1:{http_port}")
    assert doctor.code == 0, doctor.out
    assert "proxy" not in doctor.out
    ports = {"HEADSTART_GRPC_PORT": port, "HEADSTART_HTTP_PORT": http_port}
    local = command("doctor", "--local", "--address", address, **ports)
    assert f"a Headstart server listens on 127.0.0.1:{port}" in local.out
    assert f"a Headstart server listens on 127.0.0.1:{http_port}" in local.out


def test_the_images_check_of_the_worker_uses_no_proxy(process: Process, proxies: dict[str, str]):
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", "")
    [listed] = re.findall(r'CMD (\["python3", "-c", .*\])', text)
    _, *arguments = json.loads(listed)
    http_port = process.output.split("HTTP on 127.0.0.1:")[1].split()[0]

    def code(port: str) -> int:
        environment = clean_environment() | proxies | {"HEADSTART_HTTP_PORT": port}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, check=False
        )
        return done.returncode

    assert code(http_port) == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert code(str(closed.getsockname()[1])) == 1


def test_doctor_names_theproxy_before_a_server_elsewhere(monkeypatch: pytest.MonkeyPatch):
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    elsewhere, there = Place("headstart.prod.svc", 50051), Place("10.1.2.3", 50051)
    assert proxy_before(elsewhere) is None
    monkeypatch.setenv("https_proxy", "http://user:s3cret@proxy:3128")
    assert proxy_before(elsewhere) == "https_proxy"
    assert proxy_before(Place("localhost", 50051)) is None
    monkeypatch.setenv("NO_PROXY", ".svc")
    assert proxy_before(elsewhere) == "https_proxy", "gRPC does not know it"
    monkeypatch.setenv("no_proxy", "example.com, .svc,10.0.0.0/8")
    assert (proxy_before(elsewhere), proxy_before(there)) == (None, None)
    assert proxy_before(Place("11.1.2.3", 50051)) == "https_proxy"
