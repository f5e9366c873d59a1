"""Encode what claims order runs by: how long runs take, what they cost, what namespaces weigh."""

from __future__ import annotations

from collections.abc import Mapping

from ..domain import ExpectedRuns, Weights
from .keys import encoded


class ClaimOrder:
    """What one worker orders runs by, as the scripts read it."""

    def __init__(self, expected: ExpectedRuns, costs: ExpectedRuns, weights: Weights) -> None:
        """Ask all at each claim: they change."""
        self._expected = expected
        self._costs = costs
        self._weights = weights
        self._known: Mapping[str, float] = {}
        self._lines = ""

    @property
    def expected(self) -> str:
        """How long runs take, by pipeline."""
        return encode_expected(self._expected())

    @property
    def costs(self) -> str:
        """How long runs have a slot, by pipeline."""
        return encode_expected(self._costs())

    @property
    def weights(self) -> str:
        """The weights of namespaces that have one; encoded again only when they have changed."""
        weights = self._weights()
        if weights is not self._known:
            self._known, self._lines = weights, encode_weights(weights)
        return self._lines


def encode_expected(runs: Mapping[str, int]) -> str:
    """Encode how long runs take, in microseconds by pipeline, for start.lua and claim.lua."""
    return ",".join(f"{pipeline}={microseconds}" for pipeline, microseconds in runs.items())


def encode_weights(weights: Mapping[str, float]) -> str:
    """Encode weights by namespace, as _charges.lua reads them."""
    return "".join(f"\n{encoded(name)}={weight:.6f}" for name, weight in weights.items())
