"""Load from h2load, a client in C: the server is the limit, not the one who asks."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .harness import Unavailable

_CONNECTIONS = 4
_STREAMS = 8
_WARM_UP = "300ms"
_FRAMING = 30
"""About how many bytes HTTP/2 adds to an answer: the heads of its frames, its headers."""


@dataclass(frozen=True)
class Endpoint:
    """What is asked, again and again."""

    url: str
    expects: int
    """How many bytes the body of an answer has: one with fewer is an error that looks like none."""
    body: Path | None = None
    headers: tuple[str, ...] = ()
    flags: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Answered:
    """One answered request. Seconds; `ended` since the epoch."""

    ended: float
    took: float


def grpc_endpoint(
    work: Path, address: str, method: str, request: bytes, answer: int | bytes
) -> Endpoint:
    """A unary gRPC method with one serialized request, which answers with so many bytes."""
    body = work / f"{method.rpartition('/')[2]}-{len(list(work.glob('*.frame')))}.frame"
    body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    length = answer if isinstance(answer, int) else len(answer)
    headers = ("content-type: application/grpc", "te: trailers")
    return Endpoint(f"http://{address}/{method}", 5 + length, body, headers)


def require_h2load() -> str:
    """Where h2load is. Raises Unavailable."""
    found = shutil.which("h2load")
    if found is None:
        raise Unavailable("h2load is not installed: apt-get install nghttp2-client")
    return found


async def saturate(
    endpoint: Endpoint, seconds: float, connections: int = _CONNECTIONS, streams: int = _STREAMS
) -> float:
    """Requests answered a second when there are always some waiting."""
    output = await _h2load(
        endpoint,
        *("-c", str(connections), "-m", str(streams)),
        *("-D", f"{seconds * 1000:.0f}ms", "--warm-up-time", _WARM_UP),
    )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", output)
    assert rate is not None, output
    return float(rate[1])


async def paced(endpoint: Endpoint, seconds: float, rate: int, log: Path) -> list[Answered]:
    """Ask `rate` times a second, evenly, however long answers take."""
    await _h2load(
        endpoint,
        *("-c", str(_CONNECTIONS), "-m", "100", "--rps", f"{rate / _CONNECTIONS:g}"),
        *("-n", f"{rate * seconds:.0f}", "--log-file", str(log)),
    )
    return _read(log)


@asynccontextmanager
async def parked(
    endpoint: Endpoint, number: int, log: Path
) -> AsyncIterator[asyncio.Task[list[Answered]]]:
    """Ask so many times at once; the task gives how all were answered."""

    # What a connection costs beside its answers must not count for much of any.
    connections = min(10, max(1, number // 100))

    async def ask() -> list[Answered]:
        await _h2load(
            endpoint,
            *("-n", str(number), "-c", str(connections), "-m", str(-(-number // connections))),
            *("--log-file", str(log)),
        )
        return _read(log)

    task = asyncio.create_task(ask())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _h2load(endpoint: Endpoint, *arguments: str) -> str:
    """Run it; gives what it printed. Raises RuntimeError when any answer was not the right one."""
    body = ("-d", str(endpoint.body)) if endpoint.body else ()
    headers = [part for header in endpoint.headers for part in ("-H", header)]
    process = await asyncio.create_subprocess_exec(
        require_h2load(),
        *(*arguments, *endpoint.flags, *body, *headers, endpoint.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    counts = re.search(
        r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", output
    )
    # Of the measured time alone, unlike the data that it prints, which the warm-up is part of.
    traffic = re.search(r"traffic: \S+ \((\d+)\) total", output)
    if counts is None or traffic is None or int(counts[2]) or not int(counts[1]):
        raise RuntimeError(f"h2load {endpoint.url}:\n{output}")
    # A gRPC error has HTTP status 200, but no body.
    size = int(traffic[1]) / int(counts[1])
    if abs(size - endpoint.expects - _FRAMING) > max(0.1 * endpoint.expects, 60):
        raise RuntimeError(
            f"{endpoint.url} gave {size:.0f} bytes an answer, not {endpoint.expects}:\n{output}"
        )
    return output


def _read(log: Path) -> list[Answered]:
    """Every answer; h2load would write behind those of the last time."""
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    log.unlink()
    return [Answered((int(s) + int(took)) / 1e6, int(took) / 1e6) for s, _, took, *_ in rows]
