"""Both images at work, without any network but loopback: a game through a real Valkey.

Runs in a network namespace of its own, which `python -m tests.images` makes: nothing can be
downloaded there, and the images' own ports are free.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from headstart import PrecomputeClient, PrecomputeStatus
from tests.images.container import Container, Image, running
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

_IFF_UP, _GET_FLAGS, _SET_FLAGS = 0x1, 0x8913, 0x8914
API_PORT, API_HTTP, WORKER_HTTP = 50051, 8080, 8081
_GAME = {"anchor": "ocean", "target": "forest", "recipient_type": "RECIPIENT_TYPE_HUMAN"}


def loopback_up() -> None:
    """Bring up the loopback interface, which is all that this namespace has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _GET_FLAGS, asked))[1]
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def ready(port: int) -> bool:
    """Whether `GET /readyz` is 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


async def started(container: Container, port: int, within: float) -> None:
    """Wait until it is ready, and say how long that took and what it needs."""

    def is_ready() -> bool:
        assert container.alive, "it ended"
        return ready(port)

    await wait_until(is_ready, within)
    took = time.monotonic() - container.began
    print(
        f"    {container.image.name}: ready after {took:.1f} s, {container.megabytes:.0f} MB resident"
    )


def healthcheck(image: Image, **environment: str) -> int:
    """The exit code of the image's own health check."""
    how, *command = image.config["Healthcheck"]["Test"]
    assert how == "CMD"
    if not command[0].startswith("/"):
        command = ["/usr/bin/env", *command]
    return image.run(*command, **environment).returncode


def grpcurl(method: str, request: object) -> dict[str, object]:
    """One call, from outside of both images."""
    command = [
        str(Path(sys.executable).with_name("grpcurl")),
        *("-plaintext", "-d", json.dumps(request), f"127.0.0.1:{API_PORT}"),
        f"headstart.v1.PrecomputeService/{method}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


async def play(api: Image, worker: Image, directory: Path) -> None:
    """Start everything, play, look after health and stop."""
    valkey = Valkey(directory)
    await valkey.start()
    settings = {"HEADSTART_REDIS_URL": valkey.url, "HEADSTART_INSECURE": "true"}
    of_worker = settings | {"HEADSTART_HTTP_PORT": str(WORKER_HTTP)}
    try:
        refused = api.run(HEADSTART_REDIS_URL=valkey.url)
        assert refused.returncode == 2, refused.stdout
        assert "HEADSTART_TLS_CERT: without TLS" in refused.stdout, refused.stdout
        print("    api: listens to others only with TLS, or where it is told that it need not")
        assert healthcheck(api, **settings) == 1, "healthy before it runs"
        with running(api, **settings) as api_process:
            await started(api_process, API_HTTP, 60)
            assert healthcheck(api, **settings) == 0
            assert healthcheck(worker, **of_worker) == 1, "healthy before it runs"
            with running(worker, **of_worker) as worker_process:
                await started(worker_process, WORKER_HTTP, 180)
                assert healthcheck(worker, **of_worker) == 0
                # A language model may be behind a proxy; here nobody is.
                proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
                assert healthcheck(worker, **of_worker, **proxies) == 0
                assert healthcheck(api, **settings, **proxies) == 0
                print("    health checks: fail before, pass now")
                await _games()
                for container in (worker_process, api_process):
                    began = time.monotonic()
                    code = container.stop()
                    took = time.monotonic() - began
                    print(
                        f"    {container.image.name}: SIGTERM, exit code {code} after {took:.1f} s"
                    )
                    assert code == 0, container.output
                    for word in ("Traceback", "Read-only", "Permission denied"):
                        assert word not in container.output, container.output
    finally:
        await valkey.kill()


async def _games() -> None:
    grpcurl("StartPrecompute", {"key": "outside", "bridging": _GAME})
    answer = grpcurl("GetResults", {"key": "outside", "wait": "30s"})
    bridge = answer["bridging"]
    assert answer["status"] == "PRECOMPUTE_STATUS_COMPLETED", answer["status"]
    assert isinstance(bridge, dict)
    assert len(bridge["lexical_bridge"]) == 5
    assert len(bridge["null_samples"]) == 100
    print(f"    grpcurl: ocean to forest by {', '.join(bridge['lexical_bridge'])}")
    async with PrecomputeClient(f"127.0.0.1:{API_PORT}") as client:
        # Words that the vocabulary has not, so that the model must run.
        await client.start_bridging("client", "quokkaish", "brambleberry", "human")
        results = await client.get_results("client", wait=30)
        assert results.status is PrecomputeStatus.COMPLETED
        assert results.bridging is not None
        assert len(results.bridging.anchor_embedding) == 384
        print(f"    client: {len(results.bridging.lexical_bridge)} words for unknown ones")


def main() -> None:
    """Play with the images that standard input describes."""
    loopback_up()
    api, worker = (
        Image(each["name"], Path(each["root"]), each["config"]) for each in json.load(sys.stdin)
    )
    with tempfile.TemporaryDirectory(prefix="headstart-image-test-") as directory:
        asyncio.run(play(api, worker, Path(directory)))


if __name__ == "__main__":
    main()
