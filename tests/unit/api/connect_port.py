"""The port that takes calls over HTTP, on a store that tests hold, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.applications import Starlette

from headstart_service.api.call_limits import CallLimits
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.base.service_methods import SERVICE
from headstart_service.http.connect.access import Access
from headstart_service.http.connect.service import ConnectRules, ConnectService
from headstart_service.http.readiness import Readiness
from headstart_service.http.server import http_server
from headstart_service.pipeline.registry import Registry
from headstart_service.pipelines.bridging import BRIDGING
from tests.unit.api.conftest import PIPELINE, Api

JSON = {"content-type": "application/json"}
GAME = b'{"key":"game-1"}'


@dataclass
class Seen:
    """Notes what observers of calls receive."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    readies: list[bool] = field(default_factory=list)

    def ended(self, method: str, code: str, _: float) -> None:
        self.calls.append((method, code))

    def ready(self, _: float, complete: bool) -> None:  # noqa: FBT001  # as its protocol has it
        self.readies.append(complete)

    def results(self, *_: Any) -> None: ...

    def started(self, *_: Any) -> None: ...

    def damaged(self) -> None: ...


@dataclass
class Http:
    """A port, its service and a client."""

    service: ConnectService
    client: httpx2.AsyncClient
    seen: Seen
    limits: CallLimits

    async def post(
        self, method: str, body: bytes = GAME, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        sent = JSON if headers is None else headers
        return await self.client.post(f"/{SERVICE}/{method}", content=body, headers=sent)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Connection]:
        """A connection to a real port."""
        async with http_server("127.0.0.1", 0, lambda: READY, self.service.routes()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                yield reader, writer
            finally:
                writer.close()

    async def get(self, method: str, query: str) -> httpx2.Response:
        return await self.client.get(f"/{SERVICE}/{method}?{query}")


Opening = Callable[..., Any]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
READY = Readiness(ready=True)


def opening_over(api: Api) -> Opening:
    """Opens ports over this store."""

    @asynccontextmanager
    async def opened(**rules: Any) -> AsyncIterator[Http]:
        seen = Seen()
        dependencies = Dependencies(
            api.store,
            Registry([PIPELINE, BRIDGING]),
            api.reader,
            ApiRules(result_ttl=60, max_records=9),
            seen,  # type: ignore[arg-type]
        )
        rules.setdefault("limits", CallLimits())
        access = Access(host="127.0.0.1", tokens="grants" in rules, local=True, open=True)
        rules.setdefault("access", access)
        service = ConnectService(ConnectRules(api=dependencies, **rules))
        transport = httpx2.ASGITransport(Starlette(routes=service.routes()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Http(service, client, seen, rules["limits"])

    return opened
