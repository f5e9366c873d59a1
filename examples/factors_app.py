"""A web application that has a number factored while its user is still busy.

Beside `make run`: `uvicorn examples.factors_app:app --port 8000`. It needs FastAPI and uvicorn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Path

from headstart import HeadstartError, PrecomputeClient

from .factors import prime_factors

Number = Annotated[int, Path(ge=2, lt=2**53)]  # as the pipeline's inputs: others are a 422


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with PrecomputeClient() as app.state.headstart:  # one for the process
        with suppress(HeadstartError):  # the service may be away
            await app.state.headstart.connect(timeout=1)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/chosen/{number}")
async def chosen(number: Number) -> None:
    """Start the run while the user is busy: within 25 ms, even if the service is away."""
    await app.state.headstart.start_or_skip(f"n-{number}", "factors", {"number": number})


@app.get("/factors/{number}")
async def shown(number: Number) -> dict[str, Any]:
    """Return the factors: the service's, or those that are computed here."""

    async def compute() -> list[int]:
        return await asyncio.to_thread(prime_factors, number)

    computed = await app.state.headstart.get_or_compute(
        f"n-{number}", deadline=60.0, fallback={"factors": compute}
    )
    return {"factors": computed.values["factors"], "source": computed.sources["factors"]}
