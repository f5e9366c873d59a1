"""Offers of eight carriers while the customer still types an address.

The page starts a run when the postcode is known. All carriers get their request at the same time,
each with a time limit of its own. One that is slow or away is named with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from headstart_service.sdk import FailureReason, Pipeline, StepFailed, step

if TYPE_CHECKING:
    import httpx2

Carrier = Literal["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]
CARRIERS: Final[tuple[Carrier, ...]] = get_args(Carrier)
_PATIENCE: Final = 2.0  # seconds that a carrier has
_AWAY: Final = FailureReason.DEPENDENCY_AWAY
_UNREACHED: Final = "could not be reached"


class Parcel(BaseModel, extra="forbid"):
    """What is sent."""

    grams: int = Field(ge=1, le=30_000)
    longest_cm: int = Field(ge=1, le=200)


class Inputs(BaseModel, extra="forbid"):
    """The order, as far as it is known."""

    parcel: Parcel
    country: str = Field(pattern="^[A-Z]{2}$")
    postcode: str = Field(min_length=2, max_length=12)
    carriers: list[Carrier] = Field(default=list(CARRIERS), min_length=1, max_length=20)


class Offer(BaseModel):
    """How a carrier would bring it."""

    service: str
    cents: int = Field(ge=0)
    days: int = Field(ge=0, le=60)


class Quote(BaseModel):
    """A carrier's offers, or why there are none."""

    carrier: str
    offers: list[Offer] = []
    problem: str = ""


class Choice(Offer):
    """An offer with the carrier that makes it."""

    carrier: str


class Choices(BaseModel):
    """What the page shows first."""

    cheapest: Choice
    fastest: Choice
    without: list[str]  # the carriers that gave no offer


_OFFERS = TypeAdapter(list[Offer])


class Gateway(BaseModel):
    """Where the carriers are. No input: callers must not choose where a worker sends requests."""

    url: str = Field(default="http://localhost:8080", pattern="^https?://[^/]+(/.*)?$")


@asynccontextmanager
async def gateway(settings: Gateway) -> AsyncIterator[Gateway]:
    """The provider: a worker checks `HEADSTART_PROVIDER_GATEWAY_URL` when it starts."""
    yield settings


@step(required=True, timeout=10, max_attempts=2)
async def quotes(
    parcel: Parcel,
    country: str,
    postcode: str,
    carriers: list[Carrier],
    http: httpx2.AsyncClient,
    gateway: Gateway,
) -> list[Quote]:
    """What each carrier answers, in their order. If none can be reached, it is tried again."""
    request = parcel.model_dump() | {"country": country, "postcode": postcode}
    found = await asyncio.gather(
        *(_quote(http, f"{gateway.url}/{carrier}", carrier, request) for carrier in carriers)
    )
    if all(quote.problem == _UNREACHED for quote in found):
        raise StepFailed("no carrier could be reached", failure_reason=_AWAY)
    return found


async def _quote(http: httpx2.AsyncClient, url: str, carrier: str, request: object) -> Quote:
    import httpx2

    try:
        async with asyncio.timeout(_PATIENCE):
            response = await http.post(url, json=request)
        response.raise_for_status()
        return Quote(carrier=carrier, offers=_OFFERS.validate_json(response.content))
    except TimeoutError:
        problem = f"gave no answer within {_PATIENCE:g} s"
    except httpx2.HTTPStatusError as error:
        problem = f"answered {error.response.status_code}"
    except httpx2.HTTPError:
        problem = _UNREACHED
    except ValidationError:
        problem = "gave an answer that makes no sense"
    return Quote(carrier=carrier, problem=problem)


@step(required=True)
async def choices(quotes: list[Quote]) -> Choices:
    """The cheapest and the fastest offer of those that came."""
    offers = [
        Choice(carrier=quote.carrier, **offer.model_dump())
        for quote in quotes
        for offer in quote.offers
    ]
    if not offers:
        raise StepFailed("no carrier made an offer", retry=False, failure_reason=_AWAY)
    return Choices(
        cheapest=min(offers, key=lambda offer: (offer.cents, offer.days)),
        fastest=min(offers, key=lambda offer: (offer.days, offer.cents)),
        without=[quote.carrier for quote in quotes if not quote.offers],
    )


PIPELINE = Pipeline(
    name="checkout",
    version="1",
    description="Offers of carriers, while the customer types an address",
    inputs=Inputs,
    steps=(quotes, choices),
)
