"""Pipelines for `examples/live.py`: a checkout whose steps take their time and sometimes fail."""

from __future__ import annotations

import asyncio
import math
import random

from pydantic import BaseModel

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec


class Basket(BaseModel):
    customer: int
    items: int = 3
    trouble: float = 0.0
    """How likely each step that depends on others is to fail."""


async def _take(least: float, most: float) -> None:
    await asyncio.sleep(random.uniform(least, most))


def _may_fail(trouble: float, reason: str) -> None:
    if random.random() < trouble:
        raise StepFailed(reason, retry=True)


@step(required=True)
async def profile(customer: int) -> dict[str, object]:
    """The customer and its segment."""
    await _take(0.2, 0.6)
    return {"customer": customer, "segment": ["new", "regular", "wholesale"][customer % 3]}


@step(max_attempts=3, backoff=0.3)
async def stock(items: int, trouble: float) -> list[int]:
    """How much there is of each item."""
    await _take(0.3, 0.9)
    _may_fail(trouble, "the warehouse does not answer")
    return [17 * (n + 1) % 40 for n in range(items)]


@step(required=True, max_attempts=2)
async def price(profile: dict[str, object], stock: list[int], trouble: float) -> dict[str, float]:
    """What it costs."""
    await _take(0.4, 1.2)
    _may_fail(trouble / 2, "no price list for this segment")
    return {"net": 9.9 * len(stock), "discount": 0.05 if profile["segment"] == "regular" else 0}


@step()
async def forecast(profile: dict[str, object], items: int) -> list[float]:
    """What will be bought next."""
    await _take(0.8, 2.2)
    items += profile["segment"] == "wholesale"
    return [math.sin(n / 3) * math.exp(-n / 30) + items / 10 for n in range(48)]


@step()
async def letter(price: dict[str, float], forecast: list[float]) -> str:
    """What the customer reads."""
    await _take(0.2, 0.5)
    return f"Your basket: {price['net']:.2f}, and {max(forecast):.1f} reasons to come back."


CHECKOUT = Pipeline(
    name="checkout",
    version="1",
    description="Prices a basket while its owner still looks for the card",
    inputs=Basket,
    steps=(profile, stock, price, forecast, letter),
    codec=ArtifactCodec(),
)
