"""Offers of eight carriers while the customer still types an address.

The page starts a run when the postcode is known. All carriers get their request at the same time,
each with a time limit and tries of its own. One that is slow or away is named with its reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from headstart_service.sdk import FailureReason, Item, Pipeline, StepFailed, step

if TYPE_CHECKING:
    import httpx2

Carrier = Literal["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]
CARRIERS: Final[tuple[Carrier, ...]] = get_args(Carrier)
_AWAY: Final = FailureReason.DEPENDENCY_AWAY


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


@step(each="carriers", required=True, timeout=2, max_attempts=2, retry_on=())
async def quotes(
    carriers: Carrier,
    parcel: Parcel,
    country: str,
    postcode: str,
    http: httpx2.AsyncClient,
    gateway: Gateway,
) -> list[Offer]:
    """The offers of one carrier, which is tried again if it cannot be reached."""
    import httpx2

    request = parcel.model_dump() | {"country": country, "postcode": postcode}
    try:
        response = await http.post(f"{gateway.url}/{carriers}", json=request)
        response.raise_for_status()
        return _OFFERS.validate_json(response.content)
    except httpx2.HTTPStatusError as error:
        problem = f"answered {error.response.status_code}"
    except httpx2.HTTPError:
        raise StepFailed("could not be reached", failure_reason=_AWAY) from None
    except ValidationError:
        problem = "gave an answer that makes no sense"
    raise StepFailed(problem, retry=False, failure_reason=_AWAY)


@step(required=True)
async def choices(carriers: list[Carrier], quotes: list[Item[list[Offer]]]) -> Choices:
    """The cheapest and the fastest offer of those that came."""
    quoted = [(c, quote.value or []) for c, quote in zip(carriers, quotes, strict=True)]
    offers = [
        Choice(carrier=carrier, **offer.model_dump()) for carrier, made in quoted for offer in made
    ]
    if not offers:
        raise StepFailed("no carrier made an offer", retry=False, failure_reason=_AWAY)
    return Choices(
        cheapest=min(offers, key=lambda offer: (offer.cents, offer.days)),
        fastest=min(offers, key=lambda offer: (offer.days, offer.cents)),
        without=[carrier for carrier, made in quoted if not made],
    )


PIPELINE = Pipeline(
    name="checkout",
    version="1",
    description="Offers of carriers, while the customer types an address",
    inputs=Inputs,
    steps=(quotes, choices),
)
