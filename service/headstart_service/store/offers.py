"""Encode a worker's offers as the scripts read them."""

from __future__ import annotations

from collections.abc import Iterable

from ..domain import Offer


def pipeline_of(name: str) -> str:
    """Return the pipeline of a class."""
    return name.partition("@")[0]


def text_of(offers: Iterable[Offer]) -> str:
    """Write a line "class makers" for each offer; makers are "step=maker", or '-' for none."""
    return "\n".join(
        f"{offer.runs_class} "
        + (",".join(f"{step}={maker}" for step, maker in offer.makers.items()) or "-")
        for offer in offers
    )
