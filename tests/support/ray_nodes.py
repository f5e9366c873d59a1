"""A real Ray of this machine, whose nodes tests start and kill."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.support.processes import alive, children, clean_environment
from tests.support.valkey import free_port
from tests.support.waiting import wait_until

_RAY = Path(sys.executable).with_name("ray")


_NUMBERS = itertools.count()


def _free_port() -> int:
    """A free port above those that Ray gives to its own processes."""
    return next(port for port in iter(free_port, 0) if port >= 20_000)


class RayNodes:
    """A head and further nodes. The head keeps its port over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        self.port = _free_port()
        self._directory = directory
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._sessions: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, path: Path | None = None, **resources: float) -> None:
        """Start a node that imports what is in `path`: the head first, then further ones."""
        role = [f"--address={self.address}"]
        if not self._nodes:
            self._sessions.append(tempfile.mkdtemp(prefix="ray"))  # Unix sockets need short paths
            role = ["--head", f"--port={self.port}", f"--temp-dir={self._sessions[-1]}"]
            role += [f"--ray-client-server-port={_free_port()}", "--include-dashboard=false"]
        log = self._directory / f"node-{next(_NUMBERS)}.log"
        with log.open("wb") as output:
            node = subprocess.Popen(  # noqa: ASYNC220  # returns once it is forked
                [
                    *(str(_RAY), "start", "--block", "--disable-usage-stats", *role),
                    *("--num-cpus=2", f"--resources={json.dumps(resources)}"),
                ],
                env=clean_environment() | ({"PYTHONPATH": str(path)} if path else {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes.append(node)

        def started() -> bool:
            text = log.read_text(errors="replace")
            assert node.poll() is None, text
            return "Ray runtime started" in text

        await wait_until(started, 90)

    async def kill(self) -> None:
        """End every node with all of its processes, as a power cut would."""
        for node in self._nodes:
            family = [node.pid, *children(node.pid)] if node.poll() is None else []
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait(30)
            await wait_until(lambda family=family: not any(map(alive, family)), 30)
        self._nodes.clear()
        for directory in self._sessions:
            shutil.rmtree(directory, ignore_errors=True)
        self._sessions.clear()
