"""The application: a game is begun, its player types, and submits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from headstart import HeadstartError, PrecomputeClient
from headstart_service.domain.errors import StepFailed

from .games import TTL, Game, Games
from .inputs import MAX_CLUE, NewClues, NewGame, refused
from .live import Live
from .scoring import NoScore, scored
from .submit import BUDGET, parts_of

STATIC = Path(__file__).parent / "static"
MAX_BODY = 65_536
_START_BUDGET = 0.25
"""Seconds that beginning a game may take longer for its head start."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def create_app(
    client: PrecomputeClient,
    live: Live,
    *,
    stand_in: bool = False,
    games: Games | None = None,
    headstart: str = "",
    budget: float = BUDGET,
) -> FastAPI:
    """The application over an open client and what computes here.

    With `stand_in`, players read that its Haiku is not Claude Haiku. Pages watch what is computed
    at the URL `headstart`, if there is one. `budget` is how many seconds the service may take at
    submit before parts are computed here.
    """
    policy = "content-security-policy"
    own = "connect-src 'self'"
    headers = _HEADERS | {policy: _HEADERS[policy].replace(own, f"{own} {headstart}".rstrip())}
    known = Games() if games is None else games
    # Without the pages of documentation: they load their scripts from other hosts.
    app = FastAPI(title="Word bridge", docs_url=None, redoc_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.middleware("http")
    async def _guard(request: Request, call_next: Any) -> Response:
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not (length.isdigit() and int(length) <= MAX_BODY):
            rule = f"a request needs a content-length, of at most {MAX_BODY} bytes"
            return JSONResponse({"detail": rule}, 413, headers)
        response: Response = await call_next(request)
        response.headers.update(headers)
        return response

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/about")
    async def about() -> dict[str, Any]:
        """What a page needs to know before a game."""
        return {"stand_in": stand_in, "max_clue": MAX_CLUE, "headstart": headstart}

    @app.post("/bridging/", status_code=201)
    async def begin(new: NewGame) -> dict[str, Any]:
        """Begin a game and, with a head start, have its parts computed from now on."""
        game = known.begin(new.game(), head_start=new.head_start)
        begun = {"id": game.id, "head_start": game.head_start, **game.inputs.model_dump()}
        return begun | {"not_started": await _start(client, game) if game.head_start else None}

    @app.post("/bridging/{game_id}/clues")
    async def clues(game_id: str, new: NewClues) -> dict[str, Any]:
        """Score a player's clues, beside the bridges of the others."""
        began = time.perf_counter()
        game = known.get(game_id)
        if game is None:
            raise HTTPException(404, f"no such game; games are kept for {TTL / 60:g} minutes")
        if wrong := refused(game.inputs, new.clues):
            raise RequestValidationError(
                [
                    {"type": "clue", "loc": ("body", "clues", at), "msg": rule, "input": None}
                    for at, rule in wrong
                ]
            )
        key = game.id if game.head_start else None
        embedding = asyncio.create_task(_timed(live.embed(new.clues)))
        parts = await parts_of(client, key, live.fallbacks(game.inputs), budget=budget)
        try:
            embeddings, embed_seconds = await embedding
            answer = scored(new.clues, embeddings, parts)
        except (NoScore, StepFailed) as error:
            raise HTTPException(503, f"this game cannot be scored: {error}") from error
        return answer | {
            "head_start": game.head_start,
            "stand_in": stand_in,
            "seconds": time.perf_counter() - began,
            "clues_embedded_in": embed_seconds,
            "parts": {
                step: {"source": part.source, "seconds": part.seconds, "error": part.error}
                for step, part in parts.items()
            },
        }

    return app


async def _start(client: PrecomputeClient, game: Game) -> str | None:
    """Start computing; why not, if not: the game goes on, and is computed at submit."""
    inputs = game.inputs
    try:
        await client.start_bridging(
            *(game.id, inputs.anchor, inputs.target, inputs.recipient_type),
            clue_count=inputs.clue_count,
            null_sample_count=inputs.null_sample_count,
            timeout=_START_BUDGET,
        )
    except HeadstartError as error:
        return f"{type(error).__name__}: {error}"
    return None


async def _timed(work: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began
