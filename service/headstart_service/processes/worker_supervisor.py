"""Keeps a worker running in a child process, so that compute never delays an answer."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from ..base.exit_codes import BLOCKED
from ..domain.errors import PackageMissing
from ..telemetry.metrics.child_pipe import ChildMetrics

log = logging.getLogger(__name__)

READY_LINE = "headstart worker ready"
"""What a worker prints on its standard output once it takes jobs."""
LACKS_LINE = "headstart worker lacks: "
"""What a child prints there, with its message, when a package is not installed."""
_LACKS = LACKS_LINE.encode()
_FIRST_PAUSE = 0.5
_LAST_PAUSE = 15.0
_LONG_LIFE = 60.0
_PIECE = 1 << 16


class WorkerProcess:
    """A `headstart worker` that is started again, with growing pauses, whenever it ends."""

    def __init__(
        self, environment: Mapping[str, str], drain: float, metrics: ChildMetrics | None = None
    ) -> None:
        """Give the child this environment, and `drain` seconds to stop.

        With `metrics`, the child sends its own there.
        """
        self._metrics = metrics
        self.restarts = 0
        """How often the child ended by itself."""
        self.hangs = 0
        """How often the child ended because its event loop stood still."""
        self._environment = environment
        self._drain = drain
        self.ready = asyncio.Event()
        """Set once the first child takes jobs; stays set."""

    async def run(self) -> None:
        """Keep a child running until cancelled; then let it drain, and return when it has ended.

        Raises PackageMissing when a package is not installed: no other child would have it.
        """
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            code = await self._one_life()
            if loop.time() - began > _LONG_LIFE:
                pause = _FIRST_PAUSE
            self.restarts += 1
            self.hangs += code == BLOCKED
            why = ", because a step blocked it" if code == BLOCKED else ""
            log.error("the worker ended with code %s%s; next start in %g s", code, why, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)

    async def _one_life(self) -> int:
        async with AsyncExitStack() as stack:
            if self._metrics is None:
                return await self._live(())
            return await self._live((await stack.enter_async_context(self._metrics.life()),))

    async def _live(self, descriptors: Sequence[int]) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headstart_service",
            "worker",
            "--exit-with-parent",
            *(f"--figures={descriptor}" for descriptor in descriptors),
            # What a step prints is passed on at once, not once a buffer is full.
            env={"PYTHONUNBUFFERED": "1", **self._environment},
            # The child ends when this pipe closes, so it never outlives a killed parent.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=descriptors,
        )
        try:
            assert process.stdout is not None
            # In pieces: a step may print a line that is longer than a reader's limit.
            rest, lacks = b"", b""
            while piece := await process.stdout.read(_PIECE):
                *lines, rest = (rest[-_PIECE:] + piece).split(b"\n")
                if any(line.strip() == READY_LINE.encode() for line in lines):
                    self.ready.set()
                lacks = next((line for line in lines if line.startswith(_LACKS)), lacks)
                _pass_on(lines)
            _pass_on([rest] if rest else [])
            code = await process.wait()
            if lacks and not self.ready.is_set():
                raise PackageMissing(lacks.removeprefix(_LACKS).decode(errors="replace"))
            return code
        finally:
            await self._stop(process)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self._drain + 10):
                await process.wait()
        except TimeoutError:
            log.error("the worker did not stop in time and is killed")  # noqa: TRY400  # no news in the trace
            process.kill()
            await process.wait()


def _pass_on(lines: Sequence[bytes]) -> None:
    """Print on standard error what steps and providers have printed, as if they ran here."""
    ours = (READY_LINE.encode(), _LACKS)
    printed = [line for line in lines if not line.startswith(ours)]
    if printed:
        with suppress(OSError, ValueError):
            sys.stderr.write("".join(f"{line.decode(errors='replace')}\n" for line in printed))
            sys.stderr.flush()
