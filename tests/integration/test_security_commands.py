"""The commands that docs/security.md begins with, run in their order in an empty folder."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT, Process, address_of, clean_environment

PAGE = (ROOT / "docs" / "security.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


async def test_a_reader_makes_a_certificate_serves_with_it_and_calls(tmp_path: Path):
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = clean_environment() | {
        "PATH": path,
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_WORKER": "false",
        "HEADSTART_DATA_DIR": str(tmp_path / "data"),
        "HEADSTART_GRPC_PORT": "0",
        "HEADSTART_HTTP_PORT": "0",
    }

    async def typed(command: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            ["bash", "-euc", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    certificate, token, serve = BLOCKS[0].splitlines()
    await typed(certificate)
    shown = (await typed(token)).stderr
    (tmp_path / "token").write_text(shown.split()[-1])
    # The tests stay on this machine.
    command = serve.replace("--host 0.0.0.0", "--host 127.0.0.1")
    server = Process(["bash", "-c", f"exec {command}"], environment, tmp_path)
    try:
        port = (await address_of(server)).rpartition(":")[2]
        called = BLOCKS[1].replace("localhost:50051", f"localhost:{port}")
        assert "kept" in (await typed(called)).stdout
    finally:
        server.stop()
