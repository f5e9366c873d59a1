"""A FastAPI endpoint of one's own: a POST that starts a background task, a GET that polls Redis.

As its documentation has it: `BackgroundTasks`, plain functions on threads, uvicorn with uvloop. The
record is in Redis before the POST is answered, so that any replica can tell; the task itself is in
this process alone, and lost with it. Polling has no default: the GET looks every 0.1 s, which
spares the client a request each time.
"""

# mypy: ignore-errors
# FastAPI is installed in that environment alone.

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.concurrency import run_in_threadpool
from redis.asyncio import BlockingConnectionPool, Redis

from .. import work

PACKAGES = ("fastapi", "uvicorn", "redis", "httpx")
_DEFAULT_POLL = 0.1
_TTL = 1800
_WAIT = 120.0
_PENDING = b""
_KEEP_ALIVE = 2.0
"""Less than uvicorn's 5 s, or a request now and then meets a connection that is being closed."""


def build() -> FastAPI:
    app = FastAPI()
    # Its plain pool raises when more than 100 ask at once.
    redis = Redis.from_pool(BlockingConnectionPool.from_url(work.redis_url(), timeout=None))
    interval = work.poll(_DEFAULT_POLL)

    async def compute(key: str, task: str, arguments: list[Any]) -> None:
        if task == "gate":
            value = await work.gate(*arguments)
        else:
            function = {"noop": work.nothing, "kept": work.kept, "game": work.game}[task]
            value = await run_in_threadpool(function, *arguments)
        await redis.set(key, json.dumps(value), ex=_TTL)

    @app.post("/runs/{key}", status_code=202)
    async def start(
        key: str, task: str, arguments: list[Any], background: BackgroundTasks
    ) -> dict[str, str]:
        await redis.set(key, _PENDING, ex=_TTL)
        background.add_task(compute, key, task, arguments)
        return {"key": key}

    @app.get("/runs/{key}")
    async def result(key: str, wait: float = 0.0) -> dict[str, Any]:
        until = asyncio.get_running_loop().time() + wait
        while (value := await redis.get(key)) == _PENDING:
            if asyncio.get_running_loop().time() >= until:
                raise HTTPException(404, "not yet")
            await asyncio.sleep(interval)
        if value is None:
            raise HTTPException(404, "unknown")
        return {"value": json.loads(value)}

    return app


class Client:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def start(self, key: str, task: str, arguments: Sequence[Any]) -> str:
        path = f"/runs/{key}"
        answer = await self._http.post(path, params={"task": task}, json=list(arguments))
        answer.raise_for_status()
        return key

    async def find(self, key: str) -> str:
        return key

    async def wait(self, handle: str) -> Any:
        answer = await self._http.get(f"/runs/{handle}", params={"wait": _WAIT})
        answer.raise_for_status()
        return answer.json()["value"]


@asynccontextmanager
async def client(target: str, at_once: int) -> AsyncIterator[Client]:
    limits = httpx.Limits(
        max_connections=at_once,
        max_keepalive_connections=at_once,
        keepalive_expiry=_KEEP_ALIVE,
    )
    base = f"http://{target}"
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=_WAIT) as http:
        yield Client(http)


def main() -> None:
    work.load()
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(build(), access_log=False, log_level="warning")
    print(f"listening on {listening.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
