"""Results from Redis as JSON over FastAPI, in the three ways that one writes such an endpoint.

Runs in the peer's own environment, so it imports nothing of Headstart.
"""

# mypy: ignore-errors
# FastAPI is installed in that environment alone.

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel
from redis.asyncio import Redis


class Embedding(BaseModel):
    values: list[float]


class Bridging(BaseModel):
    anchor_embedding: list[float]
    target_embedding: list[float]
    haiku_clues: list[str]
    haiku_embeddings: list[Embedding]
    lexical_bridge: list[str]
    lexical_embeddings: list[Embedding]
    null_samples: list[float]
    embedding_model: str


class Results(BaseModel):
    namespace: str
    key: str
    pipeline: str
    revision: int
    status: str
    created_at: str
    started_at: str
    completed_at: str
    expires_at: str
    steps: dict[str, Any]
    bridging: Bridging


def build(redis_url: str) -> FastAPI:
    app = FastAPI()
    redis = Redis.from_url(redis_url)

    @app.get("/plain/{key}")
    async def plain(key: str):  # noqa: ANN202  # with a return type it is the next one
        return json.loads(await redis.get(key))

    @app.get("/model/{key}")
    async def model(key: str) -> Results:
        return Results.model_validate_json(await redis.get(key))

    @app.get("/stored/{key}")
    async def stored(key: str) -> Response:
        return Response(await redis.get(key), media_type="application/json")

    return app


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(build(sys.argv[1]), access_log=False, log_level="warning")
    print(f"listening on {listening.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
